"""Judges synthetic clips: distances to the real ones, coherence, diversity, steering, copies.

Each figure per class and in total. Real clips are scored beside the synthetic ones, and against each other, so that
every figure has something to be held against. Folders made from test conditions are refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctrlgenaug import datasets, model_steps, steps
from ctrlgenaug.arguments import fraction, picture_side, positive_int, seed_number

EXAMPLE = """python evaluate.py --real MosMedData --synthetic MosMed_filtered \\
      --classifier classifier_MosMed/classifier.pth --vae_path sequence_model_MosMed

  python evaluate.py --synthetic MosMed_filtered --classifier classifier_MosMed/classifier.pth --metrics class_control

docs/evaluation.md says how each figure is computed and what it can and cannot tell."""


def add_tools(parser: argparse.ArgumentParser, metrics: str) -> None:
    group = parser.add_argument_group("what is computed, and with what")
    group.add_argument(
        "--metrics",
        nargs="+",
        default=["all"],
        help=f"{metrics} (default: all that the flags allow, but frd)",
    )
    group.add_argument("--classifier", help="checkpoint of train_classifier.py, trained on real clips")
    group.add_argument(
        "--classifier_name",
        "--cls_model_name",
        metavar="NAME",
        help="its name or mmaction2 config, where its checkpoint does not say it",
    )
    group.add_argument(
        "--input_size",
        type=picture_side,
        help="side of its frames in pixels, where its checkpoint does not say it (default: 256)",
    )
    group.add_argument("--vae_path", help="the VAE's folder, or the folder of a model that has one")
    group.add_argument(
        "--i3d_weights", help="i3d_torchscript.pt, for the usual FVD (default: the classifier's features)"
    )
    group.add_argument("--i3d_sha256", help="its SHA-256, to be checked")
    group.add_argument(
        "--inception_weights", help="inception-2015-12-05.pt (default: the classifier's features)"
    )
    group.add_argument("--inception_sha256", help="its SHA-256, to be checked")
    group.add_argument(
        "--radimagenet_weights", help="RadImageNet's ResNet50.pt, for an FID of medical features"
    )
    group.add_argument(
        "--interpolator",
        choices=("mean", "flow", "amt"),
        default="mean",
        help="of smoothness: mean of the neighbours, optical flow, or AMT-S (package vbench) (default: mean)",
    )
    group.add_argument("--amt_weights", help="amt-s.pth")
    group.add_argument(
        "--draws",
        type=positive_int,
        default=50,
        help="halves of the real set for distances (default: %(default)s)",
    )
    group.add_argument(
        "--seed", type=seed_number, default=3407, help="of all that is drawn (default: %(default)s)"
    )
    group.add_argument(
        "--candidates",
        type=positive_int,
        default=20,
        help="conditions of a class among which a clip's own is looked for (default: %(default)s)",
    )
    group.add_argument(
        "--memorisation_quantile",
        type=fraction,
        default=0.01,
        help="a clip nearer to a training clip than this part of real clips are to another patient's is flagged "
        "(default: %(default)s)",
    )


def parse_arguments() -> argparse.Namespace:
    from augment.quality.metrics import METRICS

    parser = steps.parser(__doc__, EXAMPLE)
    data = parser.add_argument_group("data")
    data.add_argument("--synthetic", nargs="+", required=True, help="folders of generated or filtered clips")
    data.add_argument(
        "--real", help="the data set's folder, or the folder that holds it (needed by most metrics)"
    )
    data.add_argument(
        "--split", choices=datasets.SPLITS, default="train", help="of the real clips (default: train)"
    )
    datasets.add_data_options(data, "default: the classifier's, or MosMed")
    add_tools(parser, ", ".join(METRICS))
    running = parser.add_argument_group("running and output")
    running.add_argument(
        "--output", default="evaluation.json", help="with .md and pictures beside it (default: %(default)s)"
    )
    running.add_argument(
        "--latents_dir",
        help="keeps the VAE's latents in .latents there (default: beside the clips, if writable)",
    )
    running.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    model_steps.add_options(running)
    running.add_argument(
        "--batch_size", type=positive_int, default=8, help="clips at once (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()

    from augment.quality.evaluation import evaluate_folders, settings_from, write
    from augment.quality.evaluation_report import headline

    result = evaluate_folders(*settings_from(options), model_steps.chosen(options))
    output = Path(options.output).with_suffix(".json")
    write(result, output)
    skipped = result.found["failures"] | dict.fromkeys(
        result.foreign, "it is not named like a synthetic clip."
    )
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    for warning in result.found["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    bad = f"; {len(skipped)} files skipped (listed above)" if skipped else ""
    number = result.found["counts"]["synthetic"]["all"]
    print(
        f"{headline(result.found)}: {number} synthetic clips, {output} and {output.with_suffix('.md')}{bad}"
    )
    return steps.EXIT_SOME_FAILED if skipped else 0


if __name__ == "__main__":
    steps.run(main)
