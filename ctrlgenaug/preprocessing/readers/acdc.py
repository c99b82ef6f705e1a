"""ACDC: end-diastolic and end-systolic cardiac MR volumes to slices (method, sections 1 and 2).

Volumes are taken in the axes of their files, as published: ACDC's affines carry neither spacing nor position.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.images import percentile_window, square_frame, without_small_parts
from ctrlgenaug.preprocessing.nifti import existing, read_nifti
from ctrlgenaug.preprocessing.raw_files import find, is_litter
from ctrlgenaug.preprocessing.readers.reader import Found, RawReader
from ctrlgenaug.preprocessing.tables import decoded

FOLDER_OF = {"train": "training", "test": "testing"}
MOST_LABELS = 255
ALMOST_WHOLE = 0.01  # a label may be so far from a whole number: resampling and float32 leave 0.9999


def slices(volume: np.ndarray, labels: np.ndarray) -> dict[int, np.ndarray]:
    """The slices of ``volume`` (n, H, W) that show the heart according to ``labels`` (n, H, W).

    Returns:
        {1: (256, 256) uint8, ...}, renumbered from 1; empty if no slice is left.
    """
    kept = np.flatnonzero(without_small_parts(labels).any((1, 2)))
    grey = percentile_window(
        volume, planes=kept
    )  # window of the whole volume, not of the slices that are kept
    return {number: square_frame(plane) for number, plane in enumerate(grey, start=1)}


def whole_labels(labels: np.ndarray, path: Path) -> np.ndarray:
    """A mask as uint8; a `UserError` where its values are no small whole numbers."""
    if labels.dtype.kind == "f":
        rounded = np.rint(labels)
        far = np.abs(labels - rounded).max()
        if far > ALMOST_WHOLE:
            raise UserError(
                f"holds labels up to {far:.2g} away from whole numbers", "Copy the mask again", path
            )
        labels = rounded
    if labels.min() < 0 or labels.max() > MOST_LABELS:
        raise UserError(f"holds labels from {labels.min()} to {labels.max()}", "Copy the mask again", path)
    return labels.astype(np.uint8)


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
        frames = slices(volume.transpose(2, 1, 0), whole_labels(labels, mask_path).transpose(2, 1, 0))
    except ValueError as error:
        raise UserError(f"holds no picture ({error})", "Copy it again", image_path) from None
    if not frames:
        raise UserError("leaves no slice: no structure is large enough", "Check the mask", mask_path)
    return frames


def read_info(path: Path) -> tuple[str, list[int]]:
    """The group and the end-diastolic and end-systolic frame numbers that an Info.cfg names."""
    check_file(path, "Copy the patient's folder again")
    lines = decoded(path.read_bytes(), path).splitlines()
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    for key in ("ED", "ES", "Group"):
        if not info.get(key):
            raise UserError(f"lacks {key}", "Copy the patient's folder again", path)
    for key in ("ED", "ES"):
        if not info[key].isdecimal():
            raise UserError(f"{key} is {info[key]!r}, not a frame number", "Mend the line", path)
    classes = datasets.get("ACDC").classes
    if info["Group"] not in classes:
        raise UserError(f"group {info['Group']!r} is unknown", f"Use one of {', '.join(classes)}", path)
    return info["Group"], [int(info["ED"]), int(info["ES"])]


def find_phases(database: Path, split: str) -> tuple[list[Case], dict[str, str]]:
    """Two cases a patient of one split, ED before ES, patients by name; and bad patients with the reason."""
    folder = database / FOLDER_OF[split]
    if not folder.is_dir():
        raise UserError("is not a folder", "Give --database, the folder with training/ and testing/", folder)
    cases, rejected = [], {}
    for patient in sorted(path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name)):
        try:
            group, frames = read_info(patient / "Info.cfg")
        except UserError as error:
            rejected[patient.name] = str(error)
            continue
        for frame in frames:
            name = f"{patient.name}_frame{frame:02d}"
            sources = tuple(existing(patient / f"{name}{suffix}.nii.gz") for suffix in ("", "_gt"))
            cases.append(Case(name, split, group, sources))
    return cases, rejected


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database", default="database", help="folder with training/ and testing/ (default: %(default)s)"
    )


def _find(options: argparse.Namespace) -> Found:
    spec = datasets.get("ACDC")
    database = find(options.database, spec.home)
    found = [find_phases(database, split) for split in FOLDER_OF]
    cases = [case for some, _ in found for case in some]
    rejected = {name: reason for _, bad in found for name, reason in bad.items()}
    return Found(cases, read_phase, database.parent / spec.slices_dir, database, rejected)


READER = RawReader(
    "ACDC",
    "ACDC/extract_all_slices.py",
    "Step (a) for ACDC: turn the end-diastolic and end-systolic volumes into 256 x 256 slices, those that show the "
    "heart. training/ becomes the train split, testing/ the test split. Run it inside ACDC/; finished volumes are "
    "passed over.",
    _add_options,
    _find,
    "ACDC/sample_sequences.py",
)
