"""Frechet distance between two sets of features, and what to hold it against: its spread, real against real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
    a, b = (np.linalg.qr((part - part.mean(0)) / np.sqrt(len(part) - 1), mode="r") for part in (one, other))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    value = shift @ shift + (a * a).sum() + (b * b).sum() - 2 * cross
    return float(max(value, 0.0))


@dataclass(frozen=True)
class Spread:
    """Mean and deviation over draws of ``size`` against ``size`` samples."""

    mean: float
    deviation: float
    size: int
    draws: int


@dataclass(frozen=True)
class Comparison:
    """A Frechet distance and what to hold it against.

    Attributes:
        value: all real against all synthetic samples.
        real: number of real samples.
        synthetic: number of synthetic samples.
        matched: halves of the real patients against equally many synthetic samples.
        floor: the same halves of the real patients against the other halves. A distance of finite sets is never 0:
            synthetic clips as good as real ones would score this. None with fewer than four real patients.
    """

    value: float
    real: int
    synthetic: int
    matched: Spread | None
    floor: Spread | None


def _half(class_of: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Positions of half of the patients of every class; odd ones out fall to either side in turn."""
    chosen: list[int] = []
    seen = 0
    for cls in np.unique(class_of):
        members = draw.permutation(np.flatnonzero(class_of == cls))
        seen += len(members)
        chosen += members[: seen // 2 - len(chosen)].tolist()
    return np.array(chosen, int)


def compare(
    real: np.ndarray,
    patients: Sequence[str],
    synthetic: np.ndarray,
    draws: int = 10,
    seed: int = 3407,
    strata: Sequence[int] | None = None,
) -> Comparison | None:
    """Compares two sets of features.

    Args:
        real: (N, D).
        patients: whose sample each of ``real`` is; halves are halves of the patients.
        synthetic: (M, D).
        draws: of halves.
        seed: of the draws.
        strata: (N,) the class of each of ``real``, so that both halves have the same mixture of classes.

    Returns:
        None with fewer than two samples on a side.
    """
    if min(len(real), len(synthetic)) < 2:
        return None
    value = frechet_distance(real, synthetic)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    class_of = np.zeros(len(names), int)
    class_of[owner] = 0 if strata is None else np.asarray(strata)
    matched, floor, sizes = [], [], []
    draw = np.random.default_rng(seed)
    for _ in range(draws if len(names) >= 4 else 0):
        first = np.isin(owner, _half(class_of, draw))
        size = min(int(first.sum()), int((~first).sum()), len(synthetic))
        if size < 2:
            continue
        half, rest = (draw.choice(np.flatnonzero(part), size, replace=False) for part in (first, ~first))
        chosen = draw.choice(len(synthetic), size, replace=False)
        matched.append(frechet_distance(real[half], synthetic[chosen]))
        floor.append(frechet_distance(real[half], real[rest]))
        sizes.append(size)

    def spread(values: list[float]) -> Spread | None:
        if not values:
            return None
        return Spread(float(np.mean(values)), float(np.std(values)), min(sizes), len(values))

    return Comparison(value, len(real), len(synthetic), spread(matched), spread(floor))
