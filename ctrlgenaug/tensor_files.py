"""Weights from files that nobody vouches for: tensors by name, whatever wrapped them; nothing in a file is ever run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file, check_name
from ctrlgenaug.folders import check_sums
from ctrlgenaug.plain_data import read_json

# Dictionaries that trainers put a model's weights into, beside their own state.
CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net")
# Names of the attribute that held the model: DistributedDataParallel, Lightning modules, torch.compile.
WRAPPERS = ("module.", "model.", "net.", "_orig_mod.")
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")  # a part of a model may have been compiled, too

DIFFUSERS = ("diffusion_pytorch_model",)
TRANSFORMERS = ("model", "pytorch_model")


def loading_reason(error: BaseException) -> str:
    """Why a file of weights cannot be read, in a few words and without the libraries' advice to read it unsafely."""
    text = " ".join(str(error).split())
    refused = re.search(r"(?:GLOBAL|global|class) [`']?([\w.]+\.[\w.]+)", text)
    if refused and "weights" in text.lower():
        return f"it refers to {refused[1]}, which is not allowed"
    if ".tar format" in text:
        return "it is in the format of PyTorch before 0.1.10"
    if re.search(r"weights_only|allow_pickle|trust", text):
        return "it holds more than tensors, or is damaged"
    if re.search(r"PytorchStreamReader|zip archive|unpickling stack|Ran out of input", text):
        return "it is damaged or cut short"
    first = re.split(r"(?<=[.!?]) ", text)[0]
    return first[:200] or type(error).__name__


def load_torch(
    file: str | Path,
    remedy: str,
    *,
    device: str | torch.device = "cpu",
    mmap: bool = True,
    names: Mapping[str, Any] | None = None,
) -> Any:
    """What torch has saved in ``file``: tensors, numbers, text and containers. Nothing else calls ``torch.load``.

    Args:
        file: the file.
        remedy: what the user should do if it is missing or damaged.
        device: where the tensors go.
        mmap: map the file instead of reading it, where its format allows.
        names: further names that it may use, and what stands for each.

    Raises:
        UserError: missing, damaged, refers to anything else, or unpacks to more than its size.
    """
    size = check_file(file, remedy)
    try:
        archive = zipfile.is_zipfile(file)
        if archive:
            _check_archive(Path(file), size)
        with torch.serialization.safe_globals([(thing, name) for name, thing in (names or {}).items()]):
            # only the format since PyTorch 1.6, an archive, can be mapped
            return torch.load(file, map_location=device, weights_only=True, mmap=mmap and archive)
    except Exception as error:  # a damaged file can raise nearly anything
        raise UserError(f"cannot be loaded safely ({loading_reason(error)})", remedy, file) from None


def _check_archive(file: Path, size: int) -> None:
    """A ValueError unless an archive is as torch writes it, unpacked: a packed one of 1 MB can hold 1 GB of zeros."""
    with zipfile.ZipFile(file) as archive:
        items = archive.infolist()
    if (
        any(item.compress_type != zipfile.ZIP_STORED for item in items)
        or sum(i.file_size for i in items) > size
    ):
        raise ValueError("it is a packed archive")


def read_tensors(file: str | Path, remedy: str = "Copy or download it again") -> dict[str, Tensor]:
    """The tensors of one file, ``.safetensors`` or any that torch has written, on the CPU.

    Containers such as ``{"state_dict": ...}`` are opened, and prefixes that all names share (`WRAPPERS`, in any
    combination) are taken off.

    Raises:
        UserError: missing, damaged, or holds anything but tensors.
    """
    return bare_names(_read(Path(file), remedy), Path(file))


def _read(file: Path, remedy: str) -> dict[str, Tensor]:
    """A file's tensors as they are called in it."""
    if file.suffix == ".safetensors":
        check_file(file, remedy)
        try:
            held: Any = load_file(file)
        except Exception as error:  # a damaged file can raise nearly anything
            raise UserError(f"cannot be loaded safely ({loading_reason(error)})", remedy, file) from None
    else:
        held = _unwrapped(load_torch(file, remedy))
    tensors = isinstance(held, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in held.items()
    )
    if not tensors or not held:
        raise UserError("is not a dictionary of tensors", remedy, file)
    return held


