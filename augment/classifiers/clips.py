"""Clips as classifiers see them: resized, augmented, each frame standardised by its own mean and deviation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """(F, H, W) uint8 -> (F, size, size) uint8; area averaging when it gets smaller, else bilinear."""
    if frames.shape[1:] == (size, size):
        return frames
    how = cv2.INTER_AREA if size < min(frames.shape[1:]) else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def fit_length(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """``num_frames`` frames at even distances, the first and the last included (method, section 3 for odd lengths)."""
    if len(frames) == num_frames:
        return frames
    return frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]


def standardise(frames: np.ndarray) -> np.ndarray:
    """(F, H, W) in [0, 255] -> float32 (1, F, H, W): each frame has mean 0 and deviation 1 (method, section 7).

    A frame of one grey value, such as a black one that pads a short case, becomes 0.
    """
    frames = frames.astype(np.float32)
    mean = frames.mean((1, 2), keepdims=True)
    deviation = frames.std((1, 2), keepdims=True)
    return ((frames - mean) / np.maximum(deviation, 1e-3))[None]


@dataclass(frozen=True)
class Augmentation:
    """Modest changes that leave a finding a finding; the same for all frames of a clip, so that motion stays motion.

    Attributes:
        flip: chance of a left-right flip.
        shift: largest shift along each axis, as a part of the side.
        zoom: largest change of size, as a part.
        gamma: largest change of the grey curve's exponent, as a part (a plain gain or offset would not survive the
            standardisation).
        noise: largest deviation of added noise, in grey values.
    """

    flip: float = 0.5
    shift: float = 0.05
    zoom: float = 0.08
    gamma: float = 0.15
    noise: float = 3.0

    def __call__(self, frames: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """(F, S, S) uint8 -> (F, S, S) float32 in [0, 255], changed as ``draw`` says."""
        side = frames.shape[-1]
        mirror = -1.0 if draw.random() < self.flip else 1.0
        scale = 1 + draw.uniform(-self.zoom, self.zoom)
        shift = draw.uniform(-self.shift, self.shift, 2) * side
        exponent = 1 + draw.uniform(-self.gamma, self.gamma)
        middle = (side - 1) / 2
        matrix = np.array(
            [
                [mirror * scale, 0, middle - mirror * scale * middle + shift[0]],
                [0, scale, middle - scale * middle + shift[1]],
            ]
        )
        curve = (255 * (np.arange(256) / 255) ** exponent).astype(np.float32)
        moved = [
            cv2.warpAffine(
                frame, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            for frame in frames
        ]
        changed = curve[np.stack(moved)]
        noise = draw.standard_normal(changed.shape, dtype=np.float32) * draw.uniform(0, self.noise)
        return np.clip(changed + noise, 0, 255)
