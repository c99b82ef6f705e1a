"""Step (c): image priors of the sampled frames by the MedSAM image encoder, written beside the frames' folder."""

from __future__ import annotations

import argparse
import os

from ctrlgenaug import datasets, model_steps, steps
from ctrlgenaug.arguments import positive_int, whole

EXAMPLE = """python extract_image_priors.py --data_dir MosMedData/MosMed_data \\
      --medsam_checkpoint weights/medsam_vit_b.pth --dtype float16

A prior takes 4 MB, 2 MB with --dtype float16: about 70 GB or 35 GB for the frames of MosMed."""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument("--data_dir", required=True, help="folder of the sampled frames, with their metadata")
    datasets.add_data_options(parser, "default: told by the folder's name")
    parser.add_argument(
        "--medsam_checkpoint",
        help="medsam_vit_b.pth, or a Hugging Face folder of it (not needed with --verify)",
    )
    parser.add_argument(
        "--split", choices=("train", "test", "both"), default="both", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--first_frames_only",
        action="store_true",
        help="only the clips' first frames: enough for the sequence model and for generation",
    )
    parser.add_argument(
        "--variants",
        type=whole(0, 100),
        default=0,
        help="also priors of so many variants of each training frame, flipped, shifted, zoomed; the image model's "
        "training takes the same number as prior_variants (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="stored precision (default: float32)",
    )
    parser.add_argument(
        "--batch_size", type=positive_int, default=4, help="frames at once (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda:N or auto (default: auto)")
    model_steps.add_options(parser)
    parser.add_argument("--verify", action="store_true", help="read and check all priors; make nothing")
    steps.add_batch_options(parser, workers=False)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    spec = datasets.chosen(options, folder=options.data_dir)

    from ctrlgenaug.conditions import (
        image_priors,  # torch takes seconds to import; mistakes above need not wait for it
    )

    settings = image_priors.Settings(
        checkpoint=options.medsam_checkpoint,
        dtype=options.dtype,
        batch_size=options.batch_size,
        device=options.device,
        num_workers=options.num_workers,
        first_frames_only=options.first_frames_only,
        split=options.split,
        variants=options.variants,
    )
    if options.verify:
        outcome, folder = image_priors.verify_priors(options.data_dir, spec, settings)
        print(
            outcome.closing_line(
                f"{outcome.counts['whole']} image priors in {os.path.relpath(folder)} are whole"
            )
        )
        return outcome.exit_code()
    outcome, folder = image_priors.extract_priors(options.data_dir, spec, settings, strict=options.strict)
    made, kept = outcome.counts["made"], outcome.counts["kept"]
    clips = os.path.relpath(folder.parent / spec.clips_dir)
    print(f"next: python extract_motion_field_trajs.py --clip_data_dir {clips}")
    print(
        outcome.closing_line(
            f"image priors: {made} made, {kept} were there already, in {os.path.relpath(folder)}"
        )
    )
    return outcome.exit_code()


if __name__ == "__main__":
    steps.run(main)
