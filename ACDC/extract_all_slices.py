"""Step (a) for ACDC: end-diastolic and end-systolic cardiac MR volumes to slices (method, sections 1 and 2)."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.images import percentile_window, square_frame, without_small_parts
from ctrlgenaug.preprocessing.nifti import read_nifti
from ctrlgenaug.preprocessing.raw_files import find

ACDC = datasets.get("ACDC")

FOLDER_OF = {"train": "training", "test": "testing"}


def slices(volume: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """The slices of ``volume`` (n, H, W) that show the heart according to ``labels`` (n, H, W).

    Returns:
        {1: (256, 256) uint8, ...}, renumbered from 1; empty if no slice is left.
    """
    kept = np.flatnonzero(without_small_parts(labels).any((1, 2)))
    grey = percentile_window(volume)  # of the whole volume, not of the slices that are kept
    return {number: square_frame(grey[i]) for number, i in enumerate(kept, start=1)}


def read_phase(case: Case) -> dict[int, np.ndarray]:
    """The slices of one cardiac phase; a `UserError` if image and mask do not fit or no slice is left."""
    image_path, mask_path = case.sources
    volume, labels = read_nifti(image_path), read_nifti(mask_path, allow_constant=True)
    if volume.shape != labels.shape:
        raise UserError(
            f"has shape {labels.shape}, its image {volume.shape}", "Copy both files again", mask_path
        )
    # (X, Y, Z) as stored to (slices, rows, columns) as SimpleITK and the published code see it
    try:
        frames = slices(volume.transpose(2, 1, 0), labels.astype(np.uint8).transpose(2, 1, 0))
    except ValueError as error:
        raise UserError(f"holds no picture ({error})", "Copy it again", image_path) from None
    if not frames:
        raise UserError("leaves no slice: no structure is large enough", "Check the mask", mask_path)
    return frames


def read_info(path: Path) -> tuple[str, list[int]]:
    """The group and the end-diastolic and end-systolic frame numbers that an Info.cfg names."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError("does not exist", "Copy the patient's folder again", path) from None
    except UnicodeDecodeError:
        raise UserError("is not text", "Copy it again", path) from None
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    for key in ("ED", "ES", "Group"):
        if not info.get(key):
            raise UserError(f"lacks {key}", "Copy the patient's folder again", path)
    for key in ("ED", "ES"):
        if not info[key].isdigit():
            raise UserError(f"{key} is {info[key]!r}, not a frame number", "Mend the line", path)
    if info["Group"] not in ACDC.classes:
        raise UserError(f"group {info['Group']!r} is unknown", f"Use one of {', '.join(ACDC.classes)}", path)
    return info["Group"], [int(info["ED"]), int(info["ES"])]


def find_phases(database: Path, split: str) -> tuple[list[Case], dict[str, str]]:
    """Two cases a patient of one split, ED before ES, patients by name; and bad patients with the reason."""
    folder = database / FOLDER_OF[split]
    if not folder.is_dir():
        raise UserError("is not a folder", "Give --database, the folder with training/ and testing/", folder)
    cases, rejected = [], {}
    for patient in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            group, frames = read_info(patient / "Info.cfg")
        except UserError as error:
            rejected[patient.name] = str(error)
            continue
        for frame in frames:
            name = f"{patient.name}_frame{frame:02d}"
            sources = tuple(_existing(patient / f"{name}{suffix}.nii.gz") for suffix in ("", "_gt"))
            cases.append(Case(name, split, group, sources))
    return cases, rejected


def _existing(path: Path) -> Path:
    """The .nii.gz as published, or the .nii that some unpackers make of it."""
    unpacked = path.with_suffix("")
    return unpacked if not path.exists() and unpacked.is_file() else path


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a) for ACDC: turn the end-diastolic and end-systolic volumes into 256 x 256 slices, those that show the "
        "heart. training/ becomes the train split, testing/ the test split. Run it inside ACDC/; finished volumes are "
        "passed over.",
        "cd ACDC && python extract_all_slices.py --num_workers 8",
    )
    parser.add_argument(
        "--database", default="database", help="folder with training/ and testing/ (default: %(default)s)"
    )
    parser.add_argument("--output", help=f"folder to write (default: {ACDC.slices_dir} beside the database)")
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    database = find(arguments.database, ACDC.home)
    cases, rejected = [], {}
    for split in FOLDER_OF:
        found, bad = find_phases(database, split)
        cases += found
        rejected |= bad
    return extract(
        ACDC,
        cases,
        read_phase,
        arguments.output or database.parent / ACDC.slices_dir,
        rejected=rejected,
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        next_step=f"{ACDC.home}/sample_sequences.py",
    )


if __name__ == "__main__":
    steps.run(main)
