"""A clip with its motion field drawn on it, to see at a glance whether the vectors follow what moves."""

from __future__ import annotations

import cv2
import numpy as np

COLOUR = (64, 220, 64)  # RGB
MARGIN = 4  # pixels between frames
SCALE = 2  # a frame's pixel in the picture's pixels: vectors are short


def draw_field(
    frames: np.ndarray, field: np.ndarray, *, columns: int = 4, shortest: float = 0.5
) -> np.ndarray:
    """Draws every vector as an arrow from where the block came from to where it is.

    Args:
        frames: (F, H, W) uint8.
        field: (F-1, 2, H, W) pixels, channel 0 = x.
        columns: frames in a row of the picture.
        shortest: vectors shorter than this many pixels are left out.

    Returns:
        (H', W', 3) uint8 RGB: frames 1 to F-1, frame 0 having no field.
    """
    if len(field) != len(frames) - 1 or not len(field):
        raise ValueError(f"expected {len(frames) - 1} fields, at least one, got {len(field)}")
    height, width = (side * SCALE for side in frames.shape[1:])
    columns = min(columns, len(field))
    rows = -(-len(field) // columns)
    picture = np.full(
        (rows * (height + MARGIN) - MARGIN, columns * (width + MARGIN) - MARGIN, 3), 255, np.uint8
    )
    for index, (frame, vectors) in enumerate(zip(frames[1:], field, strict=True)):
        drawn = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_GRAY2RGB)
        for y, x in np.argwhere(np.hypot(*vectors) >= shortest):
            head = np.array([x, y]) * SCALE
            tail = np.rint(head - vectors[:, y, x] * SCALE).astype(int)
            cv2.arrowedLine(drawn, tail.tolist(), head.tolist(), COLOUR, 1, cv2.LINE_AA, tipLength=0.3)
        top, left = index // columns * (height + MARGIN), index % columns * (width + MARGIN)
        picture[top : top + height, left : left + width] = drawn
    return picture
