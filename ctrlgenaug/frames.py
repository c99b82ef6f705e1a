"""Single frames in and out: grey PNG, (256, 256) uint8."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path


def write_frame(path: str | Path, frame: np.ndarray) -> None:
    """Writes a (H, W) uint8 frame as PNG, whole or not at all."""
    done, data = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise UserError("cannot be encoded as PNG", "Check the frame's size and type", path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def read_frame(path: str | Path, remedy: str = "Run the step that writes it again") -> np.ndarray:
    """A frame's PNG as (256, 256) uint8; a `UserError` if it is missing, empty, damaged or of another size."""
    try:
        data = np.fromfile(path, np.uint8)
        frame = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    except (OSError, cv2.error):
        frame = None
    if frame is None:
        raise UserError("is missing or not a readable picture", remedy, path)
    if frame.shape != (IMAGE_SIZE, IMAGE_SIZE):
        raise UserError(f"is {frame.shape}, expected {IMAGE_SIZE} x {IMAGE_SIZE}", remedy, path)
    return frame
