"""train_classifier.py's flags, which reproduce.sh passes on too, and the settings they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from augment.classifiers.settings import (
    AUGMENTATIONS,
    MIXINGS,
    PARADIGMS,
    FitSettings,
    RunSettings,
)
from augment.classifiers.zoo import known
from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.arguments import (
    fraction,
    number_from_0,
    picture_side,
    positive_int,
    positive_number,
    seed_number,
    whole_number,
)
from ctrlgenaug.datasets import DatasetSpec


def class_counts(text: str) -> dict[str, int]:
    """``CT-0=30,CT-1=6`` as a dictionary; for argparse."""
    try:
        pairs = [(cls.strip(), int(count)) for cls, count in (item.split("=") for item in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form CLASS=NUMBER,...") from None
    if len(dict(pairs)) < len(pairs) or min(count for _, count in pairs) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} names a class twice, or fewer than 1")
    return dict(pairs)


def add_clips(parser: argparse.ArgumentParser) -> None:
    """Which clips are learned from."""
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--paradigm",
        choices=PARADIGMS,
        default="baseline",
        help="real clips; real and synthetic mixed; synthetic first, then real; synthetic first, then only the "
        "classifying layer on real; synthetic alone (default: baseline)",
    )
    group.add_argument(
        "--synthetic_dir", nargs="+", default=[], help="folders of generated or filtered clips"
    )
    group.add_argument(
        "--synthetic_ratio", type=positive_number, help="synthetic clips for each real one (default: all)"
    )
    group.add_argument(
        "--synthetic_weight", type=positive_number, default=1.0,
        help="of a synthetic clip in the loss; a real one counts 1 (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--patients", type=class_counts, default={}, metavar="CLASS=N,...",
        help="learn from the first N patients of a class (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--validation_fraction",
        type=fraction,
        default=0.2,
        help="of each class's train patients, to choose the epoch on; 0 keeps the last epoch (default: 0.2)",
    )
    group.add_argument("--split_seed", type=seed_number, default=3407, help="of that choice (default: 3407)")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which classifier, and what it sees."""
    group = parser.add_argument_group("classifier")
    group.add_argument(
        "--classifier", default="i3d", help=f"{', '.join(known())}, or an mmaction2 config .py (default: i3d)"
    )
    group.add_argument("--pretrained", help="checkpoint to start from, e.g. of Kinetics (default: none)")
    group.add_argument(
        "--input_size", type=picture_side, default=256, help="side of the frames in pixels (default: 256)"
    )
    group.add_argument("--num_frames", type=positive_int, help="frames of a clip (default: the data set's)")


def add_training(parser: argparse.ArgumentParser) -> None:
    """How long and how fast it learns."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, default=50, help="(default: 50)")
    group.add_argument(
        "--pretrain_epochs", type=positive_int, help="of the first of two parts (default: as --epochs)"
    )
    group.add_argument(
        "--steps", type=positive_int,
        help="gradient steps in all, in place of epochs: the same for any number of clips; two parts get half each",
    )  # fmt: skip
    group.add_argument(
        "--steps_per_validation",
        type=positive_int,
        help="with --steps (default: a twentieth of a part's steps)",
    )
    group.add_argument("--max_steps", type=positive_int, help="stops each part after so many steps")
    group.add_argument("--batch_size", type=positive_int, default=8, help="(default: 8)")
    group.add_argument(
        "--lr", type=positive_number, help="(default: 3e-4 convolutional, 1e-4 transformers, 3e-3 tiny)"
    )
    group.add_argument(
        "--finetune_lr",
        type=positive_number,
        help="of pretrain_finetune's second part (default: a tenth of --lr)",
    )
    group.add_argument("--weight_decay", type=number_from_0, default=1e-2, help="(default: 0.01)")
    group.add_argument(
        "--patience", type=whole_number, default=15,
        help="epochs without improvement; 0, or --steps: never stop (default: 15)",
    )  # fmt: skip
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(default: fp32)")
    group.add_argument(
        "--seed", type=seed_number, default=3407, help="of weights, order and augmentation (default: 3407)"
    )


def add_remedies(parser: argparse.ArgumentParser) -> None:
    """What one does against few clips and rare classes."""
    group = parser.add_argument_group("against few clips and rare classes")
    group.add_argument(
        "--balanced_sampling", "--oversampling", action="store_true", help="draw each class equally often"
    )
    group.add_argument("--class_weights", action="store_true", help="weight the loss against class frequency")
    group.add_argument(
        "--focal_gamma",
        type=number_from_0,
        default=0.0,
        help="focal loss; 2 is usual (default: 0, cross-entropy)",
    )
    group.add_argument("--label_smoothing", type=fraction, default=0.0, help="(default: 0)")
    group.add_argument(
        "--mixing", choices=MIXINGS, default="none", help="clips of a batch with each other (default: none)"
    )
    group.add_argument(
        "--mixing_alpha",
        type=positive_number,
        help="of the mixed part's Beta distribution (default: mixup 0.2, others 1)",
    )
    group.add_argument(
        "--augmentation",
        choices=AUGMENTATIONS,
        default="builtin",
        help="builtin: flip, shift, zoom, grey curve, noise; or torchvision's TrivialAugmentWide or RandAugment, "
        "the same for all frames (default: builtin)",
    )
    group.add_argument(
        "--no_augmentation", dest="augmentation", action="store_const", const="none",
        help="the same as --augmentation none",
    )  # fmt: skip


def add_running(parser: argparse.ArgumentParser) -> None:
    """Device and memory."""
    group = parser.add_argument_group("running")
    group.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    group.add_argument(
        "--num_threads", type=positive_int, help="that read clips (default: the usable cores, at most 8)"
    )
    group.add_argument(
        "--cache_gb", type=number_from_0, default=4.0, help="decoded clips kept in memory (default: 4)"
    )


def add_all(parser: argparse.ArgumentParser) -> None:
    """All flags of a classifier's training."""
    for add_group in (add_clips, add_model, add_training, add_remedies, add_running):
        add_group(parser)


