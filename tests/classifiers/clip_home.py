"""A MosMed home folder with clips whose class is the size of a drifting bright spot; quick to make and to learn."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from ctrlgenaug import datasets
from ctrlgenaug.video import write_avi, write_mp4

SPEC = datasets.get("MosMed")
RADII = {"CT-0": 3, "CT-1": 7, "CT-234": 13}


def draw_clip(cls: str, seed: int, size: int = 64, frames: int = 8) -> np.ndarray:
    """(F, S, S) uint8: noise, and a spot of the class's size that drifts."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    place, drift = draw.uniform(0.35, 0.65, 2) * size, draw.uniform(-1, 1, 2)
    clip = draw.normal(70, 12, (frames, size, size))
    for index in range(frames):
        row, column = place + drift * index
        clip[index][(rows - row) ** 2 + (columns - column) ** 2 < RADII[cls] ** 2] += 120
    return clip.clip(0, 255).astype(np.uint8)


def make_home(root: Path, train: int = 4, test: int = 2, clips: int = 2) -> Path:
    """``root/MosMedData`` with ``train`` and ``test`` patients a class, ``clips`` clips each; returns ``root``."""
    folder = root / SPEC.home / SPEC.clips_dir
    folder.mkdir(parents=True)
    number = 0
    for split, patients in (("train", train), ("test", test)):
        rows = []
        for cls in SPEC.classes:
            for _ in range(patients):
                number += 1
                for clip in range(clips):
                    name = SPEC.clip_name(f"study_{number:04d}", 1 + 15 * clip)
                    write_avi(folder / f"{name}.avi", draw_clip(cls, 100 * number + clip))
                    rows.append({"file_name": f"{name}.avi", "cls": cls})
        SPEC.metadata_path(folder, split).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def make_synthetic(root: Path, folder: Path, each: int = 2, first_seed: int = 66) -> Path:
    """``each`` synthetic clips for every real train clip of ``root``, named as generate.py names them."""
    folder.mkdir(parents=True)
    for clip in SPEC.clips(root / SPEC.home, "train"):
        for seed in range(first_seed, first_seed + each):
            name = f"{clip.name}_{clip.cls}_{seed}.mp4"
            write_mp4(folder / name, draw_clip(clip.cls, hash_of(name)))
    return folder


def hash_of(name: str) -> int:
    """A number that depends on ``name`` alone."""
    return zlib.crc32(name.encode())
