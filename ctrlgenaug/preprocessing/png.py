"""Grey frames as PNG, checked when read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.deflate import compress

SIGNATURE = b"\x89PNG\r\n\x1a\n"
UP = 2  # the filter that stores each row as the difference from the one above


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_png(image: np.ndarray) -> bytes:
    """(H, W) uint8 as the bytes of a PNG file.

    A third of the time that OpenCV takes with its defaults, and smaller: one filter for all rows, compressed by ISA-L.
    """
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f"a frame must be (H, W) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = UP
    rows[0, 1:] = image[0]
    np.subtract(image[1:], image[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", compress(rows)) + _chunk(b"IEND", b"")


def read_png(path: str | Path, size: int = IMAGE_SIZE) -> np.ndarray:
    """The first of `read_png_and_bytes`."""
    return read_png_and_bytes(path, size)[0]


def read_png_and_bytes(path: str | Path, size: int = IMAGE_SIZE) -> tuple[np.ndarray, bytes]:
    """Reads a grey frame.

    Returns:
        (size, size) uint8, and the file as it is, to be written elsewhere.

    Raises:
        UserError: missing, empty, cut short, no PNG, or of another size.
    """
    remedy = "Delete it and run the step that writes it again"
    check_file(path, remedy)
    data = Path(path).read_bytes()
    # OpenCV fills the missing part of a PNG that was cut short with black and says nothing.
    if not (data[:8] == SIGNATURE and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"):
        raise UserError("is not a whole PNG", remedy, path)
    width, height = struct.unpack(">II", data[16:24])
    if (height, width) != (size, size):  # before it is decoded: a few bytes can claim gigabytes
        raise UserError(f"is {width} x {height} pixels, not {size} x {size}", remedy, path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None or image.shape != (size, size):
        raise UserError("is not a whole PNG", remedy, path)
    return image, data
