"""What a classifier run is told: how it is fitted, from which clips, for how long. Checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json

Paradigm = Literal["baseline", "joint", "pretrain_finetune", "linear_probe", "synthetic_only"]
AugmentationName = Literal["builtin", "none", "trivialaugment", "randaugment"]
MixingName = Literal["none", "mixup", "cutmix", "videomix"]
PARADIGMS: tuple[Paradigm, ...] = get_args(Paradigm)
AUGMENTATIONS: tuple[AugmentationName, ...] = get_args(AugmentationName)
MIXINGS: tuple[MixingName, ...] = get_args(MixingName)
LARGEST_SEED = 2**32 - 1  # what every library here accepts
SMALLEST_ALPHA = 1e-3  # a Beta distribution of less has no numbers, and mixes nothing long before
SMALLEST_SIDE = 16  # pixels; the recognisers halve their maps four or five times
VALIDATIONS = 20  # of a run whose length is given in steps


def check_range(
    name: str, value: float | None, low: float, high: float = math.inf, *, above: bool = False
) -> None:
    """Refuses a flag's value that is not a number of [low, high], or of (low, high] with ``above``; None passes."""
    if value is None:
        return
    if not math.isfinite(value) or value < low or value > high or (above and value == low):
        limits = f"{'above' if above else 'at least'} {low:g}"
        limits += f" and at most {high:g}" if math.isfinite(high) else ""
        raise UserError(f"--{name} {value} is out of range", f"Give a number {limits}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"--{name} {value} is not known", f"Known: {', '.join(known)}")


@dataclass(frozen=True)
class FitSettings:
    """How a classifier is fitted.

    Attributes:
        batch_size: clips of a step.
        weight_decay: AdamW's.
        warmup: part of a stage's steps over which the learning rate rises from 0; then it falls as a cosine.
        clip_norm: largest norm of the gradient.
        patience: epochs without a better validation before a stage stops; 0 never stops early.
        balanced_sampling: draw each class equally often, with replacement: oversampling of the rare ones.
        class_weights: weight the loss by the inverse of the class's frequency.
        focal_gamma: focusing parameter of the focal loss; 0 is cross-entropy.
        label_smoothing: of the targets.
        mixing: how clips of a batch are mixed, see `augment.classifiers.mixing`.
        mixing_alpha: of the Beta distribution of the mixed part; None for the method's usual one.
        synthetic_weight: of a synthetic clip's loss, where a real clip's counts 1.
        augmentation: ``builtin`` (see `augment.classifiers.clips.Augmentation`), ``none``, or torchvision's
            TrivialAugmentWide or RandAugment, the same for all frames of a clip.
        precision: ``fp32`` or ``bf16`` (autocast).
        seed: of weights, order, dropout and augmentation.
        max_steps: stops a stage after so many steps; None for no limit.
        steps: gradient steps of all stages together, whatever the number of clips; None: as many as the epochs have.
        steps_per_validation: how often a run of ``steps`` is validated; None for `VALIDATIONS` times a stage.
    """

    batch_size: int = 8
    weight_decay: float = 1e-2
    warmup: float = 0.05
    clip_norm: float = 1.0
    patience: int = 15
    balanced_sampling: bool = False
    class_weights: bool = False
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0
    mixing: MixingName = "none"
    mixing_alpha: float | None = None
    synthetic_weight: float = 1.0
    augmentation: AugmentationName = "builtin"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 3407
    max_steps: int | None = None
    steps: int | None = None
    steps_per_validation: int | None = None

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 1)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("warmup", self.warmup, 0, 1)
        check_range("clip_norm", self.clip_norm, 0, above=True)
        check_range("patience", self.patience, 0)
        check_range("focal_gamma", self.focal_gamma, 0)
        check_range("label_smoothing", self.label_smoothing, 0, 1)
        check_range("mixing_alpha", self.mixing_alpha, SMALLEST_ALPHA)
        check_range("synthetic_weight", self.synthetic_weight, 0, above=True)
        check_range("seed", self.seed, 0, LARGEST_SEED)
        for name in ("max_steps", "steps", "steps_per_validation"):
            check_range(name, getattr(self, name), 1)
        _check_choice("mixing", self.mixing, MIXINGS)
        _check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        if self.steps is not None and self.max_steps is not None:
            raise UserError("--steps and --max_steps contradict each other", "Give one of them")


@dataclass(frozen=True)
class RunSettings:
    """A run's settings; together with the clips they fix its result.

    Attributes:
        classifier: a name or the path of an mmaction2 config.
        paradigm: see `augment.classifiers.stages.plan_stages`.
        synthetic_dirs: folders of synthetic clips.
        synthetic_ratio: synthetic clips for each real one; None for all.
        patients: class name to number: learn from the first so many patients of a class; other classes whole.
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
    patients: Mapping[str, int] = field(default_factory=dict)
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
        _check_choice("paradigm", self.paradigm, PARADIGMS)
        check_range("epochs", self.epochs, 1)
        check_range("pretrain_epochs", self.pretrain_epochs, 1)
        check_range("lr", self.lr, 0, above=True)
        check_range("finetune_lr", self.finetune_lr, 0, above=True)
        check_range("input_size", self.input_size, SMALLEST_SIDE)
        check_range("num_frames", self.num_frames, 1)
        check_range("synthetic_ratio", self.synthetic_ratio, 0)
        check_range("split_seed", self.split_seed, 0, LARGEST_SEED)
        for cls, number in self.patients.items():
            check_range(f"patients {cls}=", number, 1)
        if not 0 <= self.validation_fraction < 1:
            raise UserError(
                f"--validation_fraction {self.validation_fraction} is not in [0, 1)", "Use e.g. 0.2"
            )


def noted(settings: RunSettings, data_name: str = "") -> dict[str, Any]:
    """What a run folder notes of its settings, so that no other run is continued in it."""
    patients = ",".join(f"{cls}={number}" for cls, number in sorted(settings.patients.items()))
    return {"data_name": data_name, **dataclasses.asdict(settings), "patients": patients}


def noted_before(path: Path) -> dict[str, Any]:
    """What folders of before an option existed were run with: its default, or what its former name says."""
    defaults = noted(RunSettings())
    found = read_json(path) if path.is_file() else {}
    fit = found.get("fit") if isinstance(found, dict) else None
    if isinstance(fit, dict) and fit.get("augment") is False:
        defaults["fit"]["augmentation"] = "none"
    return defaults
