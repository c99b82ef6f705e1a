"""The levels of the noise filter: what each asks, the reasons it gives, and where its numbers come from.

A level is one entry of `LEVELS`. `noisy_data_filter.py` offers every entry under ``--levels``; the report, the tables
and the record know its reasons.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augment.classifiers.checkpoint import Scorer
from augment.classifiers.clip_items import Item
from augment.classifiers.clips import fit_length
from augment.quality import noise_filter, similarity
from augment.quality.latents import LatentStore
from augment.quality.noise_filter import Thresholds, Verdict
from augment.quality.reading import ahead
from augment.quality.vae_seq import RESULTS, ask_scores, scored_with
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.model_steps import Opener, Workers
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.progress import progress
from ctrlgenaug.video import read_video

# clips (F, H, W) uint8 -> logits (N, classes)
ScoreClips = Callable[[Iterable[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class FilterSettings:
    """How strict the filter is.

    Attributes:
        alpha: the semantic level's factor on a group's mean loss.
        inter_threshold: the between level's similarity, at most 1.
        levels: which levels are asked.
        link: hard links instead of copies.
        thresholds: of the within level, ``global`` (from all scores, as published) or ``per_class``.
        keep_at_least: samples of a class that are kept whatever the levels say.
        copy_quantile: of the distances between training clips of different patients, below which a sample is a copy.
    """

    alpha: float = 1.0
    inter_threshold: float = 0.98
    levels: tuple[str, ...] = ("semantic", "within", "between")
    link: bool = False
    thresholds: str = "global"
    keep_at_least: int = 0
    copy_quantile: float = 0.01

    def __post_init__(self) -> None:
        for level in self.levels:
            if level not in LEVELS:
                raise UserError(f"{level!r} is not a level", f"Known: {', '.join(LEVELS)}")
        if not self.alpha > 0:
            raise UserError(f"--alpha {self.alpha} is not positive", "The method uses 1.0")
        if not 0 < self.inter_threshold <= 1:
            hint = "; 98 in the official code means 0.98" if self.inter_threshold > 1 else ""
            raise UserError(
                f"--inter_threshold {self.inter_threshold} is not in (0, 1]{hint}", "The method uses 0.98"
            )
        if self.keep_at_least < 0:
            raise UserError(f"--keep_at_least {self.keep_at_least} is negative", "Give a number of clips")
        if not 0 < self.copy_quantile < 1:
            raise UserError(f"--copy_quantile {self.copy_quantile} is not in (0, 1)", "Use e.g. 0.01")


@dataclass
class Evidence:
    """What levels decide on.

    Attributes:
        folder: the synthetic clips.
        spec: their data set.
        verdicts: of every sample, in order of clip, class and seed; levels set their ``reason``.
        settings: see `FilterSettings`.
        store: latents, with the settings that VAE-Seq used.
        workers: who asks VAE and classifier.
        batch_size: clips that go through the classifier together.
        score_clips: the classifier; None without it.
        real: the training clips; none without them.
        scores_dir: where VAE-Seq's results are.
        thresholds: of the within level, by class or under ``all``, where it was asked.
    """

    folder: Path
    spec: DatasetSpec
    verdicts: list[Verdict]
    settings: FilterSettings
    store: LatentStore
    workers: Workers
    batch_size: int = 8
    score_clips: ScoreClips | None = None
    real: Sequence[Item] = ()
    scores_dir: Path | None = None
    thresholds: dict[str, Thresholds | None] = field(default_factory=dict)

    @property
    def standing(self) -> list[Verdict]:
        """The samples that no level has dropped yet."""
        return [verdict for verdict in self.verdicts if verdict.kept]

    def path(self, verdict: Verdict) -> Path:
        """A sample's file."""
        return self.folder / verdict.sample.file_name

    def frames(self, verdicts: Sequence[Verdict], title: str) -> Iterator[tuple[Verdict, np.ndarray]]:
        """The samples that can be read, with their frames (F, H, W) uint8; the others are dropped as unreadable.

        For a level that asks no network; one that does had better `ask`.
        """
        decoded = ahead(_decode, [self.path(verdict) for verdict in verdicts], depth=8)
        bar = progress(decoded, total=len(verdicts), description=title, unit="clip")
        for verdict, frames in zip(verdicts, bar, strict=True):
            if isinstance(frames, UserError):
                verdict.reason = noise_filter.UNREADABLE
            else:
                yield verdict, frames

    def ask(
        self,
        opener: Opener,
        paths: Sequence[Path],
        title: str,
        store: LatentStore | None = None,
        **arguments: Any,
    ) -> Iterator[Any]:
        """An answer for each clip, from whoever works; a `UserError` for one that cannot be read.

        Args:
            opener: see `Workers.ask`.
            paths: the clips.
            title: of the progress bar.
            store: of their latents, if it is asked.
            arguments: of ``opener``.
        """
        size, folders = self.batch_size, [path.parent for path in paths[:1]]
        if store is not None:
            arguments["store"], size = store, store.most_at_once
            folders += store.folders() if self.workers.elsewhere else []
        if isinstance(self.score_clips, Scorer):
            folders.append(self.score_clips.path.parent)
        answers = self.workers.ask(opener, arguments, paths, batch_size=size, folders=folders)
        yield from progress(answers, total=len(paths), description=title, unit="clip")


