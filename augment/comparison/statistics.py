"""The arithmetic of a comparison: figures of arms, paired gains, two-level bootstrap, what a gain is worth. Pure.

Shapes: S seeds (trainings), P test patients, C classes, R resamples. Everything is a part of one, nothing a percentage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from augment.classifiers.metrics import INTERVAL, resampled_patients, summarise, weighted_auc

RESAMPLES = 2000
CALIBRATION_BINS = 10
PRIMARY = "balanced_accuracy"  # what verdicts are about

Verdict = Literal["helps", "hurts", "cannot be told apart"]


@dataclass(frozen=True)
class Predictions:
    """What one arm's trainings say of the test patients.

    Attributes:
        seeds: of the trainings.
        patients: names of the test patients.
        labels: (P,) their class ids.
        probabilities: (S, P, C).
    """

    seeds: tuple[int, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    def of_seeds(self, seeds: Sequence[int]) -> Predictions:
        """The trainings with ``seeds`` alone, in that order."""
        chosen = [self.seeds.index(seed) for seed in seeds]
        return Predictions(tuple(seeds), self.patients, self.labels, self.probabilities[chosen])


@dataclass(frozen=True)
class Resampling:
    """How often each patient and each training counts: (R + 1, P) and (R + 1, S); row 0 is what was measured."""

    patients: np.ndarray
    seeds: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def resample(labels: np.ndarray, num_seeds: int, resamples: int = RESAMPLES, seed: int = 0) -> Resampling:
    """Test patients drawn with replacement within their class, trainings with replacement, independently.

    The draws depend on ``labels``, ``num_seeds`` and ``seed`` alone, so that two arms are resampled alike: paired.
    """
    names = [str(index) for index in range(len(labels))]
    patients = resampled_patients(labels, names, resamples, seed)
    rng = np.random.default_rng((seed, num_seeds))
    trainings = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=resamples)
    return Resampling(
        np.concatenate([np.ones((1, len(labels))), patients]),
        np.concatenate([np.ones((1, num_seeds)), trainings]),
    )


def calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, bins: int = CALIBRATION_BINS
) -> np.ndarray:
    """Expected calibration error (Guo et al. 2017): mean distance of confidence and accuracy over equal bins.

    Args:
        probabilities: (P, C).
        labels: (P,).
        weights: (R, P), how often each patient counts.
        bins: of the largest probability, of equal width on [0, 1].

    Returns:
        (R,) in [0, 1].
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    members = np.eye(bins)[index]  # (P, bins)
    gaps = np.abs((weights * (confidence - right)) @ members)  # |sum of confidence - sum of hits| in each bin
    return gaps.sum(1) / weights.sum(1)


def figures(arm: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Figures by patient weighting and training: arrays (R, S).

    Keys: ``accuracy``, ``balanced_accuracy``, ``auc`` (one against the rest, mean over classes), ``ece``, and for
    each class id c ``sensitivity/c`` and ``auc/c``. NaN where a class has no patient.
    """
    number = arm.probabilities.shape[2]
    by_seed: list[dict[str, np.ndarray]] = []
    for probabilities in arm.probabilities:
        cells = np.eye(number * number)[arm.labels * number + probabilities.argmax(1)]  # (P, C * C)
        summary = summarise((weights @ cells).reshape(-1, number, number))
        areas = [weighted_auc(probabilities[:, c], arm.labels == c, weights) for c in range(number)]
        known = [area for area in areas if np.isfinite(area).all()]
        found = {key: summary[key] for key in ("accuracy", "balanced_accuracy")}
        found["auc"] = np.mean(known, 0) if known else np.full(len(weights), np.nan)
        found["ece"] = calibration_error(probabilities, arm.labels, weights)
        for c in range(number):
            found[f"sensitivity/{c}"] = summary["sensitivity"][:, c]
            found[f"auc/{c}"] = areas[c]
        by_seed.append(found)
    return {key: np.stack([found[key] for found in by_seed], 1) for key in by_seed[0]}


def estimate(values: np.ndarray, trainings: np.ndarray) -> Estimate:
    """The mean over trainings with its interval: ``values`` (R + 1, S), ``trainings`` as in `Resampling`."""
    means = (values * trainings).sum(1) / trainings.sum(1)
    resampled = means[1:][np.isfinite(means[1:])]
    low, high = np.percentile(resampled, INTERVAL) if len(resampled) else (np.nan, np.nan)
    return Estimate(float(means[0]), float(low), float(high))


def levels_and_gains(
    arm: Predictions, baseline: Predictions | None, resamples: int = RESAMPLES
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """An arm's figures, and their gains over the baseline: same seeds, same test patients, resampled together.

    Without a baseline, or where it shares no seed, gains are empty. Patients must be the same, in the same order.
    """
    drawn = resample(arm.labels, len(arm.seeds), resamples)
    levels = {key: estimate(values, drawn.seeds) for key, values in figures(arm, drawn.patients).items()}
    common = [] if baseline is None else [seed for seed in arm.seeds if seed in baseline.seeds]
    if baseline is None or not common:
        return levels, {}
    drawn = resample(arm.labels, len(common), resamples)
    ours = figures(arm.of_seeds(common), drawn.patients)
    theirs = figures(baseline.of_seeds(common), drawn.patients)
    return levels, {key: estimate(ours[key] - theirs[key], drawn.seeds) for key in ours}


def verdict(gain: Estimate) -> Verdict:
    """In plain words: whether the interval of a gain lies above 0, below 0, or on both sides."""
    if gain.low > 0:
        return "helps"
    return "hurts" if gain.high < 0 else "cannot be told apart"


def worth_in_patients(
    value: float, patients: Sequence[int], values: Sequence[float]
) -> tuple[float, Literal["", "<", ">"]]:
    """The number of real patients whose clips alone would give ``value``.

    Args:
        value: an arm's figure.
        patients: real patients of the rare class in the arms of real clips alone, ascending, such as 6, 12, 24.
        values: their figures. They are made ascending by running maxima (more clips do no harm), and between two
            arms the figure is taken as linear in the logarithm of the number.

    Returns:
        the number, and ``<`` or ``>`` where the value lies outside the arms: fewer than, more than.
    """
    rising = np.maximum.accumulate(np.asarray(values, float))
    if value < rising[0]:
        return float(patients[0]), "<"
    if value > rising[-1]:
        return float(patients[-1]), ">"
    upper = int(np.searchsorted(rising, value))  # the first arm that reaches the value
    if upper == 0 or rising[upper] == rising[upper - 1]:
        return float(patients[upper]), ""
    part = (value - rising[upper - 1]) / (rising[upper] - rising[upper - 1])
    logs = np.log(np.asarray(patients, float))
    return float(np.exp(logs[upper - 1] + part * (logs[upper] - logs[upper - 1]))), ""
