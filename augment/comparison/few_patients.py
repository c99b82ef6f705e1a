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

TEST_PATIENTS = (
    2  # of each class, for the trainings' own validation; the comparison tests on the larger data set
)


def make_home(spec: DatasetSpec, home: Path, numbers: Mapping[str, int], out: Path) -> dict[str, int]:
    """Writes ``out``, a home folder with the first ``numbers[class]`` train patients of a class; other classes whole.

    Returns:
        train patients kept, by class.

    Raises:
        UserError: an unknown class, fewer patients than wanted or none, or ``out`` holds files of its own.
    """
    if out.resolve() == home.resolve():
        raise UserError("is the larger data set itself", "Give another --out", out)
    train = _patients(spec, home, "train")
    for cls, number in numbers.items():
        spec.class_id(cls)
        if number < 1:
            raise UserError(f"{number} patients of {cls} are none", "Give at least 1")
        if len(train[cls]) < number:
            raise UserError(
                f"{number} patients of {cls} are wanted, but there are {len(train[cls])}", "Lower it"
            )
        train[cls] = train[cls][:number]
    test = {cls: patients[:TEST_PATIENTS] for cls, patients in _patients(spec, home, "test").items()}
    for split, kept in (("train", train), ("test", test)):
        everyone = {patient for patients in kept.values() for patient in patients}
        _link(spec, home / spec.clips_dir, out / spec.clips_dir, split, everyone, of_clips=True)
        _link(spec, home / spec.frames_dir, out / spec.frames_dir, split, everyone, of_clips=False)
    return {cls: len(patients) for cls, patients in train.items()}


def _patients(spec: DatasetSpec, home: Path, split: str) -> dict[str, list[str]]:
    """Patients by class, in the order of the clips."""
    found: dict[str, dict[str, None]] = {cls: {} for cls in spec.classes}
    for clip in spec.clips(home, split):
        found[clip.cls].setdefault(spec.patient(clip.name))
    return {cls: list(patients) for cls, patients in found.items()}


def _link(
    spec: DatasetSpec, source: Path, target: Path, split: str, patients: set[str], *, of_clips: bool
) -> None:
    """Metadata of ``split`` in ``target`` for these patients alone, and links to their files in ``source``."""
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in read_jsonl(spec.metadata_path(source, split), ("file_name",)):
        name = Path(row["file_name"]).stem
        if spec.patient(name if of_clips else spec.clip_name(*spec.parse_frame(name))) in patients:
            rows.append(row)
            _link_file(target / row["file_name"], os.path.relpath(source / row["file_name"], target))
    write_jsonl(spec.metadata_path(target, split), rows)


def _link_file(link: Path, to: str) -> None:
    if link.is_symlink():
        if os.readlink(link) == to:
            return
        link.unlink()  # into another data set, of an earlier call
    elif link.exists():
        raise UserError("is a file where a link is to be", "Choose another --out, or remove it", link)
    link.symlink_to(to)


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
