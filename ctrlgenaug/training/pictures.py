"""Grids of labelled grey pictures for validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path

_MARGIN = 4  # pixels between pictures
_LINE = 18  # pixels of a line of text


def labelled_grid(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str] = ()
) -> np.ndarray:
    """Pictures in rows, with names on them.

    Args:
        rows: (label, pictures), pictures (H, W) uint8 of one size.
        columns: a label above each column.

    Returns:
        (height, width) uint8, white ground.
    """
    height, width = rows[0][1][0].shape
    count = max(len(pictures) for _, pictures in rows)
    head = _LINE + _MARGIN if columns else 0
    canvas = np.full(
        (head + len(rows) * (height + _LINE + _MARGIN), count * (width + _MARGIN) + _MARGIN), 255, np.uint8
    )
    for place, text in enumerate(columns):
        _write(canvas, text, _MARGIN + place * (width + _MARGIN), _LINE - 4, width)
    for number, (label, pictures) in enumerate(rows):
        top = head + number * (height + _LINE + _MARGIN)
        _write(canvas, label, _MARGIN, top + _LINE - 4, canvas.shape[1])
        for place, picture in enumerate(pictures):
            left = _MARGIN + place * (width + _MARGIN)
            canvas[top + _LINE : top + _LINE + height, left : left + width] = picture
    return canvas


def _write(canvas: np.ndarray, text: str, x: int, y: int, width: int) -> None:
    text = text[: max(8, width // 7)]
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes a grey PNG whole or not at all."""
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), picture):
            raise UserError("cannot be written", "Check the folder and the disk space", path)


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """[-1, 1] to uint8 in [0, 255], clipped, rounded."""
    return np.clip(np.rint((np.asarray(frames, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def map_picture(features: np.ndarray, size: int) -> np.ndarray:
    """(C, h, w) features as one (size, size) uint8 picture: the channel mean, stretched to 0..255."""
    mean = features.mean(axis=0)
    span = float(mean.max() - mean.min()) or 1.0
    grey = ((mean - mean.min()) / span * 255).astype(np.uint8)
    return cv2.resize(grey, (size, size), interpolation=cv2.INTER_NEAREST)
