"""What a synthesis folder says about itself: ``settings.json`` (checked), ``manifest.jsonl`` (a row a file).

While a run works, its rows go to a journal of its own in ``.parts/{shard}/``, so that shards on many machines never
write one file; every run that ends folds all journals into the manifest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import append_line, text_lines
from ctrlgenaug.folders import claim_folder, exclusive, is_held, refuse_link
from ctrlgenaug.plain_data import parse_json, write_jsonl

MANIFEST, SETTINGS, PARTS, JOURNAL = "manifest.jsonl", "settings.json", ".parts", "journal.jsonl"


def claim(folder: Path, corner: Path, settings: Mapping[str, Any]) -> None:
    """Binds ``folder`` to ``settings``: a folder never mixes models, conditions or solvers.

    A run that ended before its first clip binds nothing. ``corner`` is this run's own part.

    Raises:
        UserError: it was made with other settings (each difference named), or holds clips of unknown origin.
    """
    with _folder_lock(folder):
        others = [part for part in (folder / PARTS).glob("*-of-*") if part != corner]
        claim_folder(
            folder,
            settings,
            name=SETTINGS,
            pattern="*.mp4",
            in_use=any(map(is_held, others)),
            remedy="Choose another --output_dir, or remove the folder",
        )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a journal; a last line torn by a kill, or any other damaged line, is left out."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in text_lines(path.read_text(encoding="utf-8", errors="replace")):
            with contextlib.suppress(ValueError):
                row = parse_json(line)
                if isinstance(row, dict) and "file" in row:
                    rows.append(row)
    return rows


class Journal:
    """This run's rows, one whole line an append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        append_line(path, "")  # closes a line that a kill tore

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends ``row``."""
        append_line(self._path, json.dumps(row, ensure_ascii=False))


@contextlib.contextmanager
def part(folder: Path, shard: tuple[int, int]) -> Iterator[Path]:
    """This shard's own corner of ``folder`` for unfinished files and its journal, held against a second run.

    A `UserError` if the same shard is being made already. Leftovers of a killed run are removed on entry.
    """
    corner = folder / PARTS / f"{shard[0]}-of-{shard[1]}"
    for own in (folder / PARTS, corner):
        refuse_link(own)  # its content is deleted
    with exclusive(corner):
        for leftover in corner.glob("*.mp4"):
            leftover.unlink(missing_ok=True)
        yield corner


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(
            OSError
        ):  # some network file systems cannot; the next run heals the manifest
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def fold(folder: Path, corner: Path, missing: Mapping[str, Mapping[str, Any]]) -> None:
    """Rewrites the manifest from itself and all journals; files that are gone lose their row.

    Args:
        folder: the synthesis folder.
        corner: this run's part, removed afterwards.
        missing: rows by file name for files whose row a kill prevented (they are used only where none is known).
    """
    with _folder_lock(folder):
        present = {entry.name for entry in os.scandir(folder) if entry.name.endswith(".mp4")}
        rows: dict[str, Mapping[str, Any]] = {}
        for source in (folder / MANIFEST, *sorted((folder / PARTS).glob(f"*/{JOURNAL}"))):
            rows.update({row["file"]: row for row in _read_rows(source)})
        for name, row in missing.items():
            rows.setdefault(name, row)
        write_jsonl(folder / MANIFEST, [row for name, row in rows.items() if name in present])
        shutil.rmtree(corner, ignore_errors=True)
        for other in (folder / PARTS).glob("*-of-*"):  # of a killed run that was divided differently
            if other.is_symlink():
                continue
            with contextlib.suppress(UserError), exclusive(other):
                shutil.rmtree(other, ignore_errors=True)
        with contextlib.suppress(OSError):  # another shard is still at work
            (folder / PARTS).rmdir()


def finished(folder: Path, names: Sequence[str]) -> set[str]:
    """Which of ``names`` exist in ``folder``, whole (they appear by renaming) and not emptied since."""
    wanted = set(names)
    if not folder.is_dir():
        return set()
    return {entry.name for entry in os.scandir(folder) if entry.name in wanted and entry.stat().st_size > 0}
