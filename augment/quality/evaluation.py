"""Synthetic clips against real ones: every metric per class and in total, with counts and what to hold it against."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augment.classifiers.clip_items import Item, real_items, synthetic_items
from augment.classifiers.doubts import doubts
from augment.classifiers.weights import read_weights
from augment.quality.clip_sets import FEATURES, SETS, ClipSet, read_set
from augment.quality.data_set import data_set_of
from augment.quality.evaluation_report import markdown
from augment.quality.instruments import EvaluationSettings, Instruments
from augment.quality.metrics import METRICS, Run, Selection
from augment.quality.metrics.copies import draw_closest, draw_distances
from ctrlgenaug import model_steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import write_text
from ctrlgenaug.model_steps import Workers
from ctrlgenaug.plain_data import write_json

FEW = 100  # clips of a set below which figures are hardly more than a direction


def settings_from(options: argparse.Namespace) -> tuple[DatasetSpec, EvaluationSettings]:
    """The data set and the settings that evaluate.py's flags ask for.

    Without a flag for it, the data set is the classifier's.

    Raises:
        UserError: an unknown data set or device, a classifier of other classes, or a value out of range.
    """
    meta = read_weights(options.classifier)[1] if options.classifier else {}
    spec = data_set_of(options, options.synthetic, meta, options.classifier)
    names = {item.name for item in dataclasses.fields(EvaluationSettings)}
    values = {key: value for key, value in vars(options).items() if key in names}
    device = model_steps.chosen(options).own_device
    several = {key: tuple(values[key]) for key in ("synthetic", "metrics")}
    return spec, EvaluationSettings(**{**values, **several, "device": device})


def choose_metrics(settings: EvaluationSettings) -> tuple[list[str], list[str]]:
    """The metrics to compute, and a note for each that ``all`` leaves out.

    Raises:
        UserError: a metric that is not known, or that needs a flag which was not given; or nothing is left.
    """
    asked = [name for text in settings.metrics for name in text.split(",") if name]
    lacking = {name: settings.lacking(metric.needs) for name, metric in METRICS.items()}
    if asked == ["all"]:
        offered = [name for name, metric in METRICS.items() if not metric.on_request]
        notes = [f"no {name} without {lacking[name]}" for name in offered if lacking[name]]
        chosen = [name for name in offered if not lacking[name]]
    else:
        for name in asked:
            if name not in METRICS:
                raise UserError(f"{name!r} is not a metric", f"Known: {', '.join(METRICS)}")
            if lacking[name]:
                raise UserError(f"{name} needs {lacking[name]}", "Give it")
        chosen, notes = [name for name in METRICS if name in asked], []
    if not chosen:
        raise UserError("nothing can be computed", "Give --real, --classifier or --vae_path")
    return chosen, notes


@dataclass
class Evaluation:
    """An evaluation's result.

    Attributes:
        found: the content of evaluation.json.
        run: the clips with what was computed of them.
        foreign: files that are not named like synthetic clips of the data set.
    """

    found: dict[str, Any]
    run: Run
    foreign: list[str] = field(default_factory=list)


def evaluate_folders(
    spec: DatasetSpec, settings: EvaluationSettings, workers: Workers | None = None
) -> Evaluation:
    """Judges the clips in ``settings.synthetic``; see `evaluate`.

    Raises:
        UserError: no clips, clips made from test conditions, a classifier of other classes, or see `choose_metrics`.
    """
    metrics, notes = choose_metrics(settings)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    home = spec.home_in(settings.real) if settings.real else None
    real, test = [], []
    if home is not None:
        real = real_items(spec, home, settings.split)
        if spec.metadata_path(home / spec.clips_dir, "test").is_file():
            test = real_items(spec, home, "test")
    synthetic, foreign = synthetic_items(settings.synthetic, spec, test)
    items = {"synthetic": synthetic, "real": real, "test": test if settings.split == "train" else []}
    result = evaluate(items, metrics, Instruments(spec, settings, home), workers)
    judged = ("synthetic", "real", "split", "classifier", "vae_path")
    result.found["judged"] = {name: getattr(settings, name) for name in judged}
    return Evaluation(json.loads(json.dumps(result.found)), result.run, foreign)


def evaluate(
    items: Mapping[str, Sequence[Item]],
    metrics: Sequence[str],
    instruments: Instruments,
    workers: Workers | None = None,
) -> Evaluation:
    """Computes ``metrics``, each clip being decoded once.

    Args:
        items: clips by set, see `clip_sets.SETS`; a set may be empty or lacking.
        metrics: names in `METRICS`.
        instruments: with the settings and the data set.
        workers: who computes the clips' features; None: this process.

    Returns:
        plain values for JSON in ``found``: ``counts``, ``tools``, ``metrics`` ({name: {"all": ..., class: ...}}; a
        class without synthetic clips is left out, None where there is nothing to compare with), ``steering`` (the rows
        of metrics that say how the generator follows its conditions), ``published``, ``warnings``, ``failures``.
    """
    spec, settings = instruments.spec, instruments.settings
    wanted = dict.fromkeys(name for metric in metrics for name in METRICS[metric].features)
    features = [name for name in wanted if not settings.lacking(FEATURES[name].needs)]
    needed = {name for metric in metrics for name in METRICS[metric].sets}
    sets = {
        name: read_set(name, items[name], features, instruments, settings.batch_size, workers)
        for name in SETS
        if name in needed and items.get(name)
    }
    run = Run(sets, instruments)
    labels = [(None, "all"), *enumerate(spec.classes)]
    rows: dict[str, dict[str, Any]] = {}
    for name in metrics:
        chosen = {cls: Selection(run, label) for label, cls in labels}
        rows[name] = {cls: METRICS[name].compute(part) for cls, part in chosen.items() if len(part.synthetic)}
    counts = {name: {cls: len(group.view(label)) for label, cls in labels} for name, group in sets.items()}
    found = {
        "data_name": spec.data_name,
        "counts": counts,
        "tools": instruments.labels,
        "draws": settings.draws,
        "seed": settings.seed,
        "metrics": rows,
        "steering": {METRICS[name].steering: rows[name] for name in metrics if METRICS[name].steering},
        "published": dict(spec.published),
        "warnings": [*_warnings(counts), *_other_sizes(sets), *_doubtful_control(settings, metrics)],
        "failures": {name: reason for group in sets.values() for name, reason in group.failures.items()},
    }
    return Evaluation(json.loads(json.dumps(found)), run)


def _warnings(counts: dict[str, dict[str, int]]) -> list[str]:
    """What a reader must know about the sets before reading their figures."""
    found = [
        f"only {numbers['all']} {name} clips: figures of fewer than {FEW} are hardly more than a direction"
        for name, numbers in counts.items()
        if numbers["all"] < FEW
    ]
    if "real" in counts:
        lacking = [cls for cls, number in counts["real"].items() if not number and counts["synthetic"][cls]]
        found += [
            f"no real clip of class {cls}: its synthetic clips are compared with nothing" for cls in lacking
        ]
    return found


def _other_sizes(sets: Mapping[str, ClipSet]) -> list[str]:
    """What cannot be compared where synthetic and real clips have frames of different size."""
    sizes = {name: " x ".join(map(str, group.size[::-1])) for name, group in sets.items() if group.size}
    if len(set(sizes.values())) < 2:
        return []
    found = ", ".join(f"{name} ones of {size}" for name, size in sizes.items())
    return [
        f"clips have frames of different size ({found}): their latents and motion fields are not compared, and other "
        "figures may differ by the size alone"
    ]


def _doubtful_control(settings: EvaluationSettings, metrics: Sequence[str]) -> list[str]:
    """What to think of class control, by what its classifier has seen and hardly knows."""
    return doubts(settings.classifier) if settings.classifier and "class_control" in metrics else []


def write(result: Evaluation, output: Path) -> None:
    """Writes evaluation.json to ``output``, and .md, .png and _distances.png beside it."""
    write_json(output, result.found)
    write_text(output.with_suffix(".md"), markdown(result.found))
    for metric, picture, draw in (
        ("memorisation", output.with_suffix(".png"), draw_closest),
        ("privacy", output.with_name(f"{output.stem}_distances.png"), draw_distances),
    ):
        picture.unlink(missing_ok=True)  # an earlier evaluation's would stand beside these figures
        if any((result.found["metrics"].get(metric) or {}).values()):
            draw(picture, result.run)
