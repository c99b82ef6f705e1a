"""Frechet distance between two sets of features, and what to hold it against: its spread, real against real."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augment.quality.resampling import Comparison, against_halves


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets.

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)). With S1 = A'A and S2 = B'B, the last trace is the sum of the
    singular values of A B'; A and B may be reduced to triangles first. This needs no matrix root, is exact for fewer
    samples than features, and is 0 for a set with itself.

    Args:
        one: (N, D), N >= 2.
        other: (M, D), M >= 2.

    Raises:
        ValueError: fewer than two samples, or different D.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if min(len(one), len(other)) < 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"two sets of at least two vectors are needed, got {one.shape} and {other.shape}")
    shift = one.mean(0) - other.mean(0)
    a, b = (_triangle(one), _triangle(other))
    cross = float(np.linalg.norm(a @ b.T, "nuc"))  # the sum of the singular values
    value = shift @ shift + (a * a).sum() + (b * b).sum() - 2 * cross
    return float(max(value, 0.0))


def _triangle(samples: np.ndarray) -> np.ndarray:
    """R of the QR decomposition of the centred samples, scaled so that R'R is their covariance: (min(N, D), D)."""
    centred = (samples - samples.mean(0)) / np.sqrt(len(samples) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"))


def compare(
    real: np.ndarray,
    patients: Sequence[str],
    synthetic: np.ndarray,
    draws: int = 10,
    seed: int = 3407,
    strata: Sequence[int] | None = None,
) -> Comparison | None:
    """The Frechet distance of two sets, with its spread and its floor; see `resampling.against_halves`."""

    def measure(reference: np.ndarray, judged: np.ndarray) -> dict[str, float]:
        return {"distance": frechet_distance(reference, judged)}

    found = against_halves(measure, real, patients, synthetic, draws, seed, strata)
    return None if found is None else found["distance"]
