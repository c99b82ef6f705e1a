"""JSON, JSON lines and plain .npy arrays: the formats that every step hands to the next."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path, write_text


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
