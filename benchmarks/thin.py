"""Keeps only some patients of each class in a data set's train split: a small data set out of a large one.

    python benchmarks/thin.py --data_name MosMed --keep CT-0=30,CT-1=6,CT-234=30

rewrites ``train_metadata.jsonl`` of the sampled frames and of the clips; the files of the others stay, unread. The test
split stays whole. The first patients of each class are kept, so a smaller data set is part of every larger one.
The full lists are kept beside as ``train_metadata_full.jsonl`` and are what is thinned, however often this is run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_jsonl, write_jsonl


def _counts(text: str) -> dict[str, int]:
    try:
        return {cls: int(count) for cls, count in (item.split("=") for item in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form CLASS=PATIENTS,...") from None


def main() -> int:
    """Thins both lists and says what is left."""
    parser = steps.parser(
        __doc__.splitlines()[0],
        "python benchmarks/thin.py --data_name MosMed --keep CT-0=30,CT-1=6,CT-234=30",
    )
    datasets.add_data_options(parser)
    parser.add_argument(
        "--data_root", default=".", help="folder of the data set's home (default: %(default)s)"
    )
    parser.add_argument("--keep", required=True, type=_counts, help="patients of each class to keep")
    options = parser.parse_args()
    spec = datasets.chosen(options)
    home = spec.home_in(options.data_root)
    for cls in options.keep:
        spec.class_id(cls)

    kept: dict[str, list[str]] = {cls: [] for cls in spec.classes}
    for folder, is_clip in ((home / spec.clips_dir, True), (home / spec.frames_dir, False)):
        full = folder / "train_metadata_full.jsonl"
        if not full.exists():
            shutil.copyfile(spec.metadata_path(folder, "train"), full)
        rows = []
        for row in read_jsonl(full):
            name, cls = Path(row["file_name"]).stem, str(row["cls"])
            patient = spec.patient(name if is_clip else spec.clip_name(*spec.parse_frame(name)))
            if is_clip and patient not in kept[cls] and len(kept[cls]) < options.keep.get(cls, sys.maxsize):
                kept[cls].append(patient)
            if patient in kept[cls]:
                rows.append(row)
        if not rows:
            raise UserError("nothing is left", "Keep more", full)
        write_jsonl(spec.metadata_path(folder, "train"), rows)
    print(
        "kept "
        + ", ".join(f"{len(patients)} {cls}" for cls, patients in kept.items())
        + " patients to learn from"
    )
    return 0


if __name__ == "__main__":
    steps.run(main)
