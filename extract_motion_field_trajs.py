"""Step (d): motion fields and trajectories of the sampled clips, written beside the clips' folder."""

from __future__ import annotations

import argparse
import os

from ctrlgenaug import datasets, steps
from ctrlgenaug.arguments import positive_int, seed_number
from ctrlgenaug.conditions.motion_extraction import Settings, extract_motion
from ctrlgenaug.conditions.motion_field import READERS
from ctrlgenaug.training.config import default_config
from ctrlgenaug.video import ENCODER_THREADS

EXAMPLE = "python extract_motion_field_trajs.py --clip_data_dir MosMedData/MosMed_volume"


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--clip_data_dir", required=True, help="folder of the sampled clips, with their metadata"
    )
    datasets.add_data_options(parser, "default: told by the folder's name")
    parser.add_argument(
        "--split", choices=("train", "test", "both"), default="both", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--required_clip_num",
        type=positive_int,
        help="frames of every clip (default: the data set's, as in sampling)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number,
        default=0,
        help="base of each clip's seed for contested targets (default: %(default)s)",
    )
    parser.add_argument(
        "--adjacent_reference",
        action="store_true",
        help="let the encoder look at the frame before only, so that each field is between neighbours "
        "(default: encoder defaults, as published; a vector may span up to 4 frames)",
    )
    parser.add_argument(
        "--fill_blocks",
        action="store_true",
        help="give every pixel of a block its vector (default: the middle one alone, as published, which trajectories "
        "hardly ever meet). Together with --adjacent_reference more of the movement reaches the model",
    )
    parser.add_argument(
        "--motion_reader",
        choices=READERS,
        default=READERS[0],
        help="what reads the vectors (default: %(default)s with one thread); mv-extractor, as published, starts "
        "several and now and then loses some",
    )
    parser.add_argument(
        "--encoder_threads",
        type=positive_int,
        default=ENCODER_THREADS,
        help="x264's vectors depend on their number (default: %(default)s, x264's own choice on two cores; 12 gives "
        "the published script's fields on eight cores or more)",
    )
    parser.add_argument(
        "--official_format",
        action="store_true",
        help="write trajectories as the official code reads them (3.3 MB of pickle a clip instead of 17 kB)",
    )
    parser.add_argument(
        "--visualize", action="store_true", help="also draw each clip's vectors as arrows, a PNG a clip"
    )
    steps.add_batch_options(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    spec = datasets.chosen(options, folder=options.clip_data_dir)
    settings = Settings(
        num_frames=options.required_clip_num or spec.required_clip_num,
        seed=options.seed,
        adjacent_reference=options.adjacent_reference,
        fill_blocks=options.fill_blocks,
        encoder_threads=options.encoder_threads,
        motion_reader=options.motion_reader,
        official_format=options.official_format,
        visualize=options.visualize,
    )
    outcome, fields, tracks = extract_motion(
        options.clip_data_dir,
        spec,
        settings,
        split=options.split,
        num_workers=options.num_workers,
        strict=options.strict,
    )
    made, kept = outcome.counts["made"], outcome.counts["kept"]
    where = f"{os.path.relpath(fields)} and {os.path.relpath(tracks)}"
    print(f"next: sh vae_train.sh{default_config(spec.data_name, 'vae')}")
    print(
        outcome.closing_line(
            f"motion fields and trajectories: {made} clips made, {kept} were there already, in {where}"
        )
    )
    return outcome.exit_code()


if __name__ == "__main__":
    steps.run(main)
