"""Variants of training frames, each with an image prior of its own: against memorising few patients.

A prior belongs to its frame, so a frame cannot be flipped, shifted or zoomed after its prior was made. The step that
makes the priors makes those of N variants of each training frame as well; training draws one of the N + 1.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json

MARK = "__v"  # between a frame's name and its variant's number
LARGEST_SHIFT = 16  # pixels
LARGEST_ZOOM = 0.1  # of the frame's size, in or out
FLIPPED = 0.5  # share of variants that are mirrored, left to right
WEIGHTS_FILE = "weights.json"  # in the priors' folder: whose they are, and of how many variants


def variant_name(frame_name: str, number: int) -> str:
    """``study_0001_slice01__v2``; the frame's own name for number 0."""
    return f"{frame_name}{MARK}{number}" if number else frame_name


def split_variant(name: str) -> tuple[str, int]:
    """(frame's name, number) of what `variant_name` returned."""
    frame_name, mark, number = name.rpartition(MARK)
    return (frame_name, int(number)) if mark and number.isdigit() else (name, 0)


def vary(frame: np.ndarray, frame_name: str, number: int) -> np.ndarray:
    """Variant ``number`` of a frame: a pure function of the frame, its name and the number.

    Args:
        frame: (H, W) uint8.
        frame_name: without suffix.
        number: 0 is the frame itself.

    Returns:
        (H, W) uint8: perhaps mirrored, zoomed about its middle and shifted; black comes in at the edges.
    """
    if number == 0:
        return frame
    rng = np.random.default_rng(zlib.crc32(variant_name(frame_name, number).encode()))
    mirrored = rng.random() < FLIPPED
    zoom = 1 + rng.uniform(-LARGEST_ZOOM, LARGEST_ZOOM)
    across, down = rng.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2)
    height, width = frame.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    turned = np.diag([-zoom if mirrored else zoom, zoom])  # around the middle
    offset = middle - turned @ middle + (across, down)
    matrix = np.column_stack([turned, offset])
    return cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=0)


def noted_variants(folder: Path) -> int:
    """N of the variants whose priors are in ``folder``; 0 for a folder made without them."""
    if not (folder / WEIGHTS_FILE).is_file():
        return 0
    noted = read_json(folder / WEIGHTS_FILE)
    number = noted.get("variants", 0) if isinstance(noted, dict) else 0
    return number if isinstance(number, int) else 0


def check_variants(folder: Path, wanted: int) -> None:
    """Raises a `UserError` if ``folder`` holds the priors of another number of variants than ``wanted``."""
    found = noted_variants(folder)
    if found != wanted:
        raise UserError(
            f"holds the priors of {found} variants of each training frame, not of {wanted}",
            f"Use {found} in every step (--variants, prior_variants), or delete the folder and make it again",
            folder,
        )
