"""Movement of the view: a patient who breathes between slices, a probe that slides. It tells nothing of the class."""

from __future__ import annotations

import cv2
import numpy as np

STILL = 0.25  # the share of patients whose view does not move
UNEVEN = 0.3  # deviation of each step from the patient's own, as a part of the largest


def drift(rng: np.random.Generator, frames: int, most: float) -> np.ndarray:
    """Where the view stands in each frame, having moved mostly one way.

    Args:
        rng: the patient's stream of this purpose alone, so that the drawing is the same with and without movement.
        frames: how many.
        most: pixels that it moves from one frame to the next, at most on average.

    Returns:
        (frames, 2) float: rows, columns in pixels; the first frame is at (0, 0).
    """
    angle, speed = rng.uniform(-np.pi, np.pi), most * np.sqrt(rng.uniform())  # even over the disc
    steps = speed * np.array([np.sin(angle), np.cos(angle)])
    steps = steps + UNEVEN * most * rng.standard_normal((frames - 1, 2))
    if rng.uniform() < STILL:
        steps = np.zeros_like(steps)
    return np.concatenate([np.zeros((1, 2)), steps.cumsum(0)])


def shifted(frames: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``frames`` (F, H, W) shifted to ``places`` (F, 2), rows and columns in pixels; the border is drawn out."""
    height, width = frames.shape[1:]
    planes = [
        cv2.warpAffine(
            frame,
            np.array([[1, 0, x], [0, 1, y]]),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for frame, (y, x) in zip(frames, places, strict=True)
    ]
    return np.stack(planes)
