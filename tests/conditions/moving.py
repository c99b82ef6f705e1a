"""Textures that move by a known step a frame."""

from __future__ import annotations

import cv2
import numpy as np


def texture(seed: int, size: int = 320) -> np.ndarray:
    """(size, size) uint8, smooth, full range."""
    noise = np.random.default_rng(seed).random((size, size))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def moving_clip(seed: int, dx: int = 3, dy: int = 2, num_frames: int = 8) -> np.ndarray:
    """(F, 256, 256) uint8: content that moves by (dx, dy) pixels a frame, both from 0 to 8."""
    image = texture(seed)
    return np.stack([image[64 - dy * i :, 64 - dx * i :][:256, :256] for i in range(num_frames)])
