"""Smooth shapes and fields on a small grid: what all phantoms are drawn with.

A grid is a triple of coordinate arrays that broadcast to (n, H, W): slice or time ``z`` in [0, 1], row ``y`` and column
``x`` in [-1, 1]. Shapes are soft masks in [0, 1]; a parameter may be a number or an (n, 1, 1) array that moves with z.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

Numbers = float | np.ndarray


class Grid(NamedTuple):
    """Coordinates that broadcast to (n, H, W): ``z`` (n, 1, 1), ``y`` (1, H, 1), ``x`` (1, 1, W)."""

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, H, W)."""
        return self.z.shape[0], self.y.shape[1], self.x.shape[2]


def grid(slices: int, height: int, width: int) -> Grid:
    """A grid of ``slices`` x ``height`` x ``width`` points, float32."""
    return Grid(
        np.linspace(0, 1, slices, dtype=np.float32).reshape(-1, 1, 1),
        np.linspace(-1, 1, height, dtype=np.float32).reshape(1, -1, 1),
        np.linspace(-1, 1, width, dtype=np.float32).reshape(1, 1, -1),
    )


def generator(seed: int, case: str) -> np.random.Generator:
    """The random stream of one patient: the same whatever patients are made before it or beside it."""
    return np.random.default_rng([seed, zlib.crc32(case.encode())])


def ellipse(
    g: Grid, cy: Numbers, cx: Numbers, ry: Numbers, rx: Numbers, *, power: float = 2, soft: float = 0.04
) -> np.ndarray:
    """A filled (super-)ellipse, 1 inside, 0 outside, its edge ``soft`` wide in grid units."""
    ry, rx = np.maximum(ry, 1e-4), np.maximum(rx, 1e-4)  # an ellipse may shrink to nothing
    radius = (np.abs((g.y - cy) / ry) ** power + np.abs((g.x - cx) / rx) ** power) ** (1 / power)
    return np.clip(0.5 - (radius - 1) * np.minimum(ry, rx) / soft, 0, 1).astype(np.float32)


def ring(
    g: Grid, cy: Numbers, cx: Numbers, ry: Numbers, rx: Numbers, thickness: Numbers, *, soft: float = 0.04
) -> np.ndarray:
    """What lies between an ellipse and the one ``thickness`` smaller all round."""
    outer = ellipse(g, cy, cx, ry, rx, soft=soft)
    return outer - ellipse(g, cy, cx, ry - thickness, rx - thickness, soft=soft)


def blob(
    g: Grid,
    centre: tuple[float, Numbers, Numbers],
    radii: tuple[float, Numbers, Numbers],
    drift: Sequence[float] | np.ndarray = (0.0, 0.0),
) -> np.ndarray:
    """A Gaussian blob, 1 at its (z, y, x) centre; in y and x the centre drifts by ``drift`` per unit of z."""
    cz, cy, cx = centre
    rz, ry, rx = radii
    along = np.exp(-(((g.z - cz) / rz) ** 2) / 2)
    rows = np.exp(-(((g.y - cy - drift[0] * (g.z - cz)) / ry) ** 2) / 2)
    columns = np.exp(-(((g.x - cx - drift[1] * (g.z - cz)) / rx) ** 2) / 2)
    return (along * rows * columns).astype(np.float32)


def add_spot(volume: np.ndarray, g: Grid, y: np.ndarray, x: np.ndarray, r: np.ndarray, height: float) -> None:
    """Raises ``volume`` (n, H, W), in place, to at most ``height`` on a round spot that each slice has at its y, x, r.

    Thin structures (vessels, bronchi) are drawn so; only the window around each spot is touched.
    """
    _, rows, columns = g.shape
    for i in range(len(volume)):
        reach = 3 * r[i]
        top, bottom = ((np.array([y[i] - reach, y[i] + reach]) + 1) / 2 * (rows - 1)).astype(int) + (0, 2)
        left, right = ((np.array([x[i] - reach, x[i] + reach]) + 1) / 2 * (columns - 1)).astype(int) + (0, 2)
        top, left = max(top, 0), max(left, 0)
        if top >= min(bottom, rows) or left >= min(right, columns):
            continue
        spot = height * np.outer(
            np.exp(-(((g.y[0, top:bottom, 0] - y[i]) / r[i]) ** 2) / 2),
            np.exp(-(((g.x[0, 0, left:right] - x[i]) / r[i]) ** 2) / 2),
        )
        window = volume[i, top:bottom, left:right]
        np.maximum(window, spot, out=window)


def noise(rng: np.random.Generator, shape: tuple[int, int, int], cells: tuple[int, int, int]) -> np.ndarray:
    """A smooth random field (n, H, W) of about unit variance, with ``cells`` independent values along each axis."""
    coarse = rng.standard_normal(cells).astype(np.float32)
    planes = np.stack([cv2.resize(plane, shape[:0:-1], interpolation=cv2.INTER_CUBIC) for plane in coarse])
    return (
        ndimage.zoom(planes, (shape[0] / cells[0], 1, 1), order=1, grid_mode=True, mode="nearest")
        if shape[0] != cells[0]
        else planes
    )


def paint(volume: np.ndarray, mask: np.ndarray, value: Numbers) -> None:
    """Blends ``volume`` towards ``value`` where ``mask`` says so, in place."""
    volume += mask * (value - volume)


def union(masks: list[np.ndarray]) -> np.ndarray:
    """The soft union of masks."""
    rest = np.ones_like(masks[0])
    for mask in masks:
        rest *= 1 - mask
    return 1 - rest


def enlarge(volume: np.ndarray, height: int, width: int) -> np.ndarray:
    """(n, H, W) resized in plane, bilinear; an even smoothness is all that phantoms need."""
    return np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in volume])
