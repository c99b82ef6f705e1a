"""The arms of the comparison, declared in one table; everything else about them follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from augment.classifiers.settings import Paradigm, RunSettings
from ctrlgenaug import steps
from ctrlgenaug.errors import UserError

Level = Literal["none", "unfiltered", "semantic", "filtered"]
Group = Literal["real", "rival", "synthetic", "both", "transfer", "ceiling"]
BASELINE = "baseline"
BEST_RIVAL = "joint_filtered_best_rival"

GROUPS: dict[Group, str] = {
    "real": "real clips alone",
    "rival": "what a user would try first",
    "synthetic": "synthetic clips too",
    "both": "synthetic clips and the best rival",
    "transfer": "no real clip",
    "ceiling": "more real patients",
}
LEVELS: dict[Level, str] = {
    "unfiltered": "unfiltered",
    "semantic": "semantic filter",
    "filtered": "both filter levels",
}


@dataclass(frozen=True)
class Arm:
    """One way to train a classifier.

    Attributes:
        name: of its folder, and on the command line.
        title: in tables.
        group: see `GROUPS`.
        paradigm: see `augment.classifiers.stages.plan_stages`.
        level: which synthetic clips.
        times: how many times the rare class's patients.
        fit: what differs from the baseline's `FitSettings`.
    """

    name: str
    title: str
    group: Group
    paradigm: Paradigm = "baseline"
    level: Level = "none"
    times: int = 1
    fit: Mapping[str, Any] = field(default_factory=dict)


def _synthetic(paradigm: Paradigm, title: str, group: Group = "synthetic", **fit: Any) -> list[Arm]:
    """A paradigm with each filter level; names as ``joint``, ``joint_semantic``, ``joint_filtered``."""

    def name(level: Level) -> str:
        return paradigm if level == "unfiltered" else f"{paradigm}_{level}"

    return [
        Arm(name(level), f"{title}, {said}", group, paradigm, level, fit=fit)
        for level, said in LEVELS.items()
    ]


ARMS: tuple[Arm, ...] = (
    Arm(BASELINE, "real clips, built-in augmentation", "real"),
    Arm("no_augmentation", "real clips, no augmentation", "real", fit={"augmentation": "none"}),
    Arm("oversampled", "oversampled", "rival", fit={"balanced_sampling": True}),
    Arm("class_weights", "class weights", "rival", fit={"class_weights": True}),
    Arm("focal", "focal loss", "rival", fit={"focal_gamma": 2.0}),
    Arm("mixup", "mixup", "rival", fit={"mixing": "mixup"}),
    Arm("cutmix", "cutmix", "rival", fit={"mixing": "cutmix"}),
    Arm("videomix", "VideoMix", "rival", fit={"mixing": "videomix"}),
    Arm("trivialaugment", "TrivialAugment", "rival", fit={"augmentation": "trivialaugment"}),
    Arm("randaugment", "RandAugment", "rival", fit={"augmentation": "randaugment"}),
    *_synthetic("joint", "joint"),
    *_synthetic("pretrain_finetune", "pretrain, finetune"),
    *_synthetic("linear_probe", "pretrain, linear probe"),
    Arm(BEST_RIVAL, "joint, both filter levels, best rival", "both", "joint", "filtered"),
    *_synthetic("synthetic_only", "train on synthetic, test on real", "transfer"),
    Arm("real_x2", "real clips, 2 x the rare class's patients", "ceiling", times=2),
    Arm("real_x4", "real clips, 4 x the rare class's patients", "ceiling", times=4),
)
BY_NAME = {arm.name: arm for arm in ARMS}


def choose(words: Sequence[str]) -> list[Arm]:
    """Arms by name, group or ``all``, in the table's order; the baseline always.

    Raises:
        UserError: a word that is neither.
    """
    for word in words:
        if word not in BY_NAME and word not in GROUPS and word != "all":
            known = ", ".join([*GROUPS, "all", *BY_NAME])
            raise UserError(f"{word!r} is no arm", f"Known: {known}")
    return [arm for arm in ARMS if arm.name == BASELINE or {arm.name, arm.group, "all"} & set(words)]


def rare_class(patients: Mapping[str, int]) -> str | None:
    """The class with the fewest patients of those limited; None if no class is."""
    return min(patients, key=patients.__getitem__) if patients else None


def settings_of(
    arm: Arm,
    base: RunSettings,
    classifier: str,
    seed: int,
    folders: Mapping[str, Path],
    rival: Arm | None = None,
) -> RunSettings:
    """What ``arm`` means for one classifier and seed.

    Args:
        arm: of `ARMS`.
        base: what all arms share.
        classifier: its name.
        seed: of the training.
        folders: synthetic clips by level.
        rival: for `BEST_RIVAL`, the rival whose settings are added.

    Raises:
        UserError: the arm needs clips, a limit on the rare class, or a rival that is not there.
    """
    fit = {**(rival.fit if rival else {}), **arm.fit, "seed": seed}
    if arm.name == BEST_RIVAL and rival is None:
        raise UserError("no rival has run", "Give --arms rival too")
    if arm.level != "none" and arm.level not in folders:
        raise UserError(f"{arm.name} needs {LEVELS[arm.level]} clips", "Give their folder")
    patients, rare = dict(base.patients), rare_class(base.patients)
    if arm.times != 1:
        if rare is None:
            raise UserError(f"{arm.name} needs to know the rare class", "Give --patients CLASS=NUMBER")
        patients[rare] *= arm.times
    return dataclasses.replace(
        base,
        classifier=classifier,
        paradigm=arm.paradigm,
        synthetic_dirs=() if arm.level == "none" else (str(folders[arm.level]),),
        patients=patients,
        fit=dataclasses.replace(base.fit, **fit),
    )


RIVAL_FIELDS = frozenset(name for arm in ARMS if arm.group == "rival" for name in arm.fit)


def in_common(arm: Arm, data_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's settings that all runs of a classifier share: neither its seed nor its arm decides them.

    Args:
        arm: the run's.
        data_name: its data set.
        settings: `RunSettings` as a dictionary.
    """
    decided = {"seed", *(RIVAL_FIELDS if arm.name == BEST_RIVAL else arm.fit)}
    fit = {f"fit.{name}": value for name, value in settings["fit"].items() if name not in decided}
    by_arm = {"fit", "classifier", "paradigm", "synthetic_dirs"} | ({"patients"} if arm.times != 1 else set())
    return {"data_name": data_name, **fit} | {k: v for k, v in settings.items() if k not in by_arm}


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two runs' settings `in_common`, in words; what only one of them knows is left out."""
    return "; ".join(
        f"{name}: {value} and {other[name]}"
        for name, value in one.items()
        if name in other and other[name] != value
    )


def main() -> None:
    parser = steps.parser(
        "Lists the arms of the comparison.", "python -m augment.comparison.arms rival joint_semantic"
    )
    parser.add_argument(
        "arms", nargs="*", default=["all"], help=f"names, or groups: {', '.join(GROUPS)} (default: all)"
    )
    for arm in choose(parser.parse_args().arms):
        print(f"{arm.name:28}{arm.group:11}{arm.title}")


if __name__ == "__main__":
    steps.run(main)