def _unwrapped(held: Any) -> Any:
    while isinstance(held, dict):
        inner = next((held[name] for name in CONTAINERS if isinstance(held.get(name), dict)), None)
        if inner is None:
            return held
        held = inner
    return held


def bare_names(weights: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """``weights`` under the names that the model itself gives them."""
    names = {_COMPILED.sub(r"\1", name): name for name in weights}
    if len(names) < len(weights):
        raise UserError("holds some tensors twice, compiled and not", "Save the model's state_dict", file)
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): original for name, original in names.items()}
    return {name: weights[original] for name, original in names.items()}


def weight_files(folder: str | Path, stems: Iterable[str] = DIFFUSERS) -> list[Path]:
    """The file or the shards that hold a folder's weights, safetensors first; empty if there are none.

    Args:
        folder: a model folder.
        stems: what the files are called: `DIFFUSERS` or `TRANSFORMERS`.

    Raises:
        UserError: an index of shards is damaged, or names a file that is not there.
    """
    folder = Path(folder)
    for variant in ("", ".fp16"):
        for suffix in ("safetensors", "bin"):
            for stem in stems:
                file = folder / f"{stem}{variant}.{suffix}"
                if file.is_file():
                    return [file]
                for index in (f"{stem}.{suffix}.index{variant}.json", f"{file.name}.index.json"):
                    if (folder / index).is_file():
                        return _shards(folder / index)
    return []


def _shards(index: Path) -> list[Path]:
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise UserError("names no shards", "Copy the folder again", index)
    files = [index.parent / check_name(str(name), index) for name in dict.fromkeys(places.values())]
    for file in files:
        if not file.is_file():
            raise UserError(f"names {file.name}, which is not there", "Copy the missing shard", index)
    return files


def read_folder(
    folder: str | Path, stems: Iterable[str] = DIFFUSERS, remedy: str = "Copy them there"
) -> dict[str, Tensor]:
    """The tensors of a model folder, from one file or from shards; see `read_tensors`.

    Raises:
        UserError: no weights, damaged ones, or others than the folder's SHA256SUMS says.
    """
    check_sums(folder)
    stems = tuple(stems)
    files = weight_files(folder, stems)
    if not files:
        names = f"{stems[0]}.safetensors or {stems[-1]}.bin"
        raise UserError(f"holds no weights ({names})", remedy, folder)
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read(file, "Copy or download it again")
    return bare_names(weights, files[0])


# --- models of transformers, built here so that nothing is looked up by name ---------------------------------------

# What a config may say that is not the architecture: among it code from a hub, by name.
_NOT_ARCHITECTURE = re.compile(r"attn_implementation|experts_implementation|auto_map|dtype|_name_or_path")


def read_config(folder: str | Path, part: str, remedy: str) -> dict[str, Any]:
    """The architecture in a folder's config.json, that of its ``part`` where it is a whole model's.

    Raises:
        UserError: missing or damaged.
    """
    path = Path(folder) / "config.json"
    config = read_json(path) if path.is_file() else None
    if isinstance(config, dict) and isinstance(config.get(part), dict):
        config = config[part]
    if not isinstance(config, dict):
        raise UserError("is no model folder (no config.json, or not a model's)", remedy, folder)
    return {name: value for name, value in config.items() if not _NOT_ARCHITECTURE.search(name)}


def load_exactly(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Loads ``weights``, which must be the model's, all of them: nothing stays at random.

    Raises:
        ValueError: names or shapes differ, one line.
    """
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    wrong = sorted(name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape)
    for problem, names in (("lacks", missing), ("has unknown", unknown), ("has misshapen", wrong)):
        if names:
            raise ValueError(f"{problem} {len(names)} weights, such as {names[0]}")
    model.load_state_dict(weights)
