"""The arithmetic on voxels and pixels that the method's readers share (method, section 2). Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cc3d
import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE


def hu_window(voxels: np.ndarray, low: float = -1000, high: float = 400) -> np.ndarray:
    """Hounsfield units clipped to [low, high] and scaled to [0, 1], float32."""
    if voxels.dtype.kind == "u":  # the window's lower end lies outside unsigned types
        voxels = voxels.astype(np.int64 if voxels.dtype.itemsize > 2 else np.int32)
    return ((np.clip(voxels, low, high) - low) / (high - low)).astype(np.float32)


def zoom_plane(plane: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """(N, N) float32 to (size, size), equal to ``scipy.ndimage.zoom(plane, size / N, order=1)`` but separable.

    First and last pixels map onto each other: output i lies at i * (N - 1) / (size - 1).
    """

    def along_rows(values: np.ndarray) -> np.ndarray:
        most = values.shape[0] - 1
        at = np.arange(size) * (most / (size - 1))
        low = np.minimum(at.astype(np.intp), most)
        weight = (at - low)[:, None]  # float64, as scipy computes
        return values[low] * (1 - weight) + values[np.minimum(low + 1, most)] * weight

    return along_rows(along_rows(plane).T).T.astype(np.float32)


def to_bytes(unit: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8: times 255, truncated."""
    return (unit * 255).astype(np.uint8)


def percentile_window(
    voxels: np.ndarray, low: float = 0.5, high: float = 99.5, planes: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """MR intensities to uint8: clipped to two percentiles of the voxels above 0, min..max to 0..255, 0 stays 0.

    Args:
        voxels: (n, H, W).
        low: percentile that becomes 0.
        high: percentile that becomes 255.
        planes: which of the n to return; the window is always that of all. None: all.

    Raises:
        ValueError: no voxel is above 0, or all are equal after clipping.
    """
    lowest, highest = voxels.min(), voxels.max()
    if highest <= 0:
        raise ValueError("no voxel is above 0")
    chosen = slice(None) if planes is None else planes
    start = min(int(lowest), 0)
    countable = voxels.dtype.kind in "iu" and int(highest) - start < voxels[chosen].size
    if countable:
        as_they_are = start == 0 and voxels.dtype.itemsize < 8  # without a copy
        places = voxels if as_they_are else voxels.astype(np.int64) - start
        above = np.bincount(places.ravel())[1 - start :]
        bottom, top = (_percentile(above, 1, share) for share in (low, high))
    else:
        bottom, top = np.percentile(voxels[voxels > 0], [low, high])
    least, greatest = np.clip(lowest, bottom, top), np.clip(highest, bottom, top)
    if least == greatest:
        raise ValueError("all voxels are equal")

    def scaled(values: np.ndarray) -> np.ndarray:
        grey = (np.clip(values, bottom, top) - least) / (greatest - least) * 255.0
        grey[values == 0] = 0
        return grey.astype(np.uint8)

    if countable:  # each grey value is scaled once
        return scaled(np.arange(start, int(highest) + 1)).take(places[chosen])
    return scaled(voxels[chosen])


def _percentile(counts: np.ndarray, start: int, share: float) -> np.float64:
    """``np.percentile``, to the bit, of whole numbers that are counted: ``counts[i]`` times ``start + i``."""
    reached = np.cumsum(counts)
    at = (reached[-1] - 1) * (share / 100)
    before, after = np.searchsorted(reached, [np.floor(at), np.floor(at) + 1], side="right")
    between = at - np.floor(at)
    step = np.float64(after - before)
    # both ends are exact, whichever is nearer
    return start + before + step * between if between < 0.5 else start + after - step * (1 - between)


def without_small_parts(labels: np.ndarray, voxels: int = 1000, pixels: int = 100) -> np.ndarray:
    """A label volume (n, H, W) without its small components, each label on its own.

    First 3-D components of fewer than ``voxels`` voxels (26-connected) go, then in each slice 2-D components of fewer
    than ``pixels`` pixels (8-connected).
    """
    touched = labels != 0
    sides = [
        np.flatnonzero(touched.any(tuple(other for other in range(3) if other != axis))) for axis in range(3)
    ]
    kept = np.zeros_like(labels)
    if len(sides[0]):
        box = tuple(slice(side[0], side[-1] + 1) for side in sides)  # all else is background
        part = _without_parts_below(np.ascontiguousarray(labels[box]), voxels, 26)
        kept[box] = [_without_parts_below(plane, pixels, 8) for plane in part]
    return kept


def _without_parts_below(labels: np.ndarray, least: int, connectivity: Literal[8, 26]) -> np.ndarray:
    """``labels`` (n, H, W) or (H, W) without components of fewer than ``least``, each label on its own."""
    parts = cc3d.connected_components(labels, connectivity=connectivity)
    small = np.bincount(parts.ravel()) < least
    small[0] = False  # the background
    return np.where(small.take(parts), 0, labels) if small.any() else labels


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """(H, W) zero-padded to a square; left and top get the smaller half."""
    side = max(image.shape)
    height, width = image.shape
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side), image.dtype)
    padded[top : top + height, left : left + width] = image
    return padded


def square_frame(image: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """(H, W) uint8 zero-padded to a square and resized (bilinear) to (size, size)."""
    return cv2.resize(pad_to_square(image), (size, size), interpolation=cv2.INTER_LINEAR)


Box = tuple[slice, slice]  # rows and columns of a part of a picture


def lesion_box(mask: np.ndarray, threshold: int = 128, speck: int = 150) -> Box:
    """The bounding box of a lesion.

    Args:
        mask: (H, W) uint8 as stored.
        threshold: values above it are lesion (in masks of 0 and 255 alone that changes nothing).
        speck: components other than the largest do not count if they have at most this many pixels (8-connected).

    Raises:
        ValueError: the mask is empty.
    """
    lesion = cv2.threshold(mask, threshold, 255, cv2.THRESH_BINARY)[1]
    left, top, width, height = cv2.boundingRect(lesion)
    if not width:
        raise ValueError("the mask is empty")
    part = lesion[top : top + height, left : left + width]
    stats = cv2.connectedComponentsWithStats(part, connectivity=8)[2][1:]  # without the background
    sizes = stats[:, cv2.CC_STAT_AREA]
    kept = stats[(sizes > speck) | (np.arange(len(sizes)) == np.argmax(sizes))]
    first = kept[:, [cv2.CC_STAT_TOP, cv2.CC_STAT_LEFT]].min(0)
    end = (
        kept[:, [cv2.CC_STAT_TOP, cv2.CC_STAT_LEFT]] + kept[:, [cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH]]
    ).max(0)
    return slice(int(top + first[0]), int(top + end[0])), slice(int(left + first[1]), int(left + end[1]))


def with_margin(box: Box, shape: tuple[int, ...], margin: int = 5) -> Box:
    """``box`` and ``margin`` pixels around it, within a picture of ``shape``.

    The published crop ends one pixel earlier at the bottom and on the right than at the top and on the left: its last
    row and column are counted as the end (method, section 2).
    """
    return tuple(  # type: ignore[return-value]
        slice(max(side.start - margin, 0), min(max(side.stop - 1 + margin, side.start + 1), size))
        for side, size in zip(box, shape, strict=True)
    )
