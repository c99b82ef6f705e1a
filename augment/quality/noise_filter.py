"""The noise filter's decisions (method, section 7), as pure arithmetic on numbers.

`augment.quality.filter_levels` says which levels there are and where their numbers come from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from augment.generation.plan import Sample
from augment.quality.latents import frame_directions
from augment.quality.similarity import Nearest

CLUSTERS = 4
KMEANS_SEED = 3407
KMEANS_STARTS = 10  # one start lets the order of the files move the thresholds
# Equal losses must not fail against their own mean by a last bit, relative.
LOSS_ROUNDING = 1e-9
# Nor equal clips against a threshold of 1: float32 unit vectors are not quite that long.
SIMILARITY_ROUNDING = 1e-6

# Why a sample is dropped; UNREADABLE is no level's verdict.
UNREADABLE, SEMANTIC, NO_SCORE, JUMPY, STATIC, SIMILAR, COPY = (
    "unreadable",
    "semantic",
    "no_score",
    "sequential_low",
    "sequential_high",
    "similar",
    "copy",
)


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
        nearest_real: file name of the nearest training clip.
        copy_distances: the distance to it by space, as parts of the distance below which it is a copy.
        reason: why it is dropped, or None if it is kept.
        readmitted: the reason against it, where it is kept all the same to keep its class alive.
    """

    sample: Sample
    loss: float | None = None
    group_mean: float | None = None
    vae_seq: float | None = None
    nearest: str | None = None
    similarity: float | None = None
    nearest_real: str | None = None
    copy_distances: dict[str, float] | None = None
    reason: str | None = None
    readmitted: str | None = None

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


ALL = "all"  # the key of thresholds that hold for every class


def cross_entropy(logits: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """-log softmax(logits)[label] of each row: (N, classes) and N labels to (N,) float64."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), list(labels)]


def group_by_clip(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], list[Verdict]]:
    """The samples of each real clip and class, in order."""
    groups: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
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
        losses = [math.nan if verdict.loss is None else verdict.loss for verdict in group]
        finite = [loss for loss in losses if math.isfinite(loss)]
        mean = math.fsum(finite) / len(finite) if finite else math.inf
        alone += len(group) == 1
        for verdict, loss in zip(group, losses, strict=True):
            verdict.group_mean = mean
            too_high = len(group) > 1 and loss > alpha * mean * (1 + LOSS_ROUNDING)
            if too_high or not math.isfinite(loss):
                verdict.reason = SEMANTIC
    return [f"{alone} clips have a single sample, which the semantic level cannot judge"] if alone else []


def sequence_thresholds(scores: Sequence[float]) -> Thresholds | None:
    """Thresholds from 4-means over VAE-Seq values: midpoints of the lowest two and of the highest two centroids.

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


def within_level(
    verdicts: Sequence[Verdict], *, per_class: bool = False
) -> tuple[dict[str, Thresholds | None], list[str]]:
    """Drops samples whose frames jump or stand still; the thresholds come from every sample's VAE-Seq.

    Without thresholds (fewer than 4 distinct values) everything that has a score passes.

    Args:
        verdicts: in the order in which the k-means is to see the scores.
        per_class: thresholds for each class from its own scores. Those from all scores, as published, can empty a
            class whose clips are smoother or rougher than the others'.

    Returns:
        The thresholds, by class or under ``all``, and warnings.
    """
    warnings = []
    scores: dict[str, list[float]] = {} if per_class else {ALL: []}
    for verdict in verdicts:
        found = scores.setdefault(verdict.sample.cls if per_class else ALL, [])
        if verdict.vae_seq is not None:
            found.append(verdict.vae_seq)
    thresholds = {key: sequence_thresholds(values) for key, values in scores.items()}
    for key, cut in thresholds.items():
        if cut is None:
            where = f"class {key}: " if per_class else ""
            warnings.append(
                f"{where}fewer than {CLUSTERS} distinct VAE-Seq values: the within level kept everything"
            )
    without = 0
    for verdict in (v for v in verdicts if v.kept):
        cut = thresholds[verdict.sample.cls if per_class else ALL]
        if verdict.vae_seq is None:
            verdict.reason = NO_SCORE
            without += 1
        elif cut is not None and verdict.vae_seq < cut.low:
            verdict.reason = JUMPY
        elif cut is not None and verdict.vae_seq > cut.high:
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


def copies_level(
    verdicts: Sequence[Verdict], nearest: Mapping[str, Nearest], real_names: Sequence[str]
) -> None:
    """Drops a sample that lies nearer to a training clip than training clips of different patients do to each other.

    It must do so in every space: by pixels alone, a clip that follows its image prior well would count as a copy.

    Args:
        verdicts: the samples asked about.
        nearest: by space, the nearest training clip of each of ``verdicts``.
        real_names: file names of the training clips.
    """
    for index, verdict in enumerate(verdicts):
        parts = {
            space: float(found.distance[index]) / max(found.threshold, 1e-12)
            for space, found in nearest.items()
        }
        last = list(nearest.values())[-1]
        verdict.nearest_real, verdict.copy_distances = real_names[int(last.index[index])], parts
        if all(bool(found.flagged[index]) for found in nearest.values()):
            verdict.reason = COPY


def readmit(
    verdicts: Sequence[Verdict],
    at_least: int,
    order: Sequence[str],
    never: Iterable[str] = (UNREADABLE, COPY),
) -> list[str]:
    """Takes samples back until every class has ``at_least``, or none is left to take.

    Those that passed most levels come first, then those of smaller loss.

    Args:
        verdicts: of all levels.
        at_least: samples a class.
        order: reasons in the order in which the levels ask.
        never: reasons that a sample never comes back from.

    Returns:
        Warnings: what was taken back, and classes that stay short.
    """
    warnings = []
    for cls in dict.fromkeys(verdict.sample.cls for verdict in verdicts):
        of_class = [verdict for verdict in verdicts if verdict.sample.cls == cls]
        missing = at_least - sum(verdict.kept for verdict in of_class)
        dropped = [v for v in of_class if v.reason is not None and v.reason not in tuple(never)]
        dropped.sort(
            key=lambda v: (
                -order.index(str(v.reason)),
                math.inf if v.loss is None else v.loss,
                v.sample.file_name,
            )
        )
        back = dropped[: max(0, missing)]
        for verdict in back:
            verdict.readmitted, verdict.reason = verdict.reason, None
        if back:
            warnings.append(f"class {cls}: {len(back)} dropped samples were taken back to keep {at_least}")
        if missing > len(back):
            warnings.append(
                f"class {cls}: only {at_least - missing + len(back)} of {at_least} samples can be kept"
            )
    return warnings
