"""How good a classifier is: figures by clip and by patient, with bootstrap intervals over patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles


def summarise(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of confusion matrices.

    Args:
        confusion: (..., C, C), rows the true class, columns the predicted one; counts or weights.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``macro_f1`` of shape (...), and ``sensitivity``, ``specificity``,
        ``precision``, ``f1`` of shape (..., C). Classes without a clip have no sensitivity (NaN) and are left out of
        the means; a class never predicted has precision 0.
    """
    confusion = np.asarray(confusion, np.float64)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(-1), confusion.sum(-2)
    total = true.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = hits / true
        specificity = (total - true - predicted + hits) / (total - true)
        precision = np.where(predicted > 0, hits / predicted, 0.0)
        f1 = 2 * hits / (true + predicted)
        f1 = np.where(true > 0, f1, np.nan)
        return {
            "accuracy": hits.sum(-1) / total[..., 0],
            "balanced_accuracy": np.nanmean(sensitivity, -1),
            "macro_f1": np.nanmean(f1, -1),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": precision,
            "f1": f1,
        }


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for several weightings at once: the probability that a positive outscores a negative.

    Args:
        scores: (N,).
        positive: (N,) bool.
        weights: (R, N), how often each sample counts.

    Returns:
        (R,); NaN where a weighting leaves no positive or no negative.
    """
    order = np.argsort(scores, kind="stable")
    ranked, positive, weights = scores[order], positive[order], weights[:, order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # ties count half
    above = np.add.reduceat(weights * positive, starts, axis=1)
    below = np.add.reduceat(weights * ~positive, starts, axis=1)
    wins = (above * (np.cumsum(below, 1) - below / 2)).sum(1)
    pairs = above.sum(1) * below.sum(1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of one level, as plain values for JSON.

    Args:
        labels: (N,) class ids.
        probabilities: (N, C).
        classes: names in the order of the ids.
        patients: whose clip each is; the bootstrap draws patients with replacement within each class, because clips
            of one patient are no independent evidence.
        resamples: bootstrap resamples; 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        ``count``, ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``auc`` (one against the rest, mean over
        classes), ``per_class``, ``confusion``, and ``intervals`` (95 %) of the four; NaN becomes None.
    """
    labels, number = np.asarray(labels), len(classes)
    cells = np.eye(number * number)[labels * number + probabilities.argmax(1)]  # (N, C * C)
    weights = np.concatenate(
        [np.ones((1, len(labels))), resampled_patients(labels, patients, resamples, seed)]
    )
    summary = summarise((weights @ cells).reshape(-1, number, number))
    areas = np.stack([weighted_auc(probabilities[:, c], labels == c, weights) for c in range(number)], 1)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(areas)
        summary["auc"] = np.where(
            known.any(1), np.where(known, areas, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan
        )
    overall = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
    per_class = ("sensitivity", "specificity", "precision", "f1")
    result: dict[str, Any] = {"count": len(labels), **{key: _plain(summary[key][0]) for key in overall}}
    if resamples:
        result["intervals"] = {
            key: [_plain(value) for value in _percentiles(summary[key][1:])] for key in overall
        }
    result["per_class"] = {
        cls: {
            "count": int((labels == c).sum()),
            **{key: _plain(summary[key][0, c]) for key in per_class},
            "auc": _plain(areas[0, c]),
        }
        for c, cls in enumerate(classes)
    }
    result["confusion"] = cells.sum(0).reshape(number, number).astype(int).tolist()
    return result


def _percentiles(values: np.ndarray) -> np.ndarray:
    values = values[np.isfinite(values)]
    return np.percentile(values, INTERVAL) if len(values) else np.full(2, np.nan)


def _plain(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def resampled_patients(labels: np.ndarray, patients: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """(resamples, N): how often each clip counts when patients are drawn with replacement within their class."""
    rng = np.random.default_rng(seed)
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    class_of = np.zeros(len(names), int)
    class_of[owner] = labels
    times = np.zeros((resamples, len(names)), int)
    for cls in np.unique(class_of):
        members = np.flatnonzero(class_of == cls)
        times[:, members] = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), size=resamples
        )
    return times[:, owner]


def by_patient(
    labels: np.ndarray, probabilities: np.ndarray, patients: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Clips -> patients: the mean of a patient's probabilities. Returns labels (P,), probabilities (P, C), names.

    A patient with clips of several classes, such as two nodules, is one of each: one answer cannot be both.
    """
    pairs = list(zip(patients, np.asarray(labels).tolist(), strict=True))
    place = {pair: index for index, pair in enumerate(sorted(set(pairs)))}
    owner = np.array([place[pair] for pair in pairs], int)
    sums = np.zeros((len(place), probabilities.shape[1]))
    np.add.at(sums, owner, probabilities)
    merged = np.array([label for _, label in place], int)
    return merged, sums / np.bincount(owner)[:, None], [name for name, _ in place]


def both_levels(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """``{"clip": figures, "patient": figures}``; see `figures`."""
    merged = by_patient(labels, probabilities, patients)
    return {
        "clip": figures(labels, probabilities, classes, patients, resamples, seed),
        "patient": figures(merged[0], merged[1], classes, merged[2], resamples, seed),
    }
