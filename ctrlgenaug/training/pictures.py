"""Pixels and feature maps as pictures for validation."""

from __future__ import annotations

import cv2
import numpy as np


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """[-1, 1] to uint8 in [0, 255], clipped, rounded."""
    return np.clip(np.rint((np.asarray(frames, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def map_picture(features: np.ndarray, size: int) -> np.ndarray:
    """(C, h, w) features as one (size, size) uint8 picture: the channel mean, stretched to 0..255."""
    mean = features.mean(axis=0)
    span = float(mean.max() - mean.min()) or 1.0
    grey = ((mean - mean.min()) / span * 255).astype(np.uint8)
    return cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST)
