"""Phantom patients of all four data sets, drawn on the fly: what the miniature base model learns from.

Each is drawn and prepared as the data set's own steps would, but without its files: the anatomy of the class, the
window or crop of step (a), and one clip of eight frames. Nobody is told the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ctrlgenaug.phantom import chest, heart, knee, shapes, thyroid
from ctrlgenaug.preprocessing import images
from ctrlgenaug.preprocessing.readers import acdc, tusc
from ctrlgenaug.preprocessing.readers.tirads import describe

FRAMES = 8
STRIDED = 2 * FRAMES - 1  # slices that a clip of every second one covers


@dataclass(frozen=True)
class Example:
    """A clip of one phantom patient.

    Attributes:
        frames: (8, 256, 256) uint8.
        text: the description, or "" where the data set has none.
    """

    frames: np.ndarray
    text: str = ""


def _every_second(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Every second of 15 frames, from a random start."""
    start = rng.integers(0, len(frames) - STRIDED + 1)
    return frames[start : start + STRIDED : 2]


def draw_chest(rng: np.random.Generator) -> Example:
    """A chest of any category, in the lung window."""
    category = rng.choice(chest.CATEGORIES, p=(0.3, 0.3, 0.14, 0.13, 0.13))
    volume = chest.draw_volume(rng, category, int(rng.integers(20, 25)), 256)
    return Example(images.to_bytes(images.hu_window(_every_second(rng, volume))))


def draw_knee(rng: np.random.Generator) -> Example:
    """A knee, its ligament whole or torn."""
    series = knee.draw_series(rng, bool(rng.integers(2)), int(rng.integers(16, 31)))
    return Example(_every_second(rng, series))


def draw_heart(rng: np.random.Generator) -> Example:
    """A heart of any group in one of its phases: the slices that show it, black where there are fewer than eight."""
    shape = (int(rng.integers(150, 260)), int(rng.integers(154, 260)))
    group, slices = rng.choice(heart.GROUPS), int(rng.integers(8, 19))
    volume, labels = heart.draw_phase(rng, group, slices, shape, systole=bool(rng.integers(2)))
    frames = list(acdc.slices(volume, labels).values())
    start = rng.integers(0, max(1, len(frames) - FRAMES + 1))
    frames = frames[start : start + FRAMES]
    frames += [np.zeros_like(frames[0])] * (FRAMES - len(frames))
    return Example(np.stack(frames))


def draw_thyroid(rng: np.random.Generator) -> Example:
    """A film of a nodule of any level, cropped to it, with the sentence that its codes make."""
    level = rng.choice(thyroid.LEVELS)
    codes = thyroid.CODES[level][rng.integers(len(thyroid.CODES[level]))]
    picture, lesion = thyroid.draw_film(rng, codes, int(rng.integers(20, 41)))
    frames = []
    for view, mask in _every_second(rng, np.stack([picture, lesion * 255], axis=1)):
        view, mask = shapes.enlarge(np.stack([view, mask]), thyroid.HEIGHT, thyroid.WIDTH)
        frames.append(tusc.crop_frame(view.astype(np.uint8), np.where(mask >= 128, 255, 0).astype(np.uint8)))
    named = {f"ti-rads_{feature}": str(code) for feature, code in zip(thyroid.FEATURES, codes, strict=True)}
    return Example(np.stack(frames), describe(named))


KINDS: dict[str, Callable[[np.random.Generator], Example]] = {
    "MosMed": draw_chest,
    "MRNet": draw_knee,
    "ACDC": draw_heart,
    "TUSC": draw_thyroid,
}


def draw_patient(seed: int, number: int) -> Example:
    """Patient ``number`` of the endless line that ``seed`` names; the four kinds take turns."""
    kind = list(KINDS)[number % len(KINDS)]
    return KINDS[kind](shapes.generator(seed, f"base {kind} {number}"))
