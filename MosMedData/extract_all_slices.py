"""Step (a) for MosMedData: chest CT volumes to slices, with the published split (method, sections 1 and 2)."""

import functools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.images import hu_window, to_bytes, zoom_plane
from ctrlgenaug.preprocessing.nifti import read_nifti
from ctrlgenaug.preprocessing.raw_files import find
from ctrlgenaug.preprocessing.tables import read_table, stratified_split

MOSMED = datasets.get("MosMed")

CLASS_OF = {"CT-0": "CT-0", "CT-1": "CT-1", "CT-2": "CT-234", "CT-3": "CT-234", "CT-4": "CT-234"}


def slices(volume: np.ndarray) -> dict[int, np.ndarray]:
    """A volume (W, H, n) in HU as upright slices {1: (256, 256) uint8, ...}.

    The published code turns it with ``scipy.ndimage.rotate(volume, 90, reshape=False)``; for this angle the spline is a
    permutation of pixels.
    """
    return {i + 1: to_bytes(zoom_plane(hu_window(np.rot90(volume[:, :, i])))) for i in range(volume.shape[2])}


def read_study(case: Case, in_plane: int = 512) -> dict[int, np.ndarray]:
    """The slices of one study; a `UserError` if the file is no chest CT of ``in_plane`` x ``in_plane`` pixels."""
    path = case.sources[0]
    volume = read_nifti(path)
    if volume.shape[:2] != (in_plane, in_plane):
        raise UserError(
            f"has slices of {volume.shape[0]} x {volume.shape[1]} pixels, not {in_plane} x {in_plane}",
            "Resample the volume, or give --in_plane if the whole data set has another size",
            path,
        )
    shown = slices(volume)
    if len({(frame.min(), frame.max()) for frame in shown.values()}) == 1 and np.ptp(shown[1]) == 0:
        raise UserError("is constant between -1000 and 400 HU", "Check that it holds Hounsfield units", path)
    return shown


def study_path(data_root: Path, study_file: str) -> Path:
    """Where a registry's ``study_file`` is: below the root, although the registry writes it with a leading slash."""
    path = data_root / study_file.lstrip("/\\")
    if not path.resolve().is_relative_to(data_root.resolve()):
        raise UserError(f"{study_file!r} leaves the data folder", "Mend the registry")
    return path


def read_registry(registry: Path, data_root: Path) -> tuple[list[Case], dict[str, str]]:
    """The cases of a registry, train first, in the published split's order; and bad rows with the reason."""
    table = read_table(registry)
    if table.shape[1] < 3:
        raise UserError("has fewer than three columns", "Use MosMedData's dataset_registry.xlsx", registry)
    columns = [
        name if name in table.columns else table.columns[i]
        for i, name in ((1, "category"), (2, "study_file"))
    ]
    rows, rejected = [], {}
    for number, (category, study_file) in enumerate(table[columns].itertuples(index=False), start=2):
        try:
            if not category and not study_file:
                continue  # spreadsheets end in empty rows
            if category not in CLASS_OF:
                raise UserError(f"category {category!r} is unknown", f"Use one of {', '.join(CLASS_OF)}")
            name = Path(study_file).name.removesuffix(".gz").removesuffix(".nii")
            rows.append((check_name(name), CLASS_OF[category], study_path(data_root, study_file)))
        except UserError as error:
            rejected[f"row {number} of {registry.name}"] = str(error)
    train, test = stratified_split([cls for _, cls, _ in rows], 0.2, 33, registry)
    return [
        Case(rows[i][0], split, rows[i][1], (rows[i][2],))
        for split, indices in (("train", train), ("test", test))
        for i in indices
    ], rejected


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a) for MosMedData: turn the CT volumes of a registry into 256 x 256 slices and write the published "
        "train/test split. Run it inside MosMedData/; finished studies are passed over.",
        "cd MosMedData && python extract_all_slices.py --num_workers 8",
    )
    parser.add_argument(
        "--registry", default="dataset_registry.xlsx", help=".xlsx or .csv (default: %(default)s, or .csv)"
    )
    parser.add_argument(
        "--data_root", help="folder the registry's paths start from (default: the registry's)"
    )
    parser.add_argument(
        "--output", help=f"folder to write (default: {MOSMED.slices_dir} beside the registry)"
    )
    parser.add_argument(
        "--in_plane", type=int, default=512, help="pixels of a volume's slice sides (default: %(default)s)"
    )
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    registry = find(arguments.registry, MOSMED.home)
    if not registry.exists() and arguments.registry == parser.get_default("registry"):
        as_csv = find(Path(arguments.registry).with_suffix(".csv"), MOSMED.home)
        registry = as_csv if as_csv.exists() else registry
    cases, rejected = read_registry(registry, Path(arguments.data_root or registry.parent))
    return extract(
        MOSMED,
        cases,
        functools.partial(read_study, in_plane=arguments.in_plane),
        arguments.output or registry.parent / MOSMED.slices_dir,
        settings={"in_plane": arguments.in_plane},
        rejected=rejected,
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        next_step=f"{MOSMED.home}/sample_sequences.py",
    )


if __name__ == "__main__":
    steps.run(main)
