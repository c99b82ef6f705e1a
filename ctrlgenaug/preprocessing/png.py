"""Grey frames as PNG, checked when read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError

COMPRESSION = 3  # of 0 to 9: twice as fast as OpenCV's best, a few percent larger


def encode_png(image: np.ndarray) -> bytes:
    """(H, W) uint8 as the bytes of a PNG file."""
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"a frame must be (H, W) uint8, got {image.shape} {image.dtype}")
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION])[1].tobytes()


def read_png(path: str | Path, size: int = IMAGE_SIZE) -> np.ndarray:
    """Reads a grey frame.

    Returns:
        (size, size) uint8.

    Raises:
        UserError: missing, empty, cut short, no PNG, or of another size.
    """
    remedy = "Delete it and run the step that writes it again"
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError("does not exist", "Run the step that writes it again", path) from None
    if not data:
        raise UserError("is empty (0 bytes)", remedy, path)
    # OpenCV fills the missing part of a PNG that was cut short with black and says nothing.
    whole = data[:4] == b"\x89PNG" and data[-8:-4] == b"IEND"
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if whole else None
    if image is None:
        raise UserError("is not a whole PNG", remedy, path)
    if image.shape != (size, size):
        raise UserError(f"is {image.shape[1]} x {image.shape[0]} pixels, not {size} x {size}", remedy, path)
    return image