def real_home(spec: DatasetSpec, options: argparse.Namespace) -> tuple[Path | None, DatasetSpec]:
    """The folder of the real clips, and the data set; None where synthetic clips are all there is to learn from.

    A released synthetic set serves ``--paradigm synthetic_only`` alone; its names tell the classes where nothing else
    does.

    Raises:
        UserError: there is nothing to learn from.
    """
    home = spec.home_in(options.data_root)
    if options.paradigm == "synthetic_only" and not (home / spec.clips_dir).is_dir():
        names = sorted(name for folder in options.synthetic_dir for name in SynthesisFolder(folder).names())
        return None, spec.with_classes_of(names)
    spec.clips(home, "train")  # says so at once if there is nothing to learn from
    return home, spec


def run_settings(options: argparse.Namespace) -> RunSettings:
    """What the flags of `add_all` mean; a `UserError` names the first that makes no sense."""
    names = FitSettings.__dataclass_fields__
    fit = FitSettings(**{key: value for key, value in vars(options).items() if key in names})
    return RunSettings(
        classifier=options.classifier,
        paradigm=options.paradigm,
        synthetic_dirs=tuple(options.synthetic_dir),
        synthetic_ratio=options.synthetic_ratio,
        patients=options.patients,
        epochs=options.epochs,
        pretrain_epochs=options.pretrain_epochs,
        lr=options.lr,
        finetune_lr=options.finetune_lr,
        input_size=options.input_size,
        num_frames=options.num_frames,
        pretrained=options.pretrained,
        validation_fraction=options.validation_fraction,
        split_seed=options.split_seed,
        fit=fit,
    )


def without_effect(options: argparse.Namespace) -> list[str]:
    """Flags of `add_all` that were given and change nothing beside the others, each with what it needs."""
    two_parts = options.paradigm in ("pretrain_finetune", "linear_probe")
    uses = {
        "mixing_alpha": (options.mixing != "none", "--mixing"),
        "steps_per_validation": (options.steps is not None, "--steps"),
        "pretrain_epochs": (two_parts and options.steps is None, "two parts that are counted in epochs"),
        "finetune_lr": (options.paradigm == "pretrain_finetune", "--paradigm pretrain_finetune"),
        "synthetic_ratio": (bool(options.synthetic_dir), "--synthetic_dir"),
    }
    return [
        f"--{name} changes nothing without {needed}"
        for name, (used, needed) in uses.items()
        if getattr(options, name) is not None and not used
    ]


def running(options: argparse.Namespace) -> dict[str, Any]:
    """What changes no result: keyword arguments of `augment.classifiers.training_run.train_and_test`."""
    from ctrlgenaug.devices import pick_device
    from ctrlgenaug.processes import default_workers

    return {
        "device": pick_device(options.device),
        "cache_gb": options.cache_gb,
        "threads": options.num_threads or default_workers(),
    }
