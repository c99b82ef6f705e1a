"""What the noise filter says of its decisions: counts, tables, the record, the plot of thresholds, examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augment.quality.filter_levels import LEVELS, FilterSettings, reasons
from augment.quality.noise_filter import ALL, UNREADABLE, Thresholds, Verdict
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.number_format import text_table
from ctrlgenaug.video import read_video

EXAMPLES_A_REASON = 3
PUBLISHED = ("semantic", "within", "between")


@dataclass
class Filtered:
    """The filter's result.

    Attributes:
        verdicts: of every sample, in order of clip, class and seed.
        thresholds: of the within level, by class or under ``all``, where it was asked.
        levels: the levels that were asked, and the published ones, in order.
        warnings: what a user should know.
        foreign: files that are no samples of this data set, with the reason.
    """

    verdicts: list[Verdict]
    thresholds: dict[str, Thresholds | None] = field(default_factory=dict)
    levels: tuple[str, ...] = PUBLISHED
    warnings: list[str] = field(default_factory=list)
    foreign: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> list[str]:
        """File names of the kept samples."""
        return [verdict.sample.file_name for verdict in self.verdicts if verdict.kept]


def counts(verdicts: Sequence[Verdict], levels: Sequence[str] = PUBLISHED) -> dict[str, dict[str, int]]:
    """By class: samples before, after each level, kept, taken back, and against which each reason spoke."""
    table = {}
    for cls in dict.fromkeys(verdict.sample.cls for verdict in verdicts):
        of_class = [verdict for verdict in verdicts if verdict.sample.cls == cls]
        against = [verdict.readmitted or verdict.reason for verdict in of_class]
        dropped = {reason: against.count(reason) for reason in reasons()}
        row = {"before": len(of_class)}
        left = len(of_class) - dropped[UNREADABLE]
        for level in levels:
            left -= sum(dropped[reason] for reason in LEVELS[level].reasons)
            row[f"after_{level}"] = left
        row["readmitted"] = sum(verdict.readmitted is not None for verdict in of_class)
        row["kept"] = sum(verdict.kept for verdict in of_class)
        table[cls] = row | {f"dropped_{reason}": number for reason, number in dropped.items()}
    return table


def record(result: Filtered, settings: FilterSettings, provenance: dict[str, Any]) -> dict[str, Any]:
    """The content of ``filter_report.json``."""
    shared = result.thresholds.get(ALL)
    by_class = {
        cls: found and dataclasses.asdict(found) for cls, found in result.thresholds.items() if cls != ALL
    }
    return {
        "settings": {**dataclasses.asdict(settings), **provenance},
        "levels": list(result.levels),
        "thresholds": shared and dataclasses.asdict(shared),
        "class_thresholds": by_class,
        "counts": counts(result.verdicts, result.levels),
        "reasons": reasons(),
        "warnings": result.warnings,
        "foreign": result.foreign,
        "samples": [_sample(verdict) for verdict in result.verdicts],
    }


def _sample(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.sample.file_name,
        "clip": verdict.sample.clip,
        "class": verdict.sample.cls,
        "seed": verdict.sample.seed,
        "loss": verdict.loss,
        "group_mean": verdict.group_mean,
        "vae_seq": verdict.vae_seq,
        "nearest": verdict.nearest,
        "similarity": verdict.similarity,
        "nearest_real": verdict.nearest_real,
        "copy_distances": verdict.copy_distances,
        "decision": "kept" if verdict.kept else "dropped",
        "reason": verdict.reason,
        "readmitted": verdict.readmitted,
    }


def tables(result: Filtered) -> str:
    """For the terminal: samples left after each level by class, and what was dropped of each class and why."""
    numbers = counts(result.verdicts, result.levels)
    keys = ["before", *(f"after_{level}" for level in result.levels)]
    heads = ["class", "before", *result.levels]
    if any(row["readmitted"] for row in numbers.values()):
        keys, heads = [*keys, "readmitted", "kept"], [*heads, "taken back", "kept"]
    total = {key: sum(row[key] for row in numbers.values()) for key in next(iter(numbers.values()))}
    by_class = {**numbers, ALL: total}
    left = text_table(heads, [(cls, *(row[key] for key in keys)) for cls, row in by_class.items()])
    meanings = reasons()
    why = [
        (meaning, *(row[f"dropped_{reason}"] for row in by_class.values()))
        for reason, meaning in meanings.items()
        if total[f"dropped_{reason}"]
    ]
    if not why:
        return left
    return left + "\n\n" + text_table(("dropped because", *by_class), why)


def draw_thresholds(path: Path, result: Filtered) -> None:
    """Histogram of all VAE-Seq values with centroids and thresholds; a panel a class where each has its own."""
    from matplotlib.figure import Figure

    keys = list(result.thresholds) or [ALL]
    figure = Figure(figsize=(6, 1.5 + 2.5 * len(keys)), layout="constrained")
    for axes, key in zip(figure.subplots(len(keys), 1, squeeze=False)[:, 0], keys, strict=True):
        scores = [v.vae_seq for v in result.verdicts if v.vae_seq is not None and key in (ALL, v.sample.cls)]
        axes.hist(scores, bins=40, color="lightsteelblue")
        found = result.thresholds.get(key)
        if found is not None:
            for index, centroid in enumerate(found.centroids):
                axes.axvline(centroid, color="grey", linestyle=":", label="centroids" if index == 0 else None)
            for index, cut in enumerate((found.low, found.high)):
                axes.axvline(cut, color="firebrick", label="thresholds" if index == 0 else None)
            axes.legend()
        axes.set(xlabel="VAE-Seq, %", ylabel="clips", title="" if key == ALL else f"class {key}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_examples(path: Path, folder: Path, result: Filtered) -> None:
    """A few kept samples, and a few dropped for each reason."""
    rows = []
    for reason in (None, *reasons()):
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
