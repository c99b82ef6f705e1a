"""Step (a), second part, for TUSC: of each nodule the frames that follow one another (method, section 2)."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import SPLITS
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.clips import read_cases
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.preprocessing.raw_files import find

TUSC = datasets.get("TUSC")

ALONE = {"Nodule4": 1}  # its frame 1 stands alone: the published data drop it and keep the run after it


def consecutive(case: Case) -> Case:
    """``case`` with the run of consecutive frames that starts at its first frame."""
    by_number = {TUSC.parse_frame(path.stem)[1]: path for path in case.sources}
    numbers = sorted(by_number)
    if ALONE.get(case.name) == numbers[0] and numbers[0] + 1 not in by_number and len(numbers) > 1:
        numbers = numbers[1:]
    run = [number for i, number in enumerate(numbers) if number == numbers[0] + i]
    return dataclasses.replace(case, sources=tuple(by_number[number] for number in run))


def read_frames(case: Case) -> dict[int, np.ndarray]:
    """The frames of a case, read from their PNG files."""
    return {TUSC.parse_frame(path.stem)[1]: read_png(path) for path in case.sources}


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a), second part, for TUSC: keep the run of consecutive frames from a nodule's first frame on, so "
        "that clips never jump. Run it inside TUSC/.",
        "cd TUSC && python save_all_consecutive_images.py",
    )
    parser.add_argument(
        "--all_images_dir", default="TUSC_all_images", help="what the first part wrote (default: %(default)s)"
    )
    parser.add_argument("--output", help=f"folder to write (default: {TUSC.slices_dir} beside the input)")
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    folder = find(arguments.all_images_dir, TUSC.home)
    if not folder.is_dir():
        raise UserError("is not a folder", "Run extract_all_images.py first", folder)
    return extract(
        TUSC,
        [consecutive(case) for split in SPLITS for case in read_cases(TUSC, folder, split)],
        read_frames,
        arguments.output or folder.parent / TUSC.slices_dir,
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        next_step=f"{TUSC.home}/extract_all_texts.py, then {TUSC.home}/sample_videos.py",
    )


if __name__ == "__main__":
    steps.run(main)
