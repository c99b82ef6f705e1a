"""Filters synthetic clips in two levels: semantic (a classifier's loss) and sequential (VAE-Seq, near duplicates)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from augment.generation.arguments import words
from augment.quality import filter_folder
from augment.quality.latent_store import open_store
from augment.quality.latents import LatentSettings
from augment.quality.noise_filter import LEVELS
from ctrlgenaug import datasets, steps
from ctrlgenaug.devices import pick_device
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import fingerprint

EXAMPLE = """python noisy_data_filter.py --data_name MosMed \\
      --synthetic_dir sequence_model_MosMed/cond_im_synthesis_mp4 --save_base MosMed_filtered \\
      --classifier i3d --classifier_checkpoint classifier_MosMed/classifier.pth \\
      --vae_path sequence_model_MosMed/MosMed-vae-pretrained

Run VAE-Seq.py on the folder first: its scores and latents are used. The kept clips, filter_report.json, the k-means
plot and pictures of what was kept and dropped are written to --save_base."""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument("--synthetic_dir", "--syn_data_p", required=True, help="folder that generate.py made")
    parser.add_argument("--save_base", help="folder for the kept clips (default: SYNTHETIC_DIR_filtered)")
    datasets.add_data_options(parser)
    parser.add_argument(
        "--vae_path",
        "--load_2d_pretrained_model_name",
        required=True,
        help="the VAE's folder, or the folder of a model that has one",
    )
    parser.add_argument(
        "--classifier",
        "--cls_model_name",
        help="name or mmaction2 config of the classifier, where its checkpoint does not say it",
    )
    parser.add_argument("--classifier_checkpoint", "--cls_model_pth", help="classifier trained on real data")
    parser.add_argument(
        "--input_size",
        type=int,
        help="side of the classifier's frames in pixels, where its checkpoint does not say it (default: 256)",
    )
    parser.add_argument(
        "--alpha", type=float, default=1.0, help="semantic: factor on the group's mean loss (default: 1.0)"
    )
    parser.add_argument(
        "--inter_threshold",
        type=float,
        default=0.98,
        help="between clips: similarity, at most 1 (default: 0.98)",
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        default=list(LEVELS),
        help=f"which of {', '.join(LEVELS)} to ask (default: all)",
    )
    parser.add_argument(
        "--pixel_range", choices=("official", "model"), default="official", help="as for VAE-Seq.py"
    )
    parser.add_argument("--posterior", choices=("sample", "mode"), default="sample", help="as for VAE-Seq.py")
    parser.add_argument("--seed", type=int, default=3407, help="as for VAE-Seq.py (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    parser.add_argument("--batch_size", type=int, default=8, help="clips at once (default: %(default)s)")
    parser.add_argument("--link", action="store_true", help="hard links instead of copies")
    parser.add_argument("--dry_run", action="store_true", help="print the counts, copy nothing")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    spec, folder = datasets.chosen(options), Path(options.synthetic_dir)
    levels = tuple(words(options.levels))
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"{level!r} is not a level", f"Known: {', '.join(LEVELS)}")
    settings = filter_folder.FilterSettings(options.alpha, options.inter_threshold, levels, options.link)
    latents = LatentSettings(options.pixel_range, options.posterior, options.seed)
    filter_folder.list_videos(folder)  # says so at once if there is nothing to do
    store = open_store(
        options.vae_path, folder, latents, device=options.device, batch_size=options.batch_size
    )
    score_clips = None
    if "semantic" in levels:
        if options.classifier_checkpoint is None:
            raise UserError("--classifier_checkpoint is missing", "Give it, or --levels within between")
        from augment.classifiers import scorer

        score_clips = scorer(
            options.classifier_checkpoint,
            name=options.classifier,
            num_classes=len(spec.classes),
            input_size=options.input_size,
            device=pick_device(options.device),
            batch_size=options.batch_size,
        )
    result = filter_folder.decide(folder, spec, store, score_clips, settings)
    target = Path(options.save_base or f"{str(folder).rstrip('/')}_filtered")
    if not options.dry_run:
        provenance = {
            "synthetic_dir": str(folder),
            "data_name": spec.data_name,
            "classifier": options.classifier,
            "classifier_checkpoint": options.classifier_checkpoint,
            "classifier_fingerprint": score_clips and fingerprint([options.classifier_checkpoint]),
            "vae_path": options.vae_path,
            "latents": latents.tag(),
        }
        filter_folder.save(folder, target, result, settings, provenance)
    for name, reason in result.strangers.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(filter_folder.table(result))
    kept = f"{len(result.kept)} of {len(result.verdicts)} clips kept"
    if options.dry_run:
        print(f"{kept}; nothing written (dry run)")
    else:
        print(f"{kept} in {target}; why the others were not: {filter_folder.REPORT} there")
        print(f"next: python train_classifier.py --data_name {spec.data_name} --synthetic_dir {target} ...")
    unreadable = any(verdict.reason == "unreadable" for verdict in result.verdicts)
    return steps.EXIT_SOME_FAILED if result.strangers or unreadable else 0


if __name__ == "__main__":
    steps.run(main)
