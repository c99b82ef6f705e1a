"""Checkpoints that are whole or not there, and the choice of the newest one that can be trusted.

``checkpoint-N/`` holds the model's folder (``vae/``, ``unet/`` or ``unet3d/``), with EMA also ``..._ema/``, and
``training_state.pt``: everything else that the run needs to go on exactly. ``manifest.json`` lists every file with size
and SHA-256; the folder is written under another name and renamed when it is complete.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path, fingerprint, is_disk_full
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.tensor_files import load_torch

STATE_FILE = "training_state.pt"
MANIFEST_FILE = "manifest.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def step_of(folder: Path) -> int:
    """The step in a checkpoint's name; -1 for another name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1


def find(run_folder: str | Path) -> list[Path]:
    """The checkpoints of a run, newest first, unchecked."""
    folders = [path for path in Path(run_folder).glob("checkpoint-*") if step_of(path) >= 0]
    return sorted(folders, key=step_of, reverse=True)


def write(folder: str | Path, fill: Callable[[Path], None], state: dict[str, Any]) -> None:
    """Writes a checkpoint whole or not at all.

    Args:
        folder: ``.../checkpoint-N``; an existing one is replaced.
        fill: writes the model folders into the path it is given.
        state: tensors, numbers, text and containers only, so that it loads without unpickling anything else.
    """
    folder = Path(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        try:
            fill(temporary)
            torch.save(state, temporary / STATE_FILE)
        except Exception as error:  # each library says it in its own way
            if not is_disk_full(error, folder.parent):
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        manifest = {
            str(path.relative_to(temporary)): {
                "bytes": path.stat().st_size,
                "sha256": fingerprint([path], 64),
            }
            for path in files
        }
        write_json(temporary / MANIFEST_FILE, manifest)
        if folder.exists():  # a folder cannot be renamed onto a full one; only a damaged one is ever replaced
            shutil.rmtree(folder)


def check(folder: str | Path) -> None:
    """Raises a `UserError` unless every file of the checkpoint has the size and content it was written with."""
    folder = Path(folder)
    remedy = "Delete this checkpoint, or restore it from a copy"
    manifest = read_json(folder / MANIFEST_FILE)
    if not isinstance(manifest, dict) or STATE_FILE not in manifest:
        raise UserError("is not a checkpoint's manifest", remedy, folder / MANIFEST_FILE)
    for name, expected in manifest.items():
        path = folder / name
        if not path.is_file():
            raise UserError("is missing from the checkpoint", remedy, path)
        if expected != {"bytes": path.stat().st_size, "sha256": fingerprint([path], 64)}:
            raise UserError("was changed or damaged after it was written", remedy, path)


def newest_whole(run_folder: str | Path, report: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that passes `check`; each damaged newer one goes to ``report``."""
    for folder in find(run_folder):
        try:
            check(folder)
        except UserError as error:
            report(f"damaged checkpoint not used: {error}")
            continue
        return folder
    return None


def load_state(folder: str | Path) -> dict[str, Any]:
    """The training state of a checkpoint, on the CPU, loaded without running anything in it."""
    path = Path(folder) / STATE_FILE
    state = load_torch(path, "Use an earlier checkpoint", mmap=False)
    if not isinstance(state, dict):
        raise UserError("is no training state", "Use an earlier checkpoint", path)
    return state


def prune(run_folder: str | Path, keep: int) -> None:
    """Deletes all but the ``keep`` newest checkpoints."""
    for folder in find(run_folder)[keep:]:
        # the manifest goes first: a half-deleted checkpoint must not look whole
        (folder / MANIFEST_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def random_states() -> dict[str, Any]:
    """The state of every global random stream, in types that load without unpickling."""
    legacy: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = legacy
    version, internal, gauss = random.getstate()
    return {
        "python": (version, list(internal), gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Sets every global random stream to what `random_states` returned."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
