"""One classifier run from clips on disk to a folder with weights and figures."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from augment.classifiers import clip_items, metrics, run_report
from augment.classifiers.checkpoint import probabilities, save
from augment.classifiers.clip_items import ClipReader, Item
from augment.classifiers.model import Classifier, build
from augment.classifiers.train import STATE, Fit, FitSettings, Paradigm, Progress, plan_stages, predict
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import write_text
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.plain_data import read_json, write_json, write_jsonl

CHECKPOINT, METRICS, SETTINGS = "classifier.pth", "metrics.json", "settings.json"
PUBLISHED = (CHECKPOINT, METRICS, "metrics.md", "confusion_matrix.png", "curves.png", "predictions.csv")


@dataclass(frozen=True)
class RunSettings:
    """A run's settings; together with the clips they fix its result.

    Attributes:
        classifier: a name or the path of an mmaction2 config.
        paradigm: ``baseline``, ``joint`` or ``pretrain_finetune``.
        synthetic_dirs: folders of synthetic clips.
        synthetic_ratio: synthetic clips for each real one; None for all.
        epochs: of the only stage, or of the finetuning.
        pretrain_epochs: of the pretraining; None for ``epochs``.
        lr: learning rate; None for the classifier's own.
        finetune_lr: of the finetuning; None for a tenth of ``lr``.
        input_size: side of the frames, in pixels.
        num_frames: frames of a clip; None for the data set's.
        pretrained: a checkpoint to start from.
        validation_fraction: of each class's train patients.
        split_seed: of that choice; apart from ``fit.seed``, so that runs with different seeds are comparable.
        fit: see `FitSettings`.
    """

    classifier: str = "i3d"
    paradigm: Paradigm = "baseline"
    synthetic_dirs: tuple[str, ...] = ()
    synthetic_ratio: float | None = None
    epochs: int = 50
    pretrain_epochs: int | None = None
    lr: float | None = None
    finetune_lr: float | None = None
    input_size: int = 256
    num_frames: int | None = None
    pretrained: str | None = None
    validation_fraction: float = 0.2
    split_seed: int = 3407
    fit: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        for name in ("epochs", "pretrain_epochs", "lr", "finetune_lr", "input_size", "num_frames"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name} {value} is not positive", "Give a larger one")


@dataclass(frozen=True)
class Parts:
    """The clips of a run by their part; ``left_out`` counts synthetic clips of held-out patients."""

    train: list[Item]
    synthetic: list[Item]
    validation: list[Item]
    test: list[Item]
    left_out: int
    strangers: list[str]


def gather(spec: DatasetSpec, home: Path, settings: RunSettings) -> Parts:
    """Finds all clips and keeps patients apart; see `augment.classifiers.clip_items` for what is refused."""
    real, test = clip_items.real_items(spec, home, "train"), clip_items.real_items(spec, home, "test")
    clip_items.refuse_test_patients(real, test)
    train, validation = clip_items.hold_out(real, settings.validation_fraction, settings.split_seed)
    found, strangers = clip_items.synthetic_items(settings.synthetic_dirs, spec, test)
    # a clip made from a validation patient's conditions resembles him: the best epoch would be chosen on a look-alike
    held = {item.patient for item in validation}
    synthetic = [item for item in found if item.patient not in held]
    left_out = len(found) - len(synthetic)
    synthetic = clip_items.take_ratio(synthetic, len(train), settings.synthetic_ratio, settings.fit.seed)
    return Parts(train, synthetic, validation, test, left_out, strangers)


def train_and_test(
    spec: DatasetSpec,
    home: Path,
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
        home: its folder.
        settings: see `RunSettings`.
        folder: the run folder.
        device: ``cpu`` or ``cuda:N``.
        cache_gb: decoded clips kept in memory, in gigabytes.
        threads: that read and augment clips.
        fresh: start over.

    Returns:
        the content of ``metrics.json``.

    Raises:
        UserError: bad input, or the folder belongs to a run with other settings.
    """
    with exclusive(folder):
        if fresh:
            for name in (*PUBLISHED, STATE, SETTINGS, "stats.jsonl"):
                (folder / name).unlink(missing_ok=True)
        claim_folder(
            folder,
            {"data_name": spec.data_name, **dataclasses.asdict(settings)},
            name=SETTINGS,
            pattern=(STATE, METRICS, CHECKPOINT),
            remedy="Choose another --output_dir, or give --fresh",
        )
        if (folder / METRICS).is_file() and (folder / CHECKPOINT).is_file():
            return {**read_json(folder / METRICS), "was_there": True}
        started = time.monotonic()
        parts = gather(spec, home, settings)
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
        "strangers": parts.strangers,
    }
    for name, items in (("validation", parts.validation), ("test", parts.test)):
        if not items:
            continue
        labels, logits = predict(model, ClipReader(items, **reader), device, settings.fit.batch_size)
        chances, patients = probabilities(logits), [item.patient for item in items]
        result[name] = metrics.both_levels(labels, chances, spec.classes, patients)
        if name == "test":
            run_report.write_predictions(folder / "predictions.csv", items, chances, spec.classes)
    title = f"{settings.classifier} on {spec.data_name}, {settings.paradigm}, seed {settings.fit.seed}: test split"
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
        line += f"; {parts.left_out} synthetic clips of held-out patients left out"
    return line
