"""What a batch step has finished: one line a case, so that a run that was cut off continues where it stopped.

A line is appended (and flushed to disk) only after all files of its case have their final names. It holds what the
case was made from and the size of every file, so that a changed source, a changed setting, a deleted or a cut file is
noticed from directory listings alone, without reading 50,000 pictures.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctrlgenaug.files import TEMPORARY_PREFIX, append_line, atomic_path, text_lines
from ctrlgenaug.plain_data import parse_json, to_json, write_jsonl

LEDGER = ".finished.jsonl"
_numbers = itertools.count()  # of this process's temporary files

Sizes = dict[str, dict[str, os.stat_result]]
"""What `listing` told of folders, by name."""


def signature(paths: Iterable[Path], *, private: bool = False) -> list[list[Any]]:
    """[name, size, modification time] of each source; 0 and 0 for one that is missing. Private: one digest of all."""
    stats = [(path.name, path.stat() if path.exists() else None) for path in paths]
    found = [[name, stat.st_size, stat.st_mtime_ns] if stat else [name, 0, 0] for name, stat in stats]
    return [[hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]]] if private else found


def listing(folder: Path) -> dict[str, os.stat_result]:
    """Name -> stat of every file in ``folder`` (none if it does not exist)."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat() for entry in entries if entry.is_file()}


def record(folder: Path, entry: dict[str, Any]) -> None:
    """Appends ``entry`` (with ``case``, ``made_from``, ``files``); safe from several processes at once."""
    # the empty line before it keeps a line that a kill tore apart from it
    append_line(folder / LEDGER, "\n" + to_json(entry), durable=True)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The last entry of each case; torn or foreign lines are passed over, so their cases are done again."""
    found: dict[str, dict[str, Any]] = {}
    path = folder / LEDGER
    for line in text_lines(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ():
        try:
            entry = parse_json(line)
            found[entry["case"]] = {
                "case": entry["case"],
                "made_from": entry["made_from"],
                "files": dict(entry["files"]),
                **({"spacing": entry["spacing"]} if "spacing" in entry else {}),
            }
        except (ValueError, KeyError, TypeError):
            continue
    return found


def rewrite(folder: Path, finished: Iterable[dict[str, Any]]) -> None:
    """Replaces the ledger by one line a case."""
    write_jsonl(folder / LEDGER, finished)


def intact(entry: dict[str, Any], made_from: Any, root: Path, sizes: Sizes) -> bool:
    """Whether a case was made from exactly ``made_from`` and its files still lie below ``root`` with their sizes.

    Args:
        entry: from `entries`; ``files`` maps paths relative to ``root`` to sizes in bytes.
        made_from: what the case would be made from now (JSON values).
        root: the folder that the files' paths start from.
        sizes: a cache of `listing` by folder name, filled on the way.
    """
    if entry["made_from"] != made_from:
        return False
    for name, size in entry["files"].items():
        folder, _, file_name = name.rpartition("/")
        if folder not in sizes:
            sizes[folder] = listing(root / folder)
        if file_name not in sizes[folder] or sizes[folder][file_name].st_size != size:
            return False
    return True


def remove_stale(root: Path, old: dict[str, Any] | None, kept: Iterable[str] = ()) -> None:
    """Removes the files of an ``old`` entry that its successor does not have."""
    for name in set(old["files"] if old else ()) - set(kept):
        target = root / name
        if target.resolve().is_relative_to(root.resolve()):
            target.unlink(missing_ok=True)


def write_unsynced(path: Path, data: bytes) -> int:
    """Writes a file whole or not at all, without waiting for the disk; returns its size.

    A power cut may empty it; the size in the ledger then tells. Waiting for each of 50,000 small files would not pay.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid():x}-{next(_numbers):x}{path.suffix}"
    try:  # most files go straight through: a folder of slices has tens of thousands
        with open(temporary, "xb") as handle:
            handle.write(data)
        os.replace(temporary, path)
    except OSError:  # no folder yet, a full disk, something in the way: with all care, and its errors
        with contextlib.suppress(OSError):
            temporary.unlink()
        with atomic_path(path, durable=False) as careful:
            careful.write_bytes(data)
    return len(data)
