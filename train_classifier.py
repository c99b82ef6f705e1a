"""Trains a sequence classifier on real clips, with or without synthetic ones, and tests it on the test split.

The best epoch is chosen on patients held out of the train split, never on the test split. The same command again
continues where it stopped, and does nothing when the run is finished.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctrlgenaug import datasets, steps
from ctrlgenaug.arguments import (
    fraction,
    number_from_0,
    picture_side,
    positive_int,
    positive_number,
    seed_number,
    whole_number,
)

EXAMPLE = """python train_classifier.py --data_name MosMed --classifier i3d --paradigm joint \\
      --synthetic_dir MosMed_filtered --output_dir classifier_MosMed_joint

Writes classifier.pth, metrics.json, metrics.md, confusion_matrix.png, curves.png, predictions.csv and stats.jsonl into
--output_dir. docs/classifiers.md says what each paradigm and figure means."""

CLASSIFIERS = "i3d, slowfast, r2plus1d, tpn, csn, swin, timesformer, uniformerv2, slowonly, x3d, mvit, tiny"


def add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    datasets.add_data_options(group)
    group.add_argument(
        "--data_root", default=".", help="folder that holds the data set's folder (default: .)"
    )
    group.add_argument(
        "--paradigm",
        choices=("baseline", "joint", "pretrain_finetune"),
        default="baseline",
        help="real clips; real and synthetic mixed; synthetic first, then real (default: baseline)",
    )
    group.add_argument(
        "--synthetic_dir", nargs="+", default=[], help="folders of generated or filtered clips"
    )
    group.add_argument(
        "--synthetic_ratio", type=positive_number, help="synthetic clips for each real one (default: all)"
    )
    group.add_argument(
        "--validation_fraction",
        type=fraction,
        default=0.2,
        help="of each class's train patients, to choose the epoch on; 0 keeps the last epoch (default: 0.2)",
    )
    group.add_argument("--split_seed", type=seed_number, default=3407, help="of that choice (default: 3407)")


def add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("classifier")
    group.add_argument(
        "--classifier", default="i3d", help=f"{CLASSIFIERS}, or an mmaction2 config .py (default: i3d)"
    )
    group.add_argument("--pretrained", help="checkpoint to start from, e.g. of Kinetics (default: none)")
    group.add_argument(
        "--input_size", type=picture_side, default=256, help="side of the frames in pixels (default: 256)"
    )
    group.add_argument("--num_frames", type=positive_int, help="frames of a clip (default: the data set's)")


def add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=positive_int, default=50, help="(default: 50)")
    group.add_argument(
        "--pretrain_epochs",
        type=positive_int,
        help="of pretrain_finetune's first part (default: as --epochs)",
    )
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
        "--patience",
        type=whole_number,
        default=15,
        help="epochs without improvement; 0: never stop (default: 15)",
    )
    group.add_argument("--max_steps", type=positive_int, help="stops each part after so many steps")
    group.add_argument("--balanced_sampling", action="store_true", help="draw each class equally often")
    group.add_argument("--class_weights", action="store_true", help="weight the loss against class frequency")
    group.add_argument("--label_smoothing", type=fraction, default=0.0, help="(default: 0)")
    group.add_argument(
        "--no_augmentation", action="store_true", help="no flips, shifts, zoom, grey curve, noise"
    )
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(default: fp32)")
    group.add_argument(
        "--seed", type=seed_number, default=3407, help="of weights, order and augmentation (default: 3407)"
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("running and output")
    group.add_argument("--output_dir", help="run folder (default: classifier_{data}_{classifier}_{paradigm})")
    group.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    group.add_argument(
        "--num_threads", type=positive_int, help="that read clips (default: the cores, at most 8)"
    )
    group.add_argument(
        "--cache_gb", type=number_from_0, default=4.0, help="decoded clips kept in memory (default: 4)"
    )
    group.add_argument("--fresh", action="store_true", help="start over in --output_dir")


def main() -> None:
    parser = steps.parser(__doc__, EXAMPLE)
    for add_group in (add_data, add_model, add_training, add_running):
        add_group(parser)
    options = parser.parse_args()
    spec = datasets.chosen(options)
    home = spec.home_in(options.data_root)
    spec.clips(
        home, "train"
    )  # says so at once if there is nothing to learn from; torch takes seconds to import

    from augment.classifiers.run_report import percent
    from augment.classifiers.train import FitSettings
    from augment.classifiers.training_run import RunSettings, train_and_test
    from ctrlgenaug.devices import pick_device
    from ctrlgenaug.processes import default_workers

    fit = FitSettings(
        batch_size=options.batch_size,
        weight_decay=options.weight_decay,
        patience=options.patience,
        balanced_sampling=options.balanced_sampling,
        class_weights=options.class_weights,
        label_smoothing=options.label_smoothing,
        augment=not options.no_augmentation,
        precision=options.precision,
        seed=options.seed,
        max_steps=options.max_steps,
    )
    settings = RunSettings(
        classifier=options.classifier,
        paradigm=options.paradigm,
        synthetic_dirs=tuple(options.synthetic_dir),
        synthetic_ratio=options.synthetic_ratio,
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
    name = Path(options.classifier).stem
    folder = Path(options.output_dir or f"classifier_{spec.data_name}_{name}_{options.paradigm}")
    result = train_and_test(
        spec,
        home,
        settings,
        folder,
        device=pick_device(options.device),
        cache_gb=options.cache_gb,
        threads=options.num_threads or default_workers(),
        fresh=options.fresh,
    )
    if result["strangers"]:
        print(
            f"warning: {len(result['strangers'])} files skipped, e.g. {result['strangers'][0]}",
            file=sys.stderr,
        )
    clip, patient = result["test"]["clip"], result["test"]["patient"]
    print(
        f"test: accuracy {percent(clip['accuracy'])} %, balanced accuracy {percent(clip['balanced_accuracy'])} %, "
        f"macro F1 {percent(clip['macro_f1'])} %, AUC {percent(clip['auc'])} % over {clip['count']} clips; "
        f"balanced accuracy {percent(patient['balanced_accuracy'])} % over {patient['count']} patients"
    )
    checkpoint = folder / "classifier.pth"
    print(f"next: python noisy_data_filter.py --classifier_checkpoint {checkpoint} ..., or evaluate.py")
    there = "was finished already" if result.get("was_there") else "is"
    print(
        f"classifier {there} in {checkpoint}, accuracy {percent(clip['accuracy'])} % on the test split; "
        f"figures in {folder}/metrics.md"
    )


if __name__ == "__main__":
    steps.run(main)
