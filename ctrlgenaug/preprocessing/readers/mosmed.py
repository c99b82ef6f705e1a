"""MosMedData: chest CT volumes to slices, with the published split (method, sections 1 and 2)."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np

from ctrlgenaug import datasets
from ctrlgenaug.arguments import picture_side
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.images import hu_window, to_bytes, zoom_plane
from ctrlgenaug.preprocessing.nifti import existing, read_volume, stem
from ctrlgenaug.preprocessing.notes import note, note_spacing
from ctrlgenaug.preprocessing.raw_files import below, find, reject_all
from ctrlgenaug.preprocessing.readers.reader import Found, RawReader
from ctrlgenaug.preprocessing.stratified import stratified_split
from ctrlgenaug.preprocessing.tables import read_table
from ctrlgenaug.preprocessing.volumes import OWN

AIR = -1000  # HU
COLUMNS = ("category", "study_file")


def slices(volume: np.ndarray) -> dict[int, np.ndarray]:
    """A volume (W, H, n) in HU as upright slices {1: (256, 256) uint8, ...}.

    The published code turns it with ``scipy.ndimage.rotate(volume, 90, reshape=False)``; for this angle the spline is a
    permutation of pixels.
    """
    return {i + 1: to_bytes(zoom_plane(hu_window(np.rot90(volume[:, :, i])))) for i in range(volume.shape[2])}


def read_study(
    case: Case, in_plane: int = 512, as_stored: bool = False, fill_air: bool = False
) -> dict[int, np.ndarray]:
    """The slices of one study.

    Args:
        case: its source is the volume.
        in_plane: rows and columns that a slice must have.
        as_stored: take the axes as the file has them, as published, instead of turning other volumes to LAS.
        fill_air: NaN and infinite voxels become air; else they are an error.

    Raises:
        UserError: the file is no chest CT of ``in_plane`` x ``in_plane`` pixels.
    """
    path = existing(case.sources[0])
    stored = read_volume(path, not_finite=AIR if fill_air else None)
    volume = stored if as_stored else stored.oriented()
    if volume is not stored:
        note(f"turned from {stored.orientation} to {OWN} by the affine (--as_stored keeps the file's axes)")
    voxels = volume.voxels
    if voxels.shape[:2] != (in_plane, in_plane):
        raise UserError(
            f"has slices of {voxels.shape[0]} x {voxels.shape[1]} pixels, not {in_plane} x {in_plane}",
            "Resample the volume, or give --in_plane if the whole data set has another size",
            path,
        )
    if voxels.dtype.kind == "u" and voxels.min() >= 0 and voxels.max() > 255:
        note(
            "hold no value below 0 HU: check that their Hounsfield units have not lost their offset of -1024"
        )
    columns, rows, between = volume.spacing
    note_spacing(between, rows * in_plane / IMAGE_SIZE, columns * in_plane / IMAGE_SIZE)
    shown = slices(voxels)
    if len({(frame.min(), frame.max()) for frame in shown.values()}) == 1 and np.ptp(shown[1]) == 0:
        raise UserError("is constant between -1000 and 400 HU", "Check that it holds Hounsfield units", path)
    return shown


def read_registry(registry: Path, data_root: Path) -> tuple[list[Case], dict[str, str]]:
    """The cases of a registry, train first, in the published split's order; and bad rows with the reason."""
    data = datasets.data_file(datasets.get("MosMed"))
    class_of = {cls: cls for cls in data.classes if cls not in data.class_of.values()} | data.class_of
    table = read_table(registry, columns=COLUMNS)
    if len(table.columns) < 3:
        raise UserError("has fewer than three columns", "Use MosMedData's dataset_registry.xlsx", registry)
    columns = [name if name in table.columns else table.columns[i] for i, name in enumerate(COLUMNS, start=1)]
    rows: list[tuple[str, str, Path]] = []
    rejected = {}
    for number, category, study_file in zip(table.lines, *map(table.column, columns), strict=True):
        try:
            if not category and not study_file:
                continue  # spreadsheets end in empty rows
            if category not in class_of:
                raise UserError(f"category {category!r} is unknown", f"Use one of {', '.join(class_of)}")
            name = check_name(stem(Path(study_file).name))
            rows.append((name, class_of[category], below(data_root, study_file)))
        except UserError as error:
            rejected[f"row {number} of {registry.name}"] = str(error)
    reject_all(len(rows), rejected, registry)
    train, test = stratified_split(
        [cls for _, cls, _ in rows], data.split.test_fraction, data.split.seed, registry
    )
    return [
        Case(rows[i][0], split, rows[i][1], (rows[i][2],))
        for split, indices in (("train", train), ("test", test))
        for i in indices
    ], rejected


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--registry", default="dataset_registry.xlsx", help=".xlsx or .csv (default: %(default)s, or .csv)"
    )
    parser.add_argument(
        "--data_root", help="folder the registry's paths start from (default: the registry's)"
    )
    parser.add_argument(
        "--in_plane",
        type=picture_side,
        default=512,
        help="pixels of a volume's slice sides (default: %(default)s)",
    )
    parser.add_argument(
        "--as_stored",
        action="store_true",
        help="take every volume's axes as stored, as published (default: turn others to LAS by their affine)",
    )
    parser.add_argument(
        "--fill_air", action="store_true", help="NaN voxels become air (default: such a study is skipped)"
    )


def _find(options: argparse.Namespace) -> Found:
    home, spec = datasets.get("MosMed").home, datasets.get("MosMed")
    registry = find(options.registry, home)
    if not registry.exists() and options.registry == "dataset_registry.xlsx":
        as_csv = find(Path(options.registry).with_suffix(".csv"), home)
        registry = as_csv if as_csv.exists() else registry
    cases, rejected = read_registry(registry, Path(options.data_root or registry.parent))
    chosen = {name: True for name in ("as_stored", "fill_air") if getattr(options, name)}
    settings = {"in_plane": options.in_plane, **chosen}
    read = functools.partial(read_study, **settings)
    return Found(cases, read, registry.parent / spec.slices_dir, registry, rejected, settings)


READER = RawReader(
    "MosMed",
    "MosMedData/extract_all_slices.py",
    "Step (a) for MosMedData: turn the CT volumes of a registry into 256 x 256 slices and write the published "
    "train/test split. Run it inside MosMedData/; finished studies are passed over.",
    _add_options,
    _find,
    "MosMedData/sample_sequences.py",
)
