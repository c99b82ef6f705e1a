"""Runs the arms one after the other, and reads back what they predicted.

A folder holds ``{classifier}/{arm}/seed_{n}/``, each a run folder of train_classifier.py, and ``results.jsonl``, a line
a run with the probabilities of its test patients, from which alone the table is made.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augment.classifiers.clip_items import keep_patients, real_items, synthetic_items
from augment.classifiers.metrics import by_patient
from augment.classifiers.settings import RunSettings
from augment.classifiers.training_run import METRICS, SETTINGS, train_and_test
from augment.comparison.arms import (
    BASELINE,
    BEST_RIVAL,
    BY_NAME,
    RIVAL_FIELDS,
    Arm,
    differences,
    in_common,
    rare_class,
    settings_of,
)
from augment.comparison.class_agreement import read_agreement, write_agreement
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json, write_jsonl

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        spec: the data set.
        home: its folder.
        base: settings that all arms share.
        classifiers: names, or mmaction2 configs, whose runs are in the folder called as the file.
        seeds: of the trainings.
        arms: of `augment.comparison.arms`.
        folders: synthetic clips by filter level, of one generator or of several: the training of seed s takes those of
            number s modulo how many there are, so that the spread over seeds is that of the generators, too.
        output: where the runs go.
    """

    spec: DatasetSpec
    home: Path
    base: RunSettings
    classifiers: Sequence[str]
    seeds: Sequence[int]
    arms: Sequence[Arm]
    folders: Mapping[str, Sequence[Path]]
    output: Path

    def clips_for(self, seed: int) -> dict[str, Path]:
        """The synthetic clips of the training of ``seed``, by filter level."""
        return {level: folders[seed % len(folders)] for level, folders in self.folders.items()}

    def folder(self, classifier: str) -> Path:
        """Where the runs of a classifier go."""
        return self.output / (Path(classifier).stem if classifier.endswith(".py") else classifier)


def check_clips(plan: Plan) -> None:
    """Looks for the clips of all arms, so that what is missing is found before hours of training.

    Raises:
        UserError: real clips, a class, patients or a folder of synthetic clips that is not there or not to be used.
    """
    real, test = (real_items(plan.spec, plan.home, split) for split in ("train", "test"))
    keep_patients(real, {plan.spec.class_id(cls): number for cls, number in plan.base.patients.items()})
    for folder in dict.fromkeys(folder for folders in plan.folders.values() for folder in folders):
        synthetic_items([folder], plan.spec, test)


def check_earlier(plan: Plan) -> None:
    """Compares the runs that are there with what is to be run: one table holds one setting.

    Raises:
        UserError: the output has runs of another setting, or damaged ones.
    """
    now = in_common(BY_NAME[BASELINE], plan.spec.data_name, dataclasses.asdict(plan.base))
    names = {plan.folder(classifier).name for classifier in plan.classifiers}
    for row in collect(plan.output, may_be_empty=True):
        if row["classifier"] in names and (found := differences(row["in_common"], now)):
            raise UserError(
                f"holds runs of another setting ({row['arm']}, seed {row['seed']}; there and now: {found})",
                "Choose another --output, or delete those runs",
                plan.output,
            )


def run_all(plan: Plan, running: Mapping[str, Any]) -> list[str]:
    """Runs what is not finished yet, the arm that needs the best rival last; returns what could not be run, and why.

    Args:
        plan: what to run.
        running: device, memory and threads, for `train_and_test`.
    """
    failed = []
    for last in (False, True):
        for classifier in plan.classifiers:
            for seed in plan.seeds:
                for arm in plan.arms:
                    if (arm.name == BEST_RIVAL) != last:
                        continue
                    try:
                        _run_one(plan, classifier, arm, seed, running)
                    except UserError as error:
                        failed.append(f"{classifier}, {arm.name}, seed {seed}: {error}")
                        print(f"warning: {failed[-1]}", file=sys.stderr, flush=True)
                    else:
                        write_jsonl(plan.output / RESULTS, collect(plan.output))
    return failed


