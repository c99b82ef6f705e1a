"""Samples as grey pictures, and the image pipeline's result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor


@dataclass
class PictureOutput(BaseOutput):
    """Result of the image pipeline.

    Args:
        images: "np": (B, H, W) float32 in [0, 1]; "pt": (B, 1, H, W); "pil": B grey pictures; "latent": (B, 4, h, w).
    """

    images: np.ndarray | Tensor | list[Image.Image]


def to_pictures(grey: np.ndarray) -> Any:
    """uint8 (H, W) -> a picture; (N, H, W) -> N of them; (B, F, H, W) -> B lists of F."""
    return Image.fromarray(grey) if grey.ndim == 2 else [to_pictures(part) for part in grey]
