"""Intensity windows and in-plane geometry: pure functions on arrays (method, section 2)."""

from __future__ import annotations

import numpy as np

HU_WINDOW = (-1000.0, 400.0)  # lung to bone, of MosMed


def window(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """Clips to [low, high] and scales to [0, 1], float32; ``volume`` keeps its shape."""
    clipped = np.clip(np.asarray(volume, np.float32), np.float32(low), np.float32(high))
    return (clipped - np.float32(low)) / np.float32(high - low)


def shrink(volume: np.ndarray, size: int) -> np.ndarray:
    """In-plane linear interpolation of (H, W, n) to (size, size, n), float32.

    Equals ``scipy.ndimage.zoom(volume, (size / H, size / W, 1), order=1)``: corner pixels map onto corner pixels. Linear
    interpolation is separable, so it is two blends of two rows and columns, which is far cheaper than a general zoom.
    """
    for axis in (0, 1):
        place = np.arange(size) * ((volume.shape[axis] - 1) / (size - 1))
        low = np.minimum(place.astype(int), volume.shape[axis] - 2)
        shape = [1, 1, 1]
        shape[axis] = size
        share = (place - low).reshape(shape)
        # float64 as inside scipy, so that truncation to uint8 falls on the same side
        volume = np.take(volume, low, axis) * (1 - share) + np.take(volume, low + 1, axis) * share
    return volume.astype(np.float32)
