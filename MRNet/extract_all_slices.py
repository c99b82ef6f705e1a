"""Step (a) for MRNet: sagittal knee MR series to slices (method, sections 1 and 2)."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import load_npy
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.raw_files import find
from ctrlgenaug.preprocessing.tables import read_table

MRNET = datasets.get("MRNet")

FOLDER_OF = {"train": "train", "test": "valid"}  # MRNet's validation part is the method's test split


def read_series(case: Case) -> dict[int, np.ndarray]:
    """The slices of one series, as they are; a `UserError` unless it is (n, 256, 256) uint8."""
    path = case.sources[0]
    series = load_npy(path, (None, IMAGE_SIZE, IMAGE_SIZE), remedy="Copy it again from MRNet's download")
    if series.dtype != np.uint8:
        raise UserError(f"holds {series.dtype}, not uint8", "Copy it again from MRNet's download", path)
    if not len(series) or series.min() == series.max():
        raise UserError("is empty or constant", "Copy it again from MRNet's download", path)
    return dict(enumerate(series, start=1))


def read_labels(root: Path, split: str) -> tuple[list[Case], dict[str, str]]:
    """The cases of one split, in the label file's order; and bad rows and unlabelled series with the reason."""
    folder = FOLDER_OF[split]
    path = root / f"{folder}-acl.csv"
    table = read_table(path, header=False)
    if table.shape[1] < 2:
        raise UserError("has fewer than two columns", "Give lines of the form id,label", path)
    cases, rejected = [], {}
    for number, (series_id, label) in enumerate(table.iloc[:, :2].itertuples(index=False), start=1):
        if number == 1 and not series_id.isdigit():
            continue  # the header row of those files that have one
        if not series_id.isdigit() or label not in MRNET.classes:
            rejected[f"line {number} of {path.name}"] = (
                f"{path}: {series_id!r},{label!r} is not an id and a label 0 or 1. Mend the line."
            )
            continue
        name = f"{int(series_id):04d}"  # the files keep leading zeros that spreadsheets drop
        cases.append(Case(name, split, label, (root / folder / "sagittal" / f"{name}.npy",)))
    labelled = {case.name for case in cases}
    for series in sorted((root / folder / "sagittal").glob("*.npy")):
        if series.stem not in labelled:
            rejected[series.stem] = (
                f"{series}: has no label in {path.name}. Add a line, or move the file away."
            )
    return cases, rejected


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a) for MRNet: turn the sagittal series into 256 x 256 slices; train/ is the train split, valid/ the "
        "test split. Run it inside MRNet/; finished series are passed over.",
        "cd MRNet && python extract_all_slices.py --num_workers 8",
    )
    parser.add_argument(
        "--data_root",
        default=".",
        help="folder that holds train/, valid/ and the label files (default: the working directory)",
    )
    parser.add_argument("--output", help=f"folder to write (default: {MRNET.slices_dir} in the data root)")
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    root = find(Path(arguments.data_root) / "train-acl.csv", MRNET.home).parent
    cases, rejected = [], {}
    for split in FOLDER_OF:
        found, bad = read_labels(root, split)
        cases += found
        rejected |= bad
    return extract(
        MRNET,
        cases,
        read_series,
        arguments.output or root / MRNET.slices_dir,
        rejected=rejected,
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        next_step=f"{MRNET.home}/sample_sequences.py",
    )


if __name__ == "__main__":
    steps.run(main)
