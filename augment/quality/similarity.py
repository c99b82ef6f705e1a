"""How alike clips are: diversity of a set, and whether synthetic clips repeat training clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

THUMBNAIL = 32  # pixels; the scale of the latents
CHUNK = 256  # clips compared at once
SAME = 1e-3  # of the usual distance between patients: below it two clips are one and the same
MACROBLOCK = 16  # pixels; the unit of the encoder's motion search


def thumbnail(frames: np.ndarray) -> np.ndarray:
    """(F, H, W) uint8 -> (F, 32, 32) float32 by area averaging: what pixel distances are measured on."""
    size = (THUMBNAIL, THUMBNAIL)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]).astype(
        np.float32
    )


def pixel_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Root mean square difference of thumbnails in grey values: (N, ...), (M, ...) -> (N, M)."""
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (one, other))
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0) / a.shape[1])


def cosine_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - mean over frames of the cosine of their vectors: (N, F, ...), (M, F, ...) -> (N, M)."""

    def directions(part: np.ndarray) -> np.ndarray:
        flat = part.reshape(len(part), part.shape[1], -1).astype(np.float32)
        flat = flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-8)
        return flat.reshape(len(part), -1) / np.sqrt(np.float32(part.shape[1]))

    b = directions(other)
    rows = [directions(one[start : start + CHUNK]) @ b.T for start in range(0, len(one), CHUNK)]
    return 1 - np.concatenate(rows) if rows else np.zeros((0, len(other)))


def motion_cells(field: np.ndarray) -> np.ndarray:
    """A motion field by macroblock, so that fields of different block partitions can be compared.

    Args:
        field: (F-1, 2, H, W) float32 in pixels: one vector a block at its middle, zero elsewhere.

    Returns:
        (F-1, 2, H/16, W/16): the mean of the vectors other than zero in each macroblock, zero where there is none.
    """
    steps, _, height, width = field.shape
    rows, columns = height // MACROBLOCK, width // MACROBLOCK
    field = field[:, :, : rows * MACROBLOCK, : columns * MACROBLOCK]
    blocks = field.reshape(steps, 2, rows, MACROBLOCK, columns, MACROBLOCK)
    moving = (blocks != 0).any(1, keepdims=True)
    return (blocks.sum((3, 5)) / np.maximum(moving.sum((3, 5)), 1)).astype(np.float32)


def flow_cells(frames: np.ndarray) -> np.ndarray:
    """The movement that is seen in a clip: OpenCV's DIS optical flow from each frame to the one before, turned round.

    Args:
        frames: (F, H, W) uint8.

    Returns:
        (F-1, 2, H/16, W/16) float32: pixels moved since the frame before, as `motion_cells` gives a field's, the mean
        over each macroblock.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = frames.shape[1] // MACROBLOCK, frames.shape[2] // MACROBLOCK
    found = [
        -estimator.calc(now, before, None)[: rows * MACROBLOCK, : columns * MACROBLOCK]  # (H, W, 2), x first
        for before, now in zip(frames[:-1], frames[1:], strict=True)
    ]
    if not found:
        return np.zeros((0, 2, rows, columns), np.float32)
    blocks = np.stack(found).reshape(len(found), rows, MACROBLOCK, columns, MACROBLOCK, 2)
    return blocks.mean((2, 4)).transpose(0, 3, 1, 2)


def end_point_errors(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean length of the difference of motion vectors in pixels: (F-1, 2, h, w), (K, F-1, 2, h, w) -> (K,)."""
    return np.linalg.norm(others - one, axis=2).mean((1, 2, 3))


def mean_pairwise(distances: np.ndarray) -> float | None:
    """Mean over pairs of different clips of one set; None for fewer than two.

    Args:
        distances: (N, N), symmetric.
    """
    number = len(distances)
    if number < 2:
        return None
    return float((distances.sum() - np.trace(distances)) / (number * (number - 1)))


@dataclass(frozen=True)
class Nearest:
    """The nearest training clip of every synthetic one.

    Attributes:
        index: (N,) position of the nearest real clip.
        distance: (N,) to it.
        reference: (at most M,) distance of every real clip to the nearest other clip of another patient.
        threshold: a distance below it is called a copy: the given quantile of ``reference``.
        flagged: (N,) bool.
        twins: real clips that are there again under another patient's name, which tell nothing about distances between
            patients.
    """

    index: np.ndarray
    distance: np.ndarray
    reference: np.ndarray
    threshold: float
    flagged: np.ndarray
    twins: int = 0


def twins(pixels: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    """(M, M) bool: real clips that are one and the same under two patients' names.

    Enough of them would make the distance between patients 0, below which no copy of a training clip lies.

    Args:
        pixels: (M, M) `pixel_distances` among them. Latents, which are drawn, differ even of one and the same clip.
        patients: (M,) whose each clip is.
    """
    names = np.asarray(patients)
    other = names[:, None] != names[None, :]
    return other & (pixels <= SAME * np.median(pixels[other])) if other.any() else other


def nearest_real(
    to_real: np.ndarray,
    among_real: np.ndarray,
    patients: Sequence[str],
    quantile: float = 0.01,
    twins: np.ndarray | None = None,
) -> Nearest | None:
    """Finds synthetic clips that lie nearer to a training clip than clips of different patients lie to each other.

    Args:
        to_real: (N, M) distances of synthetic to real clips.
        among_real: (M, M) distances among the real clips.
        patients: (M,) whose each real clip is.
        quantile: of the reference distances, below which a synthetic clip is flagged.
        twins: (M, M) `twins`, which are left out of the reference.

    Returns:
        None where there are no synthetic clips, or fewer than two patients to take the reference from.
    """
    names = np.asarray(patients)
    other = names[:, None] != names[None, :]
    if not len(to_real) or not other.any():
        return None
    twins = np.zeros_like(other) if twins is None else twins
    reference = np.where(other & ~twins, among_real, np.inf).min(1)
    reference = reference[np.isfinite(reference)]
    if not len(reference):
        return None
    threshold = float(np.quantile(reference, quantile))
    index = to_real.argmin(1)
    distance = to_real[np.arange(len(to_real)), index]
    return Nearest(index, distance, reference, threshold, distance < threshold, int(twins.any(1).sum()))
