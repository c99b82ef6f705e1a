"""The noise filter on a folder of synthetic clips: reads scores and clips, decides, copies what is kept, explains."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from augment.generation.plan import parse_file_name
from augment.quality import noise_filter
from augment.quality.latents import LatentStore
from augment.quality.noise_filter import DROPPED, Thresholds, Verdict
from augment.quality.vae_seq import RESULTS, list_videos, vae_seq
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.video import read_video

REPORT, PLOT, EXAMPLES = "filter_report.json", "inner-video-kmeans-threshold.png", "filter_examples.png"
EXAMPLES_A_REASON = 3

ScoreClips = Callable[[Iterable[np.ndarray]], np.ndarray]  # clips (F, H, W) uint8 -> logits (N, classes)


@dataclass(frozen=True)
class FilterSettings:
    """How strict the filter is.

    Attributes:
        alpha: the semantic level's factor on a group's mean loss.
        inter_threshold: the between level's similarity, at most 1.
        levels: which levels are asked.
        link: hard links instead of copies.
    """

    alpha: float = 1.0
    inter_threshold: float = 0.98
    levels: tuple[str, ...] = noise_filter.LEVELS
    link: bool = False

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise UserError(f"--alpha {self.alpha} is not positive", "The method uses 1.0")
        if not 0 < self.inter_threshold <= 1:
            hint = "; 98 in the official code means 0.98" if self.inter_threshold > 1 else ""
            raise UserError(
                f"--inter_threshold {self.inter_threshold} is not in (0, 1]{hint}", "The method uses 0.98"
            )


@dataclass
class Filtered:
    """The filter's result.

    Attributes:
        verdicts: of every sample, in order of clip, class and seed.
        thresholds: of the within level, if it had any.
        warnings: what a user should know.
        strangers: files that are no samples of this data set, with the reason.
    """

    verdicts: list[Verdict]
    thresholds: Thresholds | None = None
    warnings: list[str] = field(default_factory=list)
    strangers: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> list[str]:
        """File names of the kept samples."""
        return [verdict.sample.file_name for verdict in self.verdicts if verdict.kept]


def decide(
    folder: Path,
    spec: DatasetSpec,
    store: LatentStore,
    score_clips: ScoreClips | None,
    settings: FilterSettings,
) -> Filtered:
    """Asks every level about every sample in ``folder``; writes nothing but the latents' cache.

    Args:
        folder: the synthetic clips, and VAE-Seq's results.
        spec: their data set.
        store: latents, with the settings that VAE-Seq used.
        score_clips: the classifier; may be None without the semantic level.
        settings: see `FilterSettings`.

    Raises:
        UserError: no clips, or no clip of this data set.
    """
    result = Filtered([])
    for path in list_videos(folder):
        try:
            sample = parse_file_name(path.name, spec)
            if (
                sample.file_name != path.name
            ):  # "01" and "1" are one seed but two files, and an AVI is no sample
                raise UserError(f"should be called {sample.file_name}", "Rename or remove it")
            result.verdicts.append(Verdict(sample))
        except UserError as error:
            result.strangers[path.name] = f"{error.problem}."
    if not result.verdicts:
        raise UserError(f"holds no clip named like {spec.data_name}'s", "Check --data_name", folder)
    result.verdicts.sort(key=lambda verdict: (verdict.sample.clip, verdict.sample.cls, verdict.sample.seed))

    if "semantic" in settings.levels:
        if score_clips is None:
            raise UserError("the semantic level needs a classifier", "Give --classifier_checkpoint")
        _add_losses(folder, spec, result.verdicts, score_clips)
        result.warnings += noise_filter.semantic_level(result.verdicts, settings.alpha)
    if "within" in settings.levels:
        result.warnings += _add_scores(folder, store, result.verdicts)
        result.thresholds, warnings = noise_filter.within_level(result.verdicts)
        result.warnings += warnings
    if "between" in settings.levels:
        _ask_between(folder, store, result.verdicts, settings.inter_threshold)
    for cls, numbers in noise_filter.counts(result.verdicts).items():
        if not numbers["after_between"]:
            result.warnings.append(f"class {cls}: nothing is kept")
    return result


def _add_losses(
    folder: Path, spec: DatasetSpec, verdicts: Sequence[Verdict], score_clips: ScoreClips
) -> None:
    readable: list[Verdict] = []

    def clips() -> Iterator[np.ndarray]:
        for verdict in tqdm(verdicts, desc="classifier", unit="clip", mininterval=2, file=sys.stderr):
            try:
                frames = read_video(folder / verdict.sample.file_name)
            except UserError:
                verdict.reason = noise_filter.UNREADABLE
                continue
            readable.append(verdict)
            yield frames

    logits = np.asarray(score_clips(clips()))
    if not readable:
        return
    if logits.shape != (len(readable), len(spec.classes)):
        raise UserError(
            f"the classifier gives {logits.shape[-1]} classes, {spec.data_name} has {len(spec.classes)}",
            "Check --classifier_checkpoint and --data_name",
        )
    labels = [spec.class_id(verdict.sample.cls) for verdict in readable]
    for verdict, loss in zip(readable, noise_filter.cross_entropy(logits, labels), strict=True):
        verdict.loss = float(loss)


def _add_scores(folder: Path, store: LatentStore, verdicts: Sequence[Verdict]) -> list[str]:
    """VAE-Seq from the results file; what it lacks is computed now."""
    path = folder / f"{RESULTS}.json"
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise UserError("is not a list of file name and score", "Run VAE-Seq.py again", path)
    for verdict in verdicts:
        score = found.get(verdict.sample.file_name)
        if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score):
            verdict.vae_seq = float(score)
    missing = [v for v in verdicts if v.vae_seq is None and v.reason != noise_filter.UNREADABLE]
    videos = [folder / verdict.sample.file_name for verdict in missing]
    for verdict, (_, latents) in zip(missing, store.stream(videos), strict=True):
        if isinstance(latents, UserError):
            verdict.reason = verdict.reason or noise_filter.UNREADABLE
        else:
            verdict.vae_seq = vae_seq(latents)
    if not missing:
        return []
    return [
        f"{len(missing)} samples are not in {path.name}: their scores were computed now (or could not be)"
    ]


def _ask_between(folder: Path, store: LatentStore, verdicts: Sequence[Verdict], threshold: float) -> None:
    asked = sum(verdict.kept for verdict in verdicts)
    with tqdm(total=asked, desc="similarity", unit="clip", mininterval=2, file=sys.stderr) as bar:

        def latents_of(group: Sequence[Verdict]) -> Iterator[np.ndarray | None]:
            for _, item in store.stream([folder / verdict.sample.file_name for verdict in group]):
                bar.update()
                yield None if isinstance(item, UserError) else item

        noise_filter.between_level(verdicts, latents_of, threshold)


# --- what is written -------------------------------------------------------------------------------------------------


def report(result: Filtered, settings: FilterSettings, provenance: dict[str, Any]) -> dict[str, Any]:
    """The content of ``filter_report.json``."""
    return {
        "settings": {**dataclasses.asdict(settings), **provenance},
        "thresholds": None if result.thresholds is None else dataclasses.asdict(result.thresholds),
        "counts": noise_filter.counts(result.verdicts),
        "reasons": DROPPED,
        "warnings": result.warnings,
        "strangers": result.strangers,
        "samples": [
            {
                "file": verdict.sample.file_name,
                "clip": verdict.sample.clip,
                "class": verdict.sample.cls,
                "seed": verdict.sample.seed,
                "loss": verdict.loss,
                "group_mean": verdict.group_mean,
                "vae_seq": verdict.vae_seq,
                "nearest": verdict.nearest,
                "similarity": verdict.similarity,
                "decision": "kept" if verdict.kept else "dropped",
                "reason": verdict.reason,
            }
            for verdict in result.verdicts
        ],
    }


def save(
    folder: Path, target: Path, result: Filtered, settings: FilterSettings, provenance: dict[str, Any]
) -> None:
    """Makes ``target`` hold exactly the kept samples of ``folder``, with report, plot and examples.

    What an earlier run put there and this one drops is removed; files that are not this filter's are left alone.

    Raises:
        UserError: ``target`` is ``folder`` itself, or another run is writing there.
    """
    if target.resolve() == folder.resolve():
        raise UserError(
            "is the synthetic folder itself, whose clips are to be kept", "Give another --save_base", target
        )
    with exclusive(target):
        kept, earlier = set(result.kept), _kept_earlier(target / REPORT)
        for verdict in result.verdicts:
            name = verdict.sample.file_name
            if name in kept:
                _put(folder / name, target / name, link=settings.link)
            elif name in earlier:
                (target / name).unlink(missing_ok=True)
        foreign = sorted({path.name for path in target.glob("*.mp4")} - kept)
        if foreign:
            result.warnings.append(
                f"{target} holds {len(foreign)} clips from elsewhere, such as {foreign[0]}"
            )
        draw_thresholds(target / PLOT, result)
        draw_examples(target / EXAMPLES, folder, result)
        write_json(target / REPORT, report(result, settings, provenance))
    (target / ".lock").unlink(missing_ok=True)


def _kept_earlier(path: Path) -> set[str]:
    """What the report of an earlier run into the same folder says it put there."""
    found = read_json(path) if path.is_file() else {}
    samples = found.get("samples", []) if isinstance(found, dict) else []
    return {str(row["file"]) for row in samples if row.get("decision") == "kept"}


def _put(source: Path, target: Path, *, link: bool) -> None:
    with atomic_path(target) as temporary:
        if link:
            try:
                os.link(source, temporary)
                return
            except OSError:  # another file system: a copy serves as well
                pass
        shutil.copyfile(source, temporary)


def draw_thresholds(path: Path, result: Filtered) -> None:
    """Histogram of all VAE-Seq values with centroids and thresholds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores = [verdict.vae_seq for verdict in result.verdicts if verdict.vae_seq is not None]
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(scores, bins=40, color="lightsteelblue")
    if result.thresholds is not None:
        for index, centroid in enumerate(result.thresholds.centroids):
            axes.axvline(centroid, color="grey", linestyle=":", label="centroids" if index == 0 else None)
        for index, cut in enumerate((result.thresholds.low, result.thresholds.high)):
            axes.axvline(cut, color="firebrick", label="thresholds" if index == 0 else None)
        axes.legend()
    axes.set_xlabel("VAE-Seq, %")
    axes.set_ylabel("clips")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_examples(path: Path, folder: Path, result: Filtered) -> None:
    """A few kept samples, and a few dropped for each reason."""
    rows = []
    for reason in (None, *DROPPED):
        shown = 0
        for verdict in result.verdicts:
            if verdict.reason != reason or shown == EXAMPLES_A_REASON:
                continue
            try:
                frames = read_video(folder / verdict.sample.file_name)
            except UserError:
                continue
            rows.append((f"{reason or 'kept'}: {verdict.sample.file_name}", frames))
            shown += 1
    if rows:
        save_picture(path, contact_sheet(rows))


def table(result: Filtered) -> str:
    """Samples by class and level, as text."""
    heads = ("class", "before", "semantic", "within", "between")
    keys = ("before", "after_semantic", "after_within", "after_between")
    numbers = noise_filter.counts(result.verdicts)
    rows = [(cls, *(row[key] for key in keys)) for cls, row in numbers.items()]
    rows.append(("all", *(sum(row[key] for row in numbers.values()) for key in keys)))
    return "\n".join("".join(f"{cell!s:>10}" for cell in row) for row in (heads, *rows))
