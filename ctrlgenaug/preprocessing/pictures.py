"""Single pictures of any usual format, as grey values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.raw_files import check_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".gif")


PAGED = ("TIFF", "GIF", "WEBP")  # formats of which one file may hold many pictures
SUBFILE, REDUCED = 254, 1  # of a TIFF page: a small copy of another


def read_picture(path: Path) -> np.ndarray:
    """The first picture of a file, as `read_pages`."""
    return next(read_pages(path))


def read_pages(path: Path) -> Iterator[np.ndarray]:
    """The pictures of a file, mostly one, each (H, W) uint8, uint16 or a wider type; colours become grey.

    Raises:
        UserError: missing, damaged, cut short, or claiming more pixels than any picture has.
    """
    check_file(path)
    try:
        with Image.open(path) as image:  # reads the header alone
            pages = getattr(image, "n_frames", 1) if image.format in PAGED else 1
            for page in range(pages):
                if page:
                    image.seek(page)
                    if image.format == "TIFF" and int(image.tag_v2.get(SUBFILE, 0)) & REDUCED:
                        continue
                check_picture(path, image.height, image.width)
                image.load()  # which OpenCV would fill with grey where the file is cut short
                yield _grey(image)
    except (
        Image.UnidentifiedImageError,
        OSError,
        ValueError,
        TypeError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(f"is not a whole picture ({type(error).__name__})", "Copy it again", path) from None


def _grey(image: Image.Image) -> np.ndarray:
    if not image.mode.startswith(("I", "F")):
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2GRAY)
    pixels = np.asarray(image)
    fits = pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() < 1 << 16
    return pixels.astype(np.uint16) if fits else pixels
