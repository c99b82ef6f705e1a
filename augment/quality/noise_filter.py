"""The noise filter's decisions (method, section 7): semantic, sequential within a clip, sequential between clips.

Pure arithmetic on numbers; `augment.quality.filter_folder` reads and writes the files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from augment.generation.plan import Sample
from augment.quality.latents import frame_directions

LEVELS = ("semantic", "within", "between")
CLUSTERS = 4
KMEANS_SEED = 3407
KMEANS_STARTS = 10  # one start lets the order of the files move the thresholds
LOSS_ROUNDING = 1e-9  # equal losses must not fail against their own mean by a last bit, relative
SIMILARITY_ROUNDING = (
    1e-6  # nor equal clips against a threshold of 1: float32 unit vectors are not quite that long
)

# Why a sample is dropped, in the order in which the levels ask.
UNREADABLE, SEMANTIC, NO_SCORE, JUMPY, STATIC, SIMILAR = (
    "unreadable",
    "semantic",
    "no_score",
    "sequential_low",
    "sequential_high",
    "similar",
)
DROPPED = {
    UNREADABLE: "the video cannot be read",
    SEMANTIC: "the classifier's loss is above alpha times its group's mean",
    NO_SCORE: "it has no VAE-Seq",
    JUMPY: "its VAE-Seq is below the lower threshold: frames do not belong together",
    STATIC: "its VAE-Seq is above the upper threshold: frames hardly differ",
    SIMILAR: "it resembles a sample of its group that is kept",
}


@dataclass
class Verdict:
    """What is known and decided about one sample.

    Attributes:
        sample: clip, class, seed.
        loss: cross-entropy of the requested class.
        group_mean: mean loss of the samples of the same real clip.
        vae_seq: in percent.
        nearest: file name of the most similar sample kept before it in its group.
        similarity: the similarity to that one, at most 1.
        reason: a key of `DROPPED`, or None if it is kept.
    """

    sample: Sample
    loss: float | None = None
    group_mean: float | None = None
    vae_seq: float | None = None
    nearest: str | None = None
    similarity: float | None = None
    reason: str | None = None

    @property
    def kept(self) -> bool:
        """Whether no level dropped it."""
        return self.reason is None


@dataclass(frozen=True)
class Thresholds:
    """Where the within level cuts: ``low <= VAE-Seq <= high`` is kept, in percent."""

    low: float
    high: float
    centroids: tuple[float, ...]


def cross_entropy(logits: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """-log softmax(logits)[label] of each row: (N, classes) and N labels to (N,) float64."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), list(labels)]


def group_by_clip(verdicts: Iterable[Verdict]) -> dict[Hashable, list[Verdict]]:
    """The samples of each real clip and class, in order."""
    groups: dict[Hashable, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.sample.clip, verdict.sample.cls].append(verdict)
    return dict(groups)


def semantic_level(verdicts: Sequence[Verdict], alpha: float = 1.0) -> list[str]:
    """Keeps a sample if its loss is at most ``alpha`` times its group's mean; sets ``group_mean`` and ``reason``.

    A group of one has nothing to be compared with: it passes, whatever ``alpha``.

    Returns:
        Warnings.
    """
    alone = 0
    for group in group_by_clip(v for v in verdicts if v.kept).values():
        finite = [verdict.loss for verdict in group if math.isfinite(verdict.loss)]
        mean = math.fsum(finite) / len(finite) if finite else math.inf
        alone += len(group) == 1
        for verdict in group:
            verdict.group_mean = mean
            too_high = len(group) > 1 and verdict.loss > alpha * mean * (1 + LOSS_ROUNDING)
            if too_high or not math.isfinite(verdict.loss):
                verdict.reason = SEMANTIC
    return [f"{alone} clips have a single sample, which the semantic level cannot judge"] if alone else []


