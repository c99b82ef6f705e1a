"""Filters synthetic clips: by a classifier's loss, by VAE-Seq, by likeness to each other and to real clips."""

from __future__ import annotations

import argparse
import sys

from augment.generation.arguments import words
from augment.quality import filter_folder, filter_report
from augment.quality.filter_levels import LEVELS, FilterSettings
from ctrlgenaug import datasets, model_steps, steps
from ctrlgenaug.arguments import (
    fraction,
    picture_side,
    positive_int,
    positive_number,
    seed_number,
    whole_number,
)
from ctrlgenaug.errors import UserError

EXAMPLE = """python noisy_data_filter.py --data_name MosMed \\
      --synthetic_dir sequence_model_MosMed/cond_im_synthesis_mp4 --save_base MosMed_filtered \\
      --classifier i3d --classifier_checkpoint classifier_MosMed/classifier.pth \\
      --vae_path sequence_model_MosMed/MosMed-vae-pretrained

Run VAE-Seq.py on the folder first: its scores and latents are used. The kept clips, filter_report.json, the k-means
plot and pictures of what was kept and dropped are written to --save_base."""


def add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("clips and networks")
    group.add_argument("--synthetic_dir", "--syn_data_p", required=True, help="folder that generate.py made")
    datasets.add_data_options(group, "default: the classifier's, or the one whose names the clips have")
    group.add_argument(
        "--vae_path",
        "--load_2d_pretrained_model_name",
        required=True,
        help="the VAE's folder, or the folder of a model that has one",
    )
    group.add_argument(
        "--classifier",
        "--cls_model_name",
        help="name or mmaction2 config of the classifier, where its checkpoint does not say it",
    )
    group.add_argument("--classifier_checkpoint", "--cls_model_pth", help="classifier trained on real data")
    group.add_argument(
        "--input_size",
        type=picture_side,
        help="side of the classifier's frames in pixels, where its checkpoint does not say it (default: 256)",
    )
    group.add_argument(
        "--real", help="the data set's folder, or the folder that holds it (for the level copies)"
    )
    group.add_argument(
        "--scores_dir", help="where VAE-Seq.py wrote, and latents are kept (default: the synthetic folder)"
    )


def add_levels(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("levels")
    group.add_argument(
        "--levels",
        nargs="+",
        default=list(FilterSettings.levels),
        help=f"which of {', '.join(LEVELS)} to ask (default: {' '.join(FilterSettings.levels)}, as published)",
    )
    group.add_argument(
        "--alpha",
        type=positive_number,
        default=1.0,
        help="semantic: factor on the group's mean loss (default: 1.0)",
    )
    group.add_argument(
        "--thresholds",
        choices=("global", "per_class"),
        default="global",
        help="within: k-means over all scores, as published, or over each class's own (default: global)",
    )
    group.add_argument(
        "--inter_threshold",
        type=positive_number,
        default=0.98,
        help="between: similarity, at most 1 (default: 0.98)",
    )
    group.add_argument(
        "--copy_quantile",
        type=fraction,
        default=0.01,
        help="copies: a clip nearer to a training clip than this part of training clips are to another patient's "
        "is dropped (default: 0.01)",
    )
    group.add_argument(
        "--keep_at_least",
        type=whole_number,
        default=0,
        metavar="N",
        help="take dropped clips back until each class has N, never copies or unreadable ones (default: 0)",
    )
    latents = parser.add_argument_group("latents, as for VAE-Seq.py")
    latents.add_argument("--pixel_range", choices=("official", "model"), default="official")
    latents.add_argument("--posterior", choices=("sample", "mode"), default="sample")
    latents.add_argument("--seed", type=seed_number, default=3407, help="(default: %(default)s)")


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    add_inputs(parser)
    add_levels(parser)
    running = parser.add_argument_group("running and output")
    running.add_argument("--save_base", help="folder for the kept clips (default: SYNTHETIC_DIR_filtered)")
    running.add_argument("--link", action="store_true", help="hard links instead of copies")
    running.add_argument("--dry_run", action="store_true", help="print the counts, copy nothing")
    running.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    model_steps.add_options(running)
    running.add_argument(
        "--batch_size", type=positive_int, default=8, help="clips at once (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    levels = tuple(words(options.levels))
    if not levels:
        raise UserError("--levels is empty", f"Name some of {', '.join(LEVELS)}")
    settings = FilterSettings(
        alpha=options.alpha,
        inter_threshold=options.inter_threshold,
        levels=levels,
        link=options.link,
        thresholds=options.thresholds,
        keep_at_least=options.keep_at_least,
        copy_quantile=options.copy_quantile,
    )
    result, target = filter_folder.filter_clips(options, settings)
    for name, reason in result.foreign.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(filter_report.tables(result))
    kept = f"{len(result.kept)} of {len(result.verdicts)} clips kept"
    if options.dry_run:
        print(f"{kept}; nothing written (dry run)")
    else:
        print(f"{kept} in {target}; why the others were not: {filter_folder.REPORT} there")
        print(f"next: python train_classifier.py --synthetic_dir {target} ...")
    unreadable = any(verdict.reason == "unreadable" for verdict in result.verdicts)
    return steps.EXIT_SOME_FAILED if result.foreign or unreadable else 0


if __name__ == "__main__":
    steps.run(main)