def _decode(path: Path) -> np.ndarray | UserError:
    try:
        return read_video(path)
    except UserError as error:
        return error


@dataclass(frozen=True)
class Level:
    """One question of the filter.

    Attributes:
        name: in ``--levels``.
        reasons: the reasons that it gives, each with what it means.
        judge: drops samples among ``evidence.standing`` by setting their ``reason``; returns warnings.
    """

    name: str
    reasons: dict[str, str]
    judge: Callable[[Evidence], list[str]]


LEVELS: dict[str, Level] = {}


def register(level: Level) -> Level:
    """Adds a level; levels are asked in the order of their registration."""
    LEVELS[level.name] = level
    return level


def reasons() -> dict[str, str]:
    """Every reason against a sample, in the order in which the levels ask, with what it means."""
    found = {noise_filter.UNREADABLE: "the video cannot be read"}
    for level in LEVELS.values():
        found |= level.reasons
    return found


# --- semantic ---------------------------------------------------------------------------------------------------


class _Logits:
    """Answers a clip with the classifier's logits, (classes,)."""

    def __init__(self, device: str, score_clips: ScoreClips, batch_size: int) -> None:
        self.score = score_clips.on(device) if isinstance(score_clips, Scorer) else score_clips
        self.batch_size = batch_size

    def __call__(self, paths: Sequence[Path]) -> Iterator[np.ndarray | UserError]:
        # by place, not by what can be read, so that the same clips stay together whoever asks
        batches = [paths[start : start + self.batch_size] for start in range(0, len(paths), self.batch_size)]
        for decoded in ahead(lambda batch: [_decode(path) for path in batch], batches):
            clips = [frames for frames in decoded if not isinstance(frames, UserError)]
            logits = iter(np.asarray(self.score(clips)) if clips else ())
            for frames in decoded:
                yield frames if isinstance(frames, UserError) else next(logits)


def _semantic(evidence: Evidence) -> list[str]:
    if evidence.score_clips is None:
        raise UserError("the semantic level needs a classifier", "Give --classifier_checkpoint")
    paths, spec = [evidence.path(verdict) for verdict in evidence.verdicts], evidence.spec
    answers = evidence.ask(
        _Logits, paths, "classifier", score_clips=evidence.score_clips, batch_size=evidence.batch_size
    )
    for verdict, logits in zip(evidence.verdicts, answers, strict=True):
        if isinstance(logits, UserError):
            verdict.reason = noise_filter.UNREADABLE
            continue
        if logits.shape != (len(spec.classes),):
            raise UserError(
                f"the classifier gives {logits.shape[-1]} classes, {spec.data_name} has {len(spec.classes)}",
                "Check --classifier_checkpoint and --data_name",
            )
        label = spec.class_id(verdict.sample.cls)
        verdict.loss = float(noise_filter.cross_entropy(logits[None], [label])[0])
    return noise_filter.semantic_level(evidence.verdicts, evidence.settings.alpha)


register(
    Level(
        "semantic",
        {noise_filter.SEMANTIC: "the classifier's loss is above alpha times its group's mean"},
        _semantic,
    )
)


# --- sequential, within a clip ----------------------------------------------------------------------------------