def _run_one(plan: Plan, classifier: str, arm: Arm, seed: int, running: Mapping[str, Any]) -> None:
    print(f"== {classifier}, {arm.name}, seed {seed} ==", flush=True)
    rival = best_rival(plan.folder(classifier)) if arm.name == BEST_RIVAL else None
    if rival:
        print(f"best rival on validation clips: {rival.name}", flush=True)
    settings = settings_of(arm, plan.base, classifier, seed, plan.clips_for(seed), rival)
    folder = plan.folder(classifier) / arm.name / f"seed_{seed}"
    if rival and _had_another_rival(folder, settings):
        print("another rival was the best one when it was trained: it is trained anew", flush=True)
        running = {**running, "fresh": True}
    result = train_and_test(plan.spec, plan.home, settings, folder, **running)
    if result["skipped"]:
        print(
            f"warning: {len(result['skipped'])} files skipped, e.g. {result['skipped'][0]}", file=sys.stderr
        )
    if arm.name == BASELINE:
        write_agreement(plan.spec, plan.home, settings, folder, plan.clips_for(seed))
    found = result["test"]["patient"]["balanced_accuracy"]
    there = "was finished already" if result.get("was_there") else "is done"
    print(f"{folder} {there}: balanced accuracy {100 * found:.1f} %", flush=True)


def _had_another_rival(folder: Path, settings: RunSettings) -> bool:
    """Whether a run of the best rival is there that was begun when, of fewer seeds, another one was the best."""
    found = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    fit = found.get("fit") if isinstance(found, dict) else None
    now = dataclasses.asdict(settings.fit)
    return isinstance(fit, dict) and any(fit[name] != now[name] for name in RIVAL_FIELDS if name in fit)


def best_rival(folder: Path) -> Arm | None:
    """The rival with the best balanced accuracy, then AUC, on the held-out real clips, mean over its seeds.

    One that has run with fewer seeds than another is left out: its mean might be of the easier ones.
    """
    scores: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.glob(f"*/seed_*/{METRICS}")):
        arm = BY_NAME.get(path.parts[-3])
        found = read_json(path).get("validation")
        if arm is None or arm.group != "rival" or not found:
            continue
        patient = found["patient"]
        scores.setdefault(arm.name, []).append((patient["balanced_accuracy"], patient["auc"] or 0.0))
    if not scores:
        return None
    most = max(map(len, scores.values()))
    means = {
        name: tuple(np.mean(values, 0).round(9)) for name, values in scores.items() if len(values) == most
    }
    return BY_NAME[max(means, key=lambda name: means[name])]


def collect(folder: Path, *, may_be_empty: bool = False) -> list[dict[str, Any]]:
    """A row for each finished run in ``folder``: its settings, clips, and test patients with their probabilities.

    Raises:
        UserError: no finished run, or a run whose files are not as it wrote them.
    """
    rows = []
    for path in sorted(folder.glob(f"*/*/seed_*/{METRICS}")):
        seed = path.parent.name.removeprefix("seed_")
        if seed.isdigit():
            try:
                rows.append(_row(path.parent, read_json(path), int(seed)))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, FileNotFoundError):
                raise UserError(
                    "is not as the run wrote it", "Delete it and run the same command again", path.parent
                ) from None
    if not rows and not may_be_empty:
        raise UserError("holds no finished run", "Run reproduce.sh first", folder)
    return rows


def _row(run: Path, metrics: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """See `collect`; damaged files raise nearly anything."""
    classes = list(metrics["test"]["patient"]["per_class"])
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        clips = list(csv.DictReader(handle))
    labels = np.array([classes.index(clip["class"]) for clip in clips])
    probabilities = np.array([[float(clip[f"p_{cls}"]) for cls in classes] for clip in clips])
    owners = [clip["patient"] for clip in clips]
    tested = sum(metrics["clips"]["test"].values()) if "test" in metrics["clips"] else len(clips)
    if not np.isfinite(probabilities).all() or not 0 < len(clips) == tested:
        raise ValueError("other predictions than the run made")
    labels, probabilities, patients = by_patient(labels, probabilities, owners)
    settings = metrics["settings"]
    arm = run.parts[-2]
    row = {
        "data_name": metrics["data_name"],
        "classifier": run.parts[-3],
        "arm": arm,
        "seed": seed,
        "patients": settings.get("patients", {}),
        "rare_class": rare_class(settings.get("patients", {})),
        "in_common": in_common(BY_NAME[arm], metrics["data_name"], settings) if arm in BY_NAME else {},
        "classes": classes,
        "clips": metrics["clips"],
        "best_epoch": metrics["best_epoch"],
        "test": {
            "patients": patients,
            "labels": labels.tolist(),
            "probabilities": probabilities.tolist(),
        },
        "agreement": read_agreement(run),
    }
    if arm == BEST_RIVAL:
        row["changes"] = _changes(settings["fit"])
    return row


def _changes(fit: Mapping[str, Any]) -> dict[str, Any]:
    """What the best rival's settings are, told from the defaults."""
    names = {name for arm in BY_NAME.values() for name in arm.fit}
    default = dataclasses.asdict(RunSettings().fit)
    return {name: fit[name] for name in sorted(names) if fit[name] != default[name]}
