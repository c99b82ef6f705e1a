"""Pictures of clips: one row for each clip, its frames from left to right, its name above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ctrlgenaug.files import atomic_path

MARGIN = 4  # pixels between frames
CAPTION = 14  # pixels above a row


def _caption(picture: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    text = text.encode("ascii", "replace").decode()  # the built-in font knows no more
    while len(text) > 4 and picture.textlength(text) > width:
        text = text[: len(text) - 4] + "..."
    picture.text(place, text, fill=0)


def strip(frames: np.ndarray, frame_size: int = 112, most: int = 8) -> np.ndarray:
    """A clip's frames from left to right.

    Args:
        frames: (F, H, W) uint8; of more than ``most``, evenly spaced ones are shown.
        frame_size: side of a frame in the picture, in pixels; smaller frames are not enlarged.
        most: frames shown.

    Returns:
        (H', W') uint8, white between the frames.
    """
    size = min(frame_size, *frames.shape[1:])
    shown = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    canvas = np.full((size, len(shown) * (size + MARGIN) - MARGIN), 255, np.uint8)
    for column, index in enumerate(shown):
        small = cv2.resize(frames[index], (size, size), interpolation=cv2.INTER_AREA)
        canvas[:, column * (size + MARGIN) : column * (size + MARGIN) + size] = small
    return canvas


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]], frame_size: int = 96) -> np.ndarray:
    """Clips below one another.

    Args:
        rows: (caption, frames (F, H, W) uint8) of each clip; F may differ.
        frame_size: side of a frame in the picture, in pixels.

    Returns:
        (H', W') uint8, white where there is nothing.
    """
    most = max(len(frames) for _, frames in rows)
    step = frame_size + MARGIN
    canvas = Image.new("L", (MARGIN + most * step, MARGIN + len(rows) * (step + CAPTION)), 255)
    picture = ImageDraw.Draw(canvas)
    for row, (caption, frames) in enumerate(rows):
        top = MARGIN + row * (step + CAPTION)
        _caption(picture, (MARGIN, top), caption, canvas.width - 2 * MARGIN)
        for column, frame in enumerate(frames):
            small = cv2.resize(frame, (frame_size, frame_size), interpolation=cv2.INTER_AREA)
            canvas.paste(Image.fromarray(small), (MARGIN + column * step, top + CAPTION))
    return np.asarray(canvas)


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes (H, W) or (H, W, 3) uint8 as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary)