def sequence_thresholds(scores: Sequence[float]) -> Thresholds | None:
    """Thresholds from 4-means over all VAE-Seq values: midpoints of the lowest two and of the highest two centroids.

    None if there are fewer than 4 distinct values.
    """
    if len(set(scores)) < CLUSTERS:
        return None
    from sklearn.cluster import KMeans

    values = np.asarray(scores, dtype=np.float64).reshape(-1, 1)
    fitted = KMeans(n_clusters=CLUSTERS, random_state=KMEANS_SEED, n_init=KMEANS_STARTS).fit(values)
    centroids = sorted(float(centroid) for centroid in fitted.cluster_centers_[:, 0])
    low, high = (centroids[0] + centroids[1]) / 2, (centroids[-2] + centroids[-1]) / 2
    return Thresholds(low, high, tuple(centroids))


def within_level(verdicts: Sequence[Verdict]) -> tuple[Thresholds | None, list[str]]:
    """Drops samples whose frames jump or stand still; the thresholds come from every sample's VAE-Seq.

    Without thresholds (fewer than 4 distinct values) everything that has a score passes.

    Returns:
        The thresholds and warnings.
    """
    warnings = []
    thresholds = sequence_thresholds([v.vae_seq for v in verdicts if v.vae_seq is not None])
    if thresholds is None:
        warnings.append(f"fewer than {CLUSTERS} distinct VAE-Seq values: the within level kept everything")
    without = 0
    for verdict in (v for v in verdicts if v.kept):
        if verdict.vae_seq is None:
            verdict.reason = NO_SCORE
            without += 1
        elif thresholds is not None and verdict.vae_seq < thresholds.low:
            verdict.reason = JUMPY
        elif thresholds is not None and verdict.vae_seq > thresholds.high:
            verdict.reason = STATIC
    if without:
        warnings.append(f"{without} samples have no VAE-Seq and were dropped")
    return thresholds, warnings


def between_level(
    verdicts: Sequence[Verdict],
    latents_of: Callable[[Sequence[Verdict]], Iterable[np.ndarray | None]],
    threshold: float = 0.98,
) -> None:
    """In each group, in order, drops a sample whose similarity to an already kept one is at least ``threshold``.

    Similarity is the cosine of the two samples' latents of a frame, averaged over the frames; clips of different length
    are not compared.

    Args:
        verdicts: in the order in which they are to be kept.
        latents_of: the latents (F, C, h, w) of a group's samples, one at a time; None for one that cannot be read.
        threshold: at most 1.
    """
    for group in group_by_clip(v for v in verdicts if v.kept).values():
        kept: list[tuple[Verdict, np.ndarray]] = []
        for verdict, latents in zip(group, latents_of(group), strict=True):
            if latents is None:
                verdict.reason = UNREADABLE
                continue
            frames = frame_directions(latents)
            for other, others_frames in kept:
                if others_frames.shape != frames.shape:
                    continue
                similarity = float((others_frames * frames).sum(1, dtype=np.float64).mean())
                if verdict.similarity is None or similarity > verdict.similarity:
                    verdict.similarity, verdict.nearest = similarity, other.sample.file_name
            if verdict.similarity is not None and verdict.similarity >= threshold - SIMILARITY_ROUNDING:
                verdict.reason = SIMILAR
            else:
                kept.append((verdict, frames))


def counts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """By class: samples before, after each level, and dropped by each reason."""
    table = {}
    for cls in dict.fromkeys(verdict.sample.cls for verdict in verdicts):
        of_class = [verdict for verdict in verdicts if verdict.sample.cls == cls]
        dropped = {reason: sum(v.reason == reason for v in of_class) for reason in DROPPED}
        after_semantic = len(of_class) - dropped[UNREADABLE] - dropped[SEMANTIC]
        after_within = after_semantic - dropped[NO_SCORE] - dropped[JUMPY] - dropped[STATIC]
        table[cls] = {
            "before": len(of_class),
            "after_semantic": after_semantic,
            "after_within": after_within,
            "after_between": after_within - dropped[SIMILAR],
            **{f"dropped_{reason}": number for reason, number in dropped.items()},
        }
    return table
