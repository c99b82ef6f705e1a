"""What a training starts from besides its settings: the content of the models and samples that its config names.

A path says where something lies, not what: a VAE that was trained again in the same folder makes other latents, to
which the UNet of an earlier training does not belong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.tensor_files import DIFFUSERS, TRANSFORMERS, weight_files

INPUTS_FILE = "inputs.json"


def content_of(path: str | Path) -> str:
    """Changes with the weights and the config of a model folder, or with the content of a file; "" if it is neither."""
    path = Path(path)
    if path.is_file():
        return fingerprint([path])
    config = path / "config.json"
    files = [*weight_files(path, (*DIFFUSERS, *TRANSFORMERS)), *([config] if config.is_file() else [])]
    return fingerprint(files) if files else ""


def start_of(path: str | Path, export_dir: str | Path | None) -> str:
    """`content_of` the weights that a training starts from; "" where its own export replaces them."""
    if export_dir and Path(path).resolve().is_relative_to(Path(export_dir).resolve()):
        return ""
    return content_of(path)


def companion_models(vae: str | Path, start: str | Path) -> dict[str, Path]:
    """The frozen models that a UNet is trained with, by name: what `content_of` is noted of, and what is exported."""
    return {"VAE": Path(vae), "text encoder": Path(start) / "text_encoder"}


def note(run_folder: str | Path, inputs: Mapping[str, str]) -> None:
    """Writes what the run starts from beside its config: what -> `content_of` it."""
    write_json(Path(run_folder) / INPUTS_FILE, dict(inputs))


def changed(run_folder: str | Path, inputs: Mapping[str, str]) -> list[str]:
    """What of ``inputs`` is other than the run in ``run_folder`` noted; what it did not note differs from nothing."""
    path = Path(run_folder) / INPUTS_FILE
    noted = read_json(path) if path.is_file() else {}
    if not isinstance(noted, dict):
        raise UserError("is not a JSON object", "Restore it, or choose another output_dir", path)
    return [what for what, content in inputs.items() if noted.get(what, content) != content]


def refuse_other_companions(run_folder: str | Path, companions: Mapping[str, Path]) -> None:
    """A `UserError` if a model that is exported beside the trained one is not the one that it was trained with."""
    now = {what: content_of(path) for what, path in companions.items()}
    if found := changed(run_folder, now):
        raise UserError(
            f"its {found[0]} is another one now than {run_folder} was trained with: they do not belong together",
            "Restore it, or train again with another output_dir",
            companions[found[0]],
        )
