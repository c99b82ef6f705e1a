"""MRNet: sagittal knee MR series to slices (method, sections 1 and 2)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ctrlgenaug import datasets
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.raw_files import find, is_litter
from ctrlgenaug.preprocessing.readers.reader import Found, RawReader
from ctrlgenaug.preprocessing.tables import read_table

FOLDER_OF = {"train": "train", "test": "valid"}  # MRNet's validation part is the method's test split
AGAIN = "Copy it again from MRNet's download"


def read_series(case: Case) -> dict[int, np.ndarray]:
    """The slices of one series, as they are; a `UserError` unless it is (n, 256, 256) uint8."""
    path = case.sources[0]
    check_file(path, AGAIN)
    series = load_npy(path, (None, IMAGE_SIZE, IMAGE_SIZE), mmap=True, remedy=AGAIN)
    if series.dtype != np.uint8:
        raise UserError(f"holds {series.dtype}, not uint8", AGAIN, path)
    series = np.ascontiguousarray(series)
    if not len(series) or series.min() == series.max():
        raise UserError("is empty or constant", AGAIN, path)
    return dict(enumerate(series, start=1))


def whole_number(text: str) -> str:
    """``1`` for ``1``, ``1.0`` and ``01``, as spreadsheets write numbers; other text as it is."""
    number, _, fraction = text.partition(".")
    return str(int(number)) if number.isdecimal() and not fraction.strip("0") else text


def read_labels(root: Path, split: str) -> tuple[list[Case], dict[str, str]]:
    """The cases of one split, in the label file's order; and bad rows and unlabelled series with the reason."""
    classes, folder = datasets.get("MRNet").classes, FOLDER_OF[split]
    path = root / f"{folder}-acl.csv"
    table = read_table(path, header=False)
    if len(table.columns) < 2:
        raise UserError("has fewer than two columns", "Give lines of the form id,label", path)
    cases, rejected = [], {}
    for number, (series_id, label, *_) in zip(table.lines, table.rows, strict=True):
        digits, cls = whole_number(series_id), whole_number(label)
        if number == table.lines[0] and not digits.isdecimal():
            continue  # the header row of those files that have one
        if not digits.isdecimal() or cls not in classes:
            rejected[f"line {number} of {path.name}"] = (
                f"{path}: {series_id!r},{label!r} is not an id and a label 0 or 1. Mend the line."
            )
            continue
        name = f"{int(digits):04d}"  # the files keep leading zeros that spreadsheets drop
        cases.append(Case(name, split, cls, (root / folder / "sagittal" / f"{name}.npy",)))
    labelled = {case.name for case in cases}
    for series in sorted((root / folder / "sagittal").glob("*.npy")):
        if series.stem not in labelled and not is_litter(series.name):
            rejected[series.stem] = (
                f"{series}: has no label in {path.name}. Add a line, or move the file away."
            )
    return cases, rejected


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_root",
        default=".",
        help="folder that holds train/, valid/ and the label files (default: the working directory)",
    )


def _find(options: argparse.Namespace) -> Found:
    spec = datasets.get("MRNet")
    root = find(Path(options.data_root) / "train-acl.csv", spec.home).parent
    found = [read_labels(root, split) for split in FOLDER_OF]
    cases = [case for some, _ in found for case in some]
    rejected = {name: reason for _, bad in found for name, reason in bad.items()}
    return Found(cases, read_series, root / spec.slices_dir, root, rejected)


READER = RawReader(
    "MRNet",
    "MRNet/extract_all_slices.py",
    "Step (a) for MRNet: turn the sagittal series into 256 x 256 slices; train/ is the train split, valid/ the test "
    "split. Run it inside MRNet/; finished series are passed over.",
    _add_options,
    _find,
    "MRNet/sample_sequences.py",
)
