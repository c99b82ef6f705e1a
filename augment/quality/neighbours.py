"""Precision, recall, density and coverage: how much of one set lies within the other's neighbourhoods.

Kynkaanniemi et al., NeurIPS 2019 (precision, recall), and Naeem et al., ICML 2020 (density, coverage).
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5  # k of the papers' experiments


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Euclidean distances, (N, D) and (M, D) -> (N, M)."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    squares = (one * one).sum(1)[:, None] + (other * other).sum(1) - 2 * one @ other.T
    return np.sqrt(np.maximum(squares, 0))


def _radii(samples: np.ndarray, neighbours: int) -> np.ndarray:
    """(N,) distance of each sample to its k-th nearest other one; its own distance of 0 takes the first rank."""
    return np.partition(distances(samples, samples), neighbours, axis=1)[:, neighbours]


def prdc(real: np.ndarray, synthetic: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """The four figures of two sets of features.

    Args:
        real: (N, D), N >= 2.
        synthetic: (M, D), M >= 2.
        neighbours: k; at most the smaller set's size less one is used.

    Returns:
        ``precision``: part of the synthetic samples inside a real sample's k-neighbourhood. ``recall``: part of the
        real ones inside a synthetic one's. ``density``: real neighbourhoods that hold a synthetic sample, divided by k
        (may exceed 1). ``coverage``: part of the real neighbourhoods that hold any synthetic sample.
    """
    k = min(neighbours, len(real) - 1, len(synthetic) - 1)
    between = distances(real, synthetic)  # (N, M)
    real_radii = _radii(real, k)
    inside = between < real_radii[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between < _radii(synthetic, k)).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float((between.min(1) < real_radii).mean()),
    }
