"""Files that appear whole or not at all, and loaders that never run what they read."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.errors import UserError

TEMPORARY_PREFIX = ".unfinished-"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` (file or folder); renames it to ``path`` only if the block succeeds.

    The suffix is kept, because encoders choose the container by it. The temporary name holds nothing of the target's
    stem, so that the longest legal file name still works.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())  # a power cut must not leave a renamed but empty file
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path) -> int:
    """Removes what a killed run left unfinished in ``folder``; returns how many. Call only under `exclusive`."""
    leftovers = list(Path(folder).glob(f"{TEMPORARY_PREFIX}*"))
    for item in leftovers:
        if item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)
    return len(leftovers)


@contextlib.contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Holds ``folder`` for one writing run. A second run gets a `UserError`; a killed run's lock vanishes with it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                "another run is writing this folder", "Wait for it to end, or choose another folder", folder
            ) from None
        remove_leftovers(folder)
        yield


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; a missing or malformed one is a `UserError`."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError("does not exist", "Run the step that writes it first", path) from None
    except (ValueError, OSError) as error:
        raise UserError(f"is not readable JSON ({error})", "Write it again", path) from None


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: str | Path, required: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Reads JSON lines.

    Args:
        path: the file.
        required: keys every row must have.

    Raises:
        UserError: the file is missing, or a line is not a JSON object with the required keys (named by its number).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError("does not exist", "Run the step that writes it first", path) from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "Write it again", path) from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"line {number} is not a JSON object", "Mend or remove the line", path)
        missing = [key for key in required if key not in row]
        if missing:
            raise UserError(f"line {number} lacks {', '.join(missing)}", "Mend or remove the line", path)
        rows.append(row)
    return rows


def save_npy(path: str | Path, array: np.ndarray) -> None:
    """Writes a plain .npy array (never a pickle) whole or not at all."""
    with atomic_path(path) as temporary:
        np.save(temporary, array, allow_pickle=False)


def load_npy(
    path: str | Path, shape: tuple[int | None, ...] | None = None, *, mmap: bool = False, remedy: str = ""
) -> np.ndarray:
    """Loads a plain .npy array.

    Args:
        path: the file.
        shape: the expected shape; None in it stands for any size.
        mmap: map the file read-only instead of reading it.
        remedy: what the user should do if the file is missing or damaged.

    Raises:
        UserError: the file is missing, truncated, a pickle, or of another shape.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except FileNotFoundError:
        raise UserError("does not exist", remedy or "Run the step that writes it first", path) from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"is not a readable .npy array ({error})", remedy or "Write it again", path) from None
    if shape is not None and (
        array.ndim != len(shape)
        or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"has shape {array.shape}, expected ({expected})", remedy or "Write it again", path)
    return array


def _latin1_bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it uses the codec {encoding!r}, which is not allowed")
    return text.encode("latin1")


class _NumpyUnpickler(pickle.Unpickler):
    """Admits plain containers and numeric NumPy arrays: the only things in the official code's files."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how protocols 0 to 2 spell bytes
            return _latin1_bytes
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_restricted_pickle(path: str | Path) -> Any:
    """Loads a pickle (or pickled .npy) that holds nothing but containers, numbers, text and NumPy arrays.

    Raises:
        UserError: the file is missing, damaged, or refers to anything else.
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            if handle.read(6) == b"\x93NUMPY":  # a pickled .npy: the header, then the pickle
                handle.seek(0)
                version = np.lib.format.read_magic(handle)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                read_header[version](handle)
            else:
                handle.seek(0)
            value = _NumpyUnpickler(handle).load()
    except FileNotFoundError:
        raise UserError("does not exist", "Run the step that writes it first", path) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(
            f"cannot be loaded safely ({error})", "Write it again with this project", path
        ) from None
    return (
        value.item() if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0 else value
    )


def fingerprint(paths: Iterable[str | Path], length: int = 16) -> str:
    """A short SHA-256 over the contents of ``paths`` in the order given: tells two sets of weights apart."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:length]


def fingerprint_folder(
    folder: str | Path, suffixes: tuple[str, ...] = (".safetensors", ".bin", ".json")
) -> str:
    """`fingerprint` of a model folder's weights and configs, in name order."""
    return fingerprint(sorted(path for path in Path(folder).rglob("*") if path.suffix in suffixes))


def claim_folder(
    folder: str | Path,
    settings: dict[str, Any],
    *,
    name: str = "settings.json",
    notes: dict[str, Any] | None = None,
    pattern: str = "*.npy",
) -> None:
    """Notes in ``folder/name`` what its files are made with, so that a later run cannot mix in others.

    Call under `exclusive`. ``notes`` are written beside the settings, for the reader; they may differ.

    Raises:
        UserError: files matching ``pattern`` are there that were made with other or unknown settings.
    """
    path = Path(folder) / name
    if not any(Path(folder).glob(pattern)):
        write_json(path, settings | (notes or {}))
        return
    if not path.is_file():
        remedy = "Choose another folder, or move its files away"
        raise UserError(f"holds files but no {name} that says how they were made", remedy, folder)
    noted = read_json(path)
    noted = noted if isinstance(noted, dict) else {}
    differing = [
        f"{key}={noted.get(key)!r}, not {value!r}"
        for key, value in settings.items()
        if noted.get(key) != value
    ]
    if differing:
        remedy = "Use the same settings, choose another folder, or delete this one"
        raise UserError(f"was made with {'; '.join(differing)} (see {name})", remedy, folder)


def check_name(name: str, path: str | Path | None = None) -> str:
    """Returns ``name`` if it is a bare file name; a `UserError` if it could leave its folder.

    Names come from metadata and archives, which are untrusted.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"holds {name!r}, which is not a plain file name", "Mend the entry", path)
    return name


def verified(check: Callable[[Path], Any], path: str | Path) -> bool:
    """Whether ``path`` exists and ``check`` reads it without a `UserError`."""
    path = Path(path)
    if not path.is_file():
        return False
    try:
        check(path)
    except UserError:
        return False
    return True
