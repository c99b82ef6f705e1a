"""The arithmetic on voxels and pixels that the method's readers share (method, section 2). Pure functions on arrays."""

from __future__ import annotations

import cc3d
import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE


def hu_window(voxels: np.ndarray, low: float = -1000, high: float = 400) -> np.ndarray:
    """Hounsfield units clipped to [low, high] and scaled to [0, 1], float32."""
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


def percentile_window(voxels: np.ndarray, low: float = 0.5, high: float = 99.5) -> np.ndarray:
    """MR intensities to uint8: clipped to two percentiles of the voxels above 0, min..max to 0..255, 0 stays 0.

    Raises:
        ValueError: no voxel is above 0, or all are equal after clipping.
    """
    positive = voxels[voxels > 0]
    if not positive.size:
        raise ValueError("no voxel is above 0")
    clipped = np.clip(voxels, np.percentile(positive, low), np.percentile(positive, high))
    least, most = clipped.min(), clipped.max()
    if least == most:
        raise ValueError("all voxels are equal")
    scaled = (clipped - least) / (most - least) * 255.0
    scaled[voxels == 0] = 0
    return scaled.astype(np.uint8)


def without_small_parts(labels: np.ndarray, voxels: int = 1000, pixels: int = 100) -> np.ndarray:
    """A label volume (n, H, W) without its small components, each label on its own.

    First 3-D components of fewer than ``voxels`` voxels (26-connected) go, then in each slice 2-D components of fewer
    than ``pixels`` pixels (8-connected).
    """
    kept = cc3d.dust(labels, threshold=voxels, connectivity=26)
    return np.stack([cc3d.dust(plane, threshold=pixels, connectivity=8) for plane in kept])


def pad_to_square(image: np.ndarray) -> np.ndarray:
    """(H, W) zero-padded to a square; left and top get the smaller half."""
    side = max(image.shape)
    rows, columns = side - image.shape[0], side - image.shape[1]
    return np.pad(image, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))


def square_frame(image: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """(H, W) uint8 zero-padded to a square and resized (bilinear) to (size, size)."""
    return cv2.resize(pad_to_square(image), (size, size), interpolation=cv2.INTER_LINEAR)


def clean_lesion_mask(mask: np.ndarray, threshold: int = 128, speck: int = 150) -> np.ndarray:
    """A lesion mask (H, W) uint8 as bool: thresholded where it is not in {0, 255}, small further components erased.

    Args:
        mask: as stored.
        threshold: smallest value that counts as lesion.
        speck: components other than the largest go if they have at most this many pixels (8-connected).
    """
    lesion = mask >= threshold  # for masks in {0, 255} this changes nothing
    parts = cc3d.connected_components(lesion, connectivity=8)
    sizes = np.bincount(parts.ravel())[1:]
    for part in np.argsort(-sizes, kind="stable")[1:]:
        if sizes[part] <= speck:
            lesion[parts == part + 1] = False
    return lesion


def crop_to_lesion(image: np.ndarray, lesion: np.ndarray, margin: int = 5) -> np.ndarray:
    """``image`` (H, W) within the bounding box of ``lesion`` plus ``margin`` pixels on each side, clipped to the image.

    Raises:
        ValueError: the lesion is empty.
    """
    rows, columns = np.flatnonzero(lesion.any(1)), np.flatnonzero(lesion.any(0))
    if not len(rows):
        raise ValueError("the mask is empty")
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    return image[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]
