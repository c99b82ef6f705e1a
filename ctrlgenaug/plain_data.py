"""JSON, JSON lines and plain .npy arrays: the formats that every step hands to the next."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.files import atomic_path, check_file, read_text, text_lines, write_text

READINGS = 5  # of a .npy file whose header Python's parser failed on, not the file


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON whole or not at all."""
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """``value`` as JSON; NaN and infinity, which JSON does not know, become null."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | Path) -> Any:
    """Reads a JSON file; a missing or malformed one is a `UserError`."""
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"is not readable JSON ({error})", "Write it again", path) from None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, nested too deeply, or numbers of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_text(path, "".join(to_json(row) + "\n" for row in rows))


def read_jsonl(path: str | Path, required: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Reads JSON lines.

    Args:
        path: the file.
        required: keys every row must have.

    Raises:
        UserError: the file is missing, or a line is not a JSON object with the required keys (named by its number).
    """
    lines = text_lines(read_text(path))
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
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
    size = check_file(path, remedy or "Run the step that writes it first")
    try:
        array = _read_npy(path, size, mmap)
    except Exception as error:  # a damaged header is parsed as Python, and can raise nearly anything
        if isinstance(error, OSError) and error.errno:
            raise
        reason = in_one_line(error)
        raise UserError(
            f"is not a readable .npy array ({reason})", remedy or "Write it again", path
        ) from None
    if shape is not None and (
        array.ndim != len(shape)
        or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise UserError(f"has shape {array.shape}, expected ({expected})", remedy or "Write it again", path)
    return array


def _read_npy(path: str | Path, size: int, mmap: bool, readings: int = READINGS) -> np.ndarray:
    """The array, checked; read again where Python 3.11's parser of the header miscounts, as it may among threads."""
    try:
        _check_npy(path, size)
        return np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except SystemError:
        if readings == 1:
            raise
        return _read_npy(path, size, mmap, readings - 1)


def _check_npy(path: str | Path, size: int) -> None:
    """A ValueError unless the file is a plain array with as many bytes as its header claims."""
    with Path(path).open("rb") as handle:
        version = np.lib.format.read_magic(handle)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"it is of version {version}")
        shape, _, dtype = readers[version](handle)
        if dtype.kind not in "biufc":
            raise ValueError(f"it holds {dtype}, not numbers")
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"it has the shape {shape}")
        claimed = math.prod(shape) * dtype.itemsize
        if claimed != size - handle.tell():
            raise ValueError(f"it claims {claimed} bytes of numbers and has {size - handle.tell()}")
