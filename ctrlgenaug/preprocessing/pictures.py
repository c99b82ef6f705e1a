"""Single pictures of any usual format, as grey values."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.raw_files import check_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".gif")


def read_picture(path: Path) -> np.ndarray:
    """A picture as (H, W) uint8 or uint16; colours become grey.

    Raises:
        UserError: missing, damaged, cut short, or claiming more pixels than any picture has.
    """
    check_file(path)
    try:
        with Image.open(path) as image:  # reads the header alone
            width, height = image.size
            check_picture(path, height, width)
            image.load()  # which OpenCV would fill with grey where the file is cut short
            deep = image.mode.startswith(("I", "F"))
            pixels = np.asarray(image) if deep else np.asarray(image.convert("RGB"))
    except (
        Image.UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(f"is not a whole picture ({type(error).__name__})", "Copy it again", path) from None
    if not deep:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return pixels.astype(np.uint16) if pixels.dtype.kind in "iu" and pixels.min() >= 0 else pixels