def _within(evidence: Evidence) -> list[str]:
    warnings, ordered = _add_scores(evidence)
    evidence.thresholds, more = noise_filter.within_level(
        ordered, per_class=evidence.settings.thresholds == "per_class"
    )
    return warnings + more


def _add_scores(evidence: Evidence) -> tuple[list[str], list[Verdict]]:
    """VAE-Seq from the results file; what it lacks is computed now.

    Returns:
        warnings, and the samples in the order of the results file: the published filter's k-means sees them so.
    """
    path = (evidence.scores_dir or evidence.folder) / f"{RESULTS}.json"
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError("is not a list of file name and score", "Run VAE-Seq.py again", path)
    made, now = scored_with(path.parent), evidence.store.made_with
    others = made not in ({}, now)  # nobody can compare them with those of samples that lack one
    for verdict in () if others else evidence.verdicts:
        score = found.get(verdict.sample.file_name)
        if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score):
            verdict.vae_seq = float(score)
    missing = [v for v in evidence.verdicts if v.vae_seq is None and v.reason != noise_filter.UNREADABLE]
    videos = [evidence.path(verdict) for verdict in missing]
    for verdict, score in zip(missing, ask_scores(evidence.store, videos, evidence.workers), strict=True):
        if isinstance(score, UserError):
            verdict.reason = verdict.reason or noise_filter.UNREADABLE
        else:
            verdict.vae_seq = score
    warnings = _newer_than(path, evidence, found) if found and not others else []
    place = {name: number for number, name in enumerate(found)}
    ordered = sorted(evidence.verdicts, key=lambda verdict: place.get(verdict.sample.file_name, len(place)))
    if others:
        differing = ", ".join(f"{key} {made.get(key)} there, {now[key]} now" for key in now)
        said = (
            f"{path.name} was made with another VAE or other settings ({differing}): scores were computed now"
        )
        warnings.append(said)
    elif missing:
        said = (
            f"{len(missing)} samples are not in {path.name}: their scores were computed now (or could not be)"
        )
        warnings.append(said)
    return warnings, ordered


def _newer_than(path: Path, evidence: Evidence, scored: Mapping[str, Any]) -> list[str]:
    """A warning where samples were made after their scores: an earlier generation's may lie under their names."""
    made = path.stat().st_mtime
    files = [evidence.path(verdict) for verdict in evidence.verdicts if verdict.sample.file_name in scored]
    newer = [file.name for file in files if file.is_file() and file.stat().st_mtime > made]
    if not newer:
        return []
    return [
        f"{len(newer)} samples are newer than their scores in {path.name}, e.g. {newer[0]}: if they were made again, "
        "run VAE-Seq.py again, too"
    ]


register(
    Level(
        "within",
        {
            noise_filter.NO_SCORE: "it has no VAE-Seq",
            noise_filter.JUMPY: "its VAE-Seq is below the lower threshold: frames do not belong together",
            noise_filter.STATIC: "its VAE-Seq is above the upper threshold: frames hardly differ",
        },
        _within,
    )
)


# --- sequential, between clips ----------------------------------------------------------------------------------


class _Latents:
    """Answers a clip with its latents, (F, C, h, w) float16."""

    def __init__(self, device: str, store: LatentStore) -> None:
        self.store = store.on(device)

    def __call__(self, paths: Sequence[Path]) -> Iterator[np.ndarray | UserError]:
        return (latents for _, latents in self.store.stream(paths))


def _between(evidence: Evidence) -> list[str]:
    groups = noise_filter.group_by_clip(evidence.standing).values()
    paths = [evidence.path(verdict) for group in groups for verdict in group]
    answers = evidence.ask(_Latents, paths, "similarity", evidence.store)

    def latents_of(group: Sequence[Verdict]) -> Iterator[np.ndarray | None]:
        for latents in itertools.islice(answers, len(group)):
            yield None if isinstance(latents, UserError) else latents

    noise_filter.between_level(evidence.verdicts, latents_of, evidence.settings.inter_threshold)
    return []


register(
    Level("between", {noise_filter.SIMILAR: "it resembles a sample of its group that is kept"}, _between)
)


# --- copies of training clips -----------------------------------------------------------------------------------


