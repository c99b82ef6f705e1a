"""Folders that one run at a time writes, with one set of settings."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import TEMPORARY_PREFIX, fingerprint
from ctrlgenaug.plain_data import read_json, write_json


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
