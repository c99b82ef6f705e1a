"""What to compare a figure with: halves of the real set, and intervals by resampling patients.

Clips of one patient are no independent evidence, so patients are what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles
FEWEST_PATIENTS = 4  # real patients below which there are no halves worth the name

Measure = Callable[[np.ndarray, np.ndarray], dict[str, float]]  # (reference, judged) -> figures


@dataclass(frozen=True)
class Spread:
    """A figure over draws of ``size`` against ``size`` samples.

    Attributes:
        mean: over the draws.
        deviation: over the draws. Half of a set, drawn without replacement, varies about as much as a bootstrap of
            the whole set does, and holds no sample twice, which would make a distance larger.
        size: samples on each side.
        draws: how many.
        interval: the middle 95 % of the draws.
    """

    mean: float
    deviation: float
    size: int
    draws: int
    interval: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float], size: int) -> Spread | None:
        """The spread of ``values``; None if there are none."""
        if not values:
            return None
        low, high = np.percentile(values, INTERVAL)
        return cls(
            float(np.mean(values)), float(np.std(values)), size, len(values), (float(low), float(high))
        )


@dataclass(frozen=True)
class Comparison:
    """A figure of two sets, and what to hold it against.

    Attributes:
        value: all real against all synthetic samples.
        real: number of real samples.
        synthetic: number of synthetic samples.
        matched: halves of the real patients against equally many synthetic samples.
        floor: the same halves of the real patients against the other halves: what synthetic clips as good as real ones
            would score. A distance of finite sets is never 0. None with fewer than four real patients.
    """

    value: float
    real: int
    synthetic: int
    matched: Spread | None
    floor: Spread | None


def _half(class_of: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of half of the patients of every class; odd ones out fall to either side in turn."""
    chosen: list[int] = []
    seen = 0
    for cls in np.unique(class_of):
        members = rng.permutation(np.flatnonzero(class_of == cls))
        seen += len(members)
        chosen += members[: seen // 2 - len(chosen)].tolist()
    return np.array(chosen, int)


def halves(
    patients: Sequence[str], strata: Sequence[int] | None, synthetic: int, draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Positions of (one half of the real samples, the other half, as many synthetic samples), ``draws`` times.

    Args:
        patients: whose sample each real one is; halves are halves of the patients.
        strata: class of each real sample, so that both halves have the same mixture; None: one class.
        synthetic: how many synthetic samples there are.
        draws: how often.
        seed: of the draws.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    class_of = np.zeros(len(names), int)
    class_of[owner] = 0 if strata is None else np.asarray(strata)
    rng = np.random.default_rng(seed)
    for _ in range(draws if len(names) >= FEWEST_PATIENTS else 0):
        first = np.isin(owner, _half(class_of, rng))
        size = min(int(first.sum()), int((~first).sum()), synthetic)
        if size < 2:
            continue
        half, rest = (rng.choice(np.flatnonzero(part), size, replace=False) for part in (first, ~first))
        yield half, rest, rng.choice(synthetic, size, replace=False)


def against_halves(
    measure: Measure,
    real: np.ndarray,
    patients: Sequence[str],
    synthetic: np.ndarray,
    draws: int,
    seed: int,
    strata: Sequence[int] | None = None,
) -> dict[str, Comparison] | None:
    """Every figure of ``measure`` with its spread and its floor; None with fewer than two samples on a side.

    Args:
        measure: (reference (N, D), judged (M, D)) -> figures by name.
        real: (N, D), the reference.
        patients: see `halves`.
        synthetic: (M, D).
        draws: of halves.
        seed: of the draws.
        strata: see `halves`.
    """
    if min(len(real), len(synthetic)) < 2:
        return None
    whole = measure(real, synthetic)
    matched: dict[str, list[float]] = {name: [] for name in whole}
    floor: dict[str, list[float]] = {name: [] for name in whole}
    sizes = []
    for half, rest, chosen in halves(patients, strata, len(synthetic), draws, seed):
        sizes.append(len(half))
        for found, judged in ((matched, synthetic[chosen]), (floor, real[rest])):
            for name, value in measure(real[half], judged).items():
                found[name].append(value)
    size = min(sizes, default=0)
    return {
        name: Comparison(
            value, len(real), len(synthetic), Spread.of(matched[name], size), Spread.of(floor[name], size)
        )
        for name, value in whole.items()
    }


def mean_interval(
    values: np.ndarray, patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % interval of the mean of ``values`` by bootstrap over patients; None with fewer than two patients."""
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.bincount(owner, np.asarray(values, float))
    sizes = np.bincount(owner)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    low, high = np.percentile((times @ sums) / (times @ sizes), INTERVAL)
    return float(low), float(high)
