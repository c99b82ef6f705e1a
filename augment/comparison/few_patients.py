"""A data set of fewer patients out of a larger one, for the generator that is to see only them.

    python -m augment.comparison.few_patients --data_name MosMed --patients CT-1=6 --out six/MosMedData

Frames and clips are links into the larger data set; the train metadata name the kept patients alone, the first of
each class, so a smaller data set is part of every larger one. Image priors and motion fields are made there anew.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from augment.classifiers.arguments import class_counts
from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_jsonl, write_jsonl


def make_home(spec: DatasetSpec, home: Path, numbers: Mapping[str, int], out: Path) -> dict[str, int]:
    """Writes ``out``, a home folder with the first ``numbers[class]`` patients of a class; other classes whole.

    Returns:
        patients kept, by class.

    Raises:
        UserError: an unknown class, or fewer patients than wanted.
    """
    kept: dict[str, dict[str, None]] = {cls: {} for cls in spec.classes}
    for clip in spec.clips(home, "train"):
        kept[clip.cls].setdefault(spec.patient(clip.name))
    for cls, number in numbers.items():
        spec.class_id(cls)
        if len(kept[cls]) < number:
            raise UserError(
                f"{number} patients of {cls} are wanted, but there are {len(kept[cls])}", "Lower it"
            )
        kept[cls] = dict.fromkeys(list(kept[cls])[:number])
    everyone = {patient for patients in kept.values() for patient in patients}

    for folder, is_clip in ((spec.clips_dir, True), (spec.frames_dir, False)):
        source, target = home / folder, out / folder
        target.mkdir(parents=True, exist_ok=True)
        metadata = spec.metadata_path(source, "train")
        rows = []
        for row in read_jsonl(metadata, ("file_name",)):
            name = Path(row["file_name"]).stem
            patient = spec.patient(name if is_clip else spec.clip_name(*spec.parse_frame(name)))
            if patient in everyone:
                rows.append(row)
                link = target / row["file_name"]
                if not link.is_symlink():
                    link.symlink_to(os.path.relpath(source / row["file_name"], target))
        write_jsonl(spec.metadata_path(target, "train"), rows)
    return {cls: len(patients) for cls, patients in kept.items()}


def main() -> None:
    parser = steps.parser(
        "Makes a data set of fewer patients out of a larger one, by links.",
        "python -m augment.comparison.few_patients --data_name MosMed --patients CT-1=6 --out six/MosMedData",
    )
    datasets.add_data_options(parser)
    parser.add_argument("--data_root", default=".", help="holds the larger one's home (default: .)")
    parser.add_argument("--patients", required=True, type=class_counts, metavar="CLASS=N,...", help="to keep")
    parser.add_argument("--out", required=True, type=Path, help="home folder of the smaller one")
    options = parser.parse_args()
    spec = datasets.chosen(options)
    kept = make_home(spec, spec.home_in(options.data_root), options.patients, options.out)
    said = ", ".join(f"{number} {cls}" for cls, number in kept.items())
    print(f"{said} patients to learn from, in {options.out}; next: extract_image_priors.py")


if __name__ == "__main__":
    steps.run(main)