def _copies(evidence: Evidence) -> list[str]:
    if not evidence.real:
        raise UserError("the level copies needs the training clips", "Give --real")
    paths = [item.path for item in evidence.real]
    real_store = evidence.store.for_folder(paths[0].parent)
    real = _described(evidence, paths, real_store, "training clips")
    if not real.good:
        raise UserError("not one training clip can be read", "Run check_data.py on --real", paths[0].parent)
    unread = len(paths) - len(real.good) - len(real.other_size)
    warnings = [f"{unread} training clips cannot be read: copies of them are not found"] if unread else []
    judged = evidence.standing
    made = _described(
        evidence, [evidence.path(v) for v in judged], evidence.store, "copies", real.latent.shape[1:]
    )
    readable = {*made.good, *made.other_size}
    for index, verdict in enumerate(judged):
        if index not in readable:
            verdict.reason = noise_filter.UNREADABLE
    if made.other_size and not made.good:
        raise UserError(
            "the samples' frames have another size than the training clips': none can be compared",
            "Leave the level copies out, or generate at their size",
            evidence.folder,
        )
    for described, what in ((real, "training clips"), (made, "samples")):
        if described.other_size:
            said = (
                "have frames of another size than most training clips: the copies level does not compare them"
            )
            warnings.append(f"{len(described.other_size)} {what} {said}")
    judged, patients = [judged[index] for index in made.good], [evidence.real[i].patient for i in real.good]
    nearest: dict[str, similarity.Nearest] = {}
    twins = None
    for space, distances in (("pixel", similarity.pixel_distances), ("latent", similarity.cosine_distances)):
        if not judged:
            return warnings
        among = distances(getattr(real, space), getattr(real, space))
        to_real = distances(getattr(made, space), getattr(real, space))
        if space == "pixel":
            twins = similarity.twins(among, patients)
        found = similarity.nearest_real(to_real, among, patients, evidence.settings.copy_quantile, twins)
        if found is None:
            return [
                *warnings,
                "fewer than two training patients of different clips: the copies level kept everything",
            ]
        nearest[space] = found
    if number := nearest["pixel"].twins:
        said = "are there again under another patient's name: the copies level passes over them for its threshold"
        warnings.append(f"{number} training clips {said}")
    noise_filter.copies_level(judged, nearest, [paths[index].name for index in real.good])
    return warnings


class _Descriptions:
    """Answers a clip with its thumbnail and its latents, both of ``length`` frames."""

    def __init__(self, device: str, store: LatentStore, length: int) -> None:
        self.store, self.length = store.on(device), length

    def __call__(self, paths: Sequence[Path]) -> Iterator[tuple[np.ndarray, np.ndarray] | UserError]:
        for path, frames in zip(paths, ahead(_decode, paths, depth=8), strict=True):
            found = frames
            if not isinstance(frames, UserError):
                found = self.store.of_clips([path], [frames])[0]
            if isinstance(frames, UserError) or isinstance(found, UserError):
                yield found  # type: ignore[misc]
                continue
            yield fit_length(similarity.thumbnail(frames), self.length), fit_length(found, self.length)


@dataclass
class _Described:
    """Clips that can be compared with each other.

    Attributes:
        good: their positions among those asked about.
        pixel: (N, F, 32, 32) thumbnails.
        latent: (N, F, C, h, w).
        other_size: positions of clips whose frames have another size.
    """

    good: list[int]
    pixel: np.ndarray
    latent: np.ndarray
    other_size: list[int]


def _described(
    evidence: Evidence,
    paths: Sequence[Path],
    store: LatentStore,
    title: str,
    shape: tuple[int, ...] | None = None,
) -> _Described:
    """The clips that can be read and whose latents have ``shape`` (F, C, h, w); None: that of most."""
    answers = evidence.ask(_Descriptions, paths, title, store, length=evidence.spec.required_clip_num)
    found = {index: answer for index, answer in enumerate(answers) if not isinstance(answer, UserError)}
    if shape is None and found:
        shape = Counter(latents.shape for _, latents in found.values()).most_common(1)[0][0]
    good = [index for index, (_, latents) in found.items() if latents.shape == shape]
    pixel, latent = (
        np.stack([found[index][part] for index in good]) if good else np.zeros((0, 1, 1)) for part in (0, 1)
    )
    return _Described(good, pixel, latent, sorted(found.keys() - set(good)))


register(
    Level(
        "copies",
        {noise_filter.COPY: "it is nearer to a training clip than training clips of different patients are"},
        _copies,
    )
)
