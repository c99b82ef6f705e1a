"""One classifier run from clips on disk to a folder with weights and figures."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from augment.classifiers import clip_items, metrics, run_report
from augment.classifiers.checkpoint import probabilities, save
from augment.classifiers.clip_items import ClipReader, Item
from augment.classifiers.model import Classifier, build
from augment.classifiers.settings import RunSettings, noted, noted_before
from augment.classifiers.stages import plan_stages
from augment.classifiers.train import STATE, Fit, Progress, predict
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint, write_text
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.plain_data import read_json, write_json, write_jsonl

CHECKPOINT, METRICS, SETTINGS = "classifier.pth", "metrics.json", "settings.json"
TEST_FRACTION = 0.2  # of the sources, where there is no real test split and no other fraction is asked for
PUBLISHED = (CHECKPOINT, METRICS, "metrics.md", "confusion_matrix.png", "curves.png", "predictions.csv")


@dataclass(frozen=True)
class Parts:
    """The clips of a run by their part.

    Attributes:
        train: real clips to learn from.
        synthetic: synthetic clips to learn from.
        validation: real clips to choose the epoch on.
        test: real clips of the test split.
        left_out: how many synthetic clips were made from the conditions of patients who are not learned from.
        skipped: files among the synthetic clips that are none, or do not decode.
        tested_on: what ``test`` is, in words.
    """

    train: list[Item]
    synthetic: list[Item]
    validation: list[Item]
    test: list[Item]
    left_out: int
    skipped: list[str]
    tested_on: str = "the test split"


def gather(spec: DatasetSpec, home: Path | None, settings: RunSettings, threads: int = 2) -> Parts:
    """Finds all clips and keeps patients apart; see `augment.classifiers.clip_items` for what is refused."""
    if home is None:
        return _gather_synthetic(spec, settings, threads)
    real, test = clip_items.real_items(spec, home, "train"), clip_items.real_items(spec, home, "test")
    clip_items.refuse_test_patients(real, test)
    everyone = {(item.patient, item.label) for item in real}
    numbers = {spec.class_id(cls): number for cls, number in settings.patients.items()}
    real = clip_items.keep_patients(real, numbers)
    train, validation = clip_items.hold_out(real, settings.validation_fraction, settings.split_seed)
    found, skipped = clip_items.synthetic_items(settings.synthetic_dirs, spec, test)
    # a clip made from a validation patient's conditions resembles him: the best epoch would be chosen on a look-alike;
    # one made from a patient whom --patients leaves out would bring him back
    # in the class that it leaves him out of, though he may be learned from in another
    seen = {(item.patient, item.label) for item in train}
    patients = {patient for patient, _ in everyone} - {patient for patient, _ in seen}
    synthetic = [
        item
        for item in found
        if item.patient not in patients and (item.patient, item.label) not in everyone - seen
    ]
    left_out = len(found) - len(synthetic)
    synthetic, unreadable = clip_items.readable(synthetic, threads)
    synthetic = clip_items.take_ratio(synthetic, len(train), settings.synthetic_ratio, settings.fit.seed)
    if found and not synthetic:
        ratio = (
            "" if settings.synthetic_ratio is None else f", --synthetic_ratio {settings.synthetic_ratio:g}"
        )
        raise UserError(
            f"none of the {len(found)} synthetic clips is left to learn from ({left_out} were made from patients who "
            f"are not learned from, {len(unreadable)} cannot be read{ratio})",
            "Generate clips from the patients that are learned from, or change --patients or --synthetic_ratio",
        )
    return Parts(train, synthetic, validation, test, left_out, [*skipped, *unreadable])


def _gather_synthetic(spec: DatasetSpec, settings: RunSettings, threads: int) -> Parts:
    """The parts where there are no real clips: the epoch is chosen, and the classifier tested, on synthetic clips of
    sources that are not learned from."""
    found, skipped = clip_items.synthetic_items(settings.synthetic_dirs, spec)
    found, unreadable = clip_items.readable(found, threads)
    held = settings.validation_fraction or TEST_FRACTION
    rest, test = clip_items.hold_out(found, held, settings.split_seed + 1)
    learned, validation = clip_items.hold_out(rest, settings.validation_fraction, settings.split_seed)
    names = [*skipped, *unreadable]
    return Parts([], learned, validation, test, 0, names, "synthetic clips of held-out sources")


def train_and_test(
    spec: DatasetSpec,
    home: Path | None,
    settings: RunSettings,
    folder: Path,
    *,
    device: str = "cpu",
    cache_gb: float = 4.0,
    threads: int = 2,
    fresh: bool = False,
) -> dict[str, Any]:
    """Trains on the train split, chooses the epoch on its held-out patients, tests once on the test split.

    A finished folder is returned as it is; an unfinished one is continued after its last whole epoch.

    Args:
        spec: the data set.
        home: its folder; None where only synthetic clips are there, for the paradigm ``synthetic_only``.
        settings: see `RunSettings`.
        folder: the run folder.
        device: ``cpu`` or ``cuda:N``.
        cache_gb: decoded clips kept in memory, in gigabytes.
        threads: that read and augment clips.
        fresh: start over.

    Returns:
        the content of ``metrics.json``.

    Raises:
        UserError: bad input, or the folder belongs to a run with other settings or other clips.
    """
    with exclusive(folder):
        if fresh:
            for name in (*PUBLISHED, STATE, SETTINGS, "stats.jsonl"):
                (folder / name).unlink(missing_ok=True)
        finished = (folder / METRICS).is_file() and (folder / CHECKPOINT).is_file()
        clips = _clips(spec, home, settings, may_be_gone=finished)
        claim_folder(
            folder,
            noted(settings, spec.data_name) | clips,
            name=SETTINGS,
            pattern=(STATE, METRICS, CHECKPOINT),
            before=noted_before(folder / SETTINGS) | clips,
            remedy="Choose another output folder, or delete this one (train_classifier.py --fresh)",
        )
        if finished:
            found = read_json(folder / METRICS)
            return {"skipped": found.get("strangers", []), **found, "was_there": True}  # its former name
        started = time.monotonic()
        parts = gather(spec, home, settings, threads)
        torch.manual_seed(settings.fit.seed)
        frames = settings.num_frames or spec.required_clip_num
        model = build(
            settings.classifier,
            len(spec.classes),
            settings.input_size,
            settings.pretrained,
            num_frames=frames,
        ).to(device)
        reader = {
            "input_size": settings.input_size,
            "num_frames": frames,
            "cache_gb": cache_gb / 2,  # one reader to learn from, one to choose or test on
            "threads": threads,
        }
        progress = _fit(model, spec, parts, settings, folder, reader)
        result = _test(model, spec, parts, settings, folder, reader, device)
        result |= {"best_epoch": progress.best_epoch, "seconds": round(time.monotonic() - started, 1)}
        result |= {"epochs": len(progress.rows), "device": device, "settings": dataclasses.asdict(settings)}
        save(
            folder / CHECKPOINT,
            model,
            settings.classifier,
            spec.classes,
            spec.data_name,
            {**dataclasses.asdict(settings), "synthetic_dirs": list(settings.synthetic_dirs)},
        )
        write_json(folder / METRICS, result)  # last: it says that all the rest is there
        (folder / STATE).unlink(missing_ok=True)
    return result


def _clips(
    spec: DatasetSpec, home: Path | None, settings: RunSettings, *, may_be_gone: bool
) -> dict[str, str]:
    """What a run folder notes of what it learns from, so that it is not taken for one of others under the same path:
    how many files and a digest of their names and sizes; their classes and splits; the weights that it starts from.
    Nothing if ``may_be_gone`` and they are."""
    try:
        parts = {"synthetic": clip_items.synthetic_items(settings.synthetic_dirs, spec)[0]}
        if home is not None:
            parts |= {split: clip_items.real_items(spec, home, split) for split in ("train", "test")}
        start = {"pretrained weights": fingerprint([settings.pretrained])} if settings.pretrained else {}
        if settings.classifier.endswith(".py"):
            start["classifier's config"] = fingerprint([settings.classifier])
    except UserError:
        if may_be_gone:
            return {}
        raise
    kinds = {"synthetic": parts["synthetic"], "real": [*parts.get("train", ()), *parts.get("test", ())]}
    found = {f"{kind} clips": clip_items.digest(items) for kind, items in kinds.items() if items}
    return found | {"clips by class": clip_items.label_digest(parts, spec.classes)} | start


def _fit(
    model: Classifier,
    spec: DatasetSpec,
    parts: Parts,
    settings: RunSettings,
    folder: Path,
    reader: dict[str, Any],
) -> Progress:
    lr = settings.lr if settings.lr is not None else model.lr
    stages = plan_stages(
        settings.paradigm,
        parts.train,
        parts.synthetic,
        epochs=settings.epochs,
        pretrain_epochs=settings.pretrain_epochs or settings.epochs,
        lr=lr,
        finetune_lr=settings.finetune_lr if settings.finetune_lr is not None else lr / 10,
        steps=settings.fit.steps,
    )
    print(_counts_line(spec, parts), flush=True)

    def show(row: dict[str, Any]) -> None:
        checked = ""
        if "validation_loss" in row:
            checked = (
                f", validation loss {row['validation_loss']:.4f}, "
                f"balanced accuracy {100 * row['validation_balanced_accuracy']:.1f} %"
            )
        print(
            f"{row['stage']} epoch {row['epoch']}: loss {row['loss']:.4f}{checked}, "
            f"{row['clips_per_second']:.1f} clips/s",
            flush=True,
        )

    fit = Fit(model, stages, parts.validation, len(spec.classes), settings.fit, folder, reader, show)
    progress = fit.run()
    write_jsonl(folder / "stats.jsonl", progress.rows)
    run_report.draw_curves(folder / "curves.png", progress.rows)
    return progress


def _test(
    model: Classifier,
    spec: DatasetSpec,
    parts: Parts,
    settings: RunSettings,
    folder: Path,
    reader: dict[str, Any],
    device: str,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "data_name": spec.data_name,
        "classifier": settings.classifier,
        "paradigm": settings.paradigm,
        "seed": settings.fit.seed,
        "clips": {
            name: _by_class(spec, items)
            for name, items in (
                ("train", parts.train),
                ("synthetic", parts.synthetic),
                ("validation", parts.validation),
                ("test", parts.test),
            )
        },
        "synthetic_left_out": parts.left_out,
        "skipped": parts.skipped,
        "tested_on": parts.tested_on,
    }
    for name, items in (("validation", parts.validation), ("test", parts.test)):
        if not items:
            continue
        labels, logits = predict(model, ClipReader(items, **reader), device, settings.fit.batch_size)
        found, patients = probabilities(logits), [item.patient for item in items]
        result[name] = metrics.both_levels(labels, found, spec.classes, patients)
        if name == "test":
            run_report.write_predictions(folder / "predictions.csv", items, found, spec.classes)
    run = f"{settings.classifier} on {spec.data_name}, {settings.paradigm}, seed {settings.fit.seed}"
    title = f"{run}: {parts.tested_on}"
    write_text(folder / "metrics.md", run_report.markdown(result["test"], title))
    run_report.draw_confusion(folder / "confusion_matrix.png", result["test"], spec.classes)
    return result


def _by_class(spec: DatasetSpec, items: Sequence[Item]) -> dict[str, int]:
    counted = Counter(item.label for item in items)
    return {cls: counted[label] for label, cls in enumerate(spec.classes)}


def _counts_line(spec: DatasetSpec, parts: Parts) -> str:
    def count(items: Sequence[Item]) -> str:
        return f"{len(items)} ({'/'.join(str(number) for number in _by_class(spec, items).values())})"

    line = f"clips by class {'/'.join(spec.classes)}: {count(parts.train)} to learn from"
    if parts.synthetic:
        line += f" and {count(parts.synthetic)} synthetic"
    line += f", {count(parts.validation)} to choose the epoch on, {count(parts.test)} to test on"
    if parts.left_out:
        line += f"; {parts.left_out} synthetic clips of patients not learned from left out"
    return line
