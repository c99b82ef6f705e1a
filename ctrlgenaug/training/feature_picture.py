"""Feature maps as pictures for validation."""

from __future__ import annotations

import cv2
import numpy as np


def map_picture(features: np.ndarray, size: int) -> np.ndarray:
    """(C, h, w) features as one (size, size) uint8 picture: the first principal component, stretched to 0..255.

    Not the channel mean: the encoder ends in a normalisation over channels, so that mean is a constant.
    """
    places = features.reshape(len(features), -1).astype(np.float64)  # (C, h * w)
    places -= places.mean(axis=1, keepdims=True)
    direction = np.linalg.eigh(places @ places.T)[1][:, -1]
    direction *= (
        np.sign(direction.sum()) or 1.0
    )  # an eigenvector has no sign of its own; this one is reproducible
    shown = (direction @ places).reshape(features.shape[1:])
    span = float(shown.max() - shown.min()) or 1.0
    grey = ((shown - shown.min()) / span * 255).astype(np.uint8)
    return cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST)
