"""Step (a), first part, for TUSC: ultrasound frames cropped to their nodule (method, sections 1 and 2)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import extract
from ctrlgenaug.preprocessing.images import clean_lesion_mask, crop_to_lesion, square_frame
from ctrlgenaug.preprocessing.raw_files import find
from ctrlgenaug.preprocessing.tirads import nodule_number, read_nodules

TUSC = datasets.get("TUSC")

ALL_IMAGES = "TUSC_all_images"


@contextmanager
def open_films(path: Path) -> Iterator[h5py.File]:
    """The hdf5 file, checked: `image` and `mask` (n, H, W) uint8, `annot_id` and `frame_num` (n,)."""
    try:
        films = h5py.File(path, "r")
    except FileNotFoundError:
        raise UserError("does not exist", "Give --hdf5, or run inside TUSC/", path) from None
    except OSError as error:
        raise UserError(f"is not a whole HDF5 file ({error})", "Download it again", path) from None
    with films:
        missing = [name for name in ("image", "mask", "annot_id", "frame_num") if name not in films]
        if missing:
            raise UserError(
                f"lacks the data set {', '.join(missing)}", f"It has {', '.join(films) or 'none'}", path
            )
        image, mask = films["image"], films["mask"]
        if image.ndim != 3 or image.shape != mask.shape or {image.dtype, mask.dtype} != {np.dtype(np.uint8)}:
            raise UserError(
                f"image is {image.shape} {image.dtype} and mask {mask.shape} {mask.dtype}",
                "Both must be (n, H, W) uint8 of one shape",
                path,
            )
        if not len(image) == len(films["annot_id"]) == len(films["frame_num"]):
            raise UserError("its data sets differ in length", "Download it again", path)
        yield films


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def rows_by_nodule(films: h5py.File, path: Path) -> dict[int, list[tuple[int, int]]]:
    """Nodule number -> its (frame number, row) pairs, by frame number; rows of a nodule may lie anywhere."""
    found: dict[int, list[tuple[int, int]]] = {}
    annotations, frames = _texts(films["annot_id"][()]), _texts(films["frame_num"][()])
    for row, (annotation, frame) in enumerate(zip(annotations, frames, strict=True)):
        try:
            found.setdefault(nodule_number(annotation), []).append((int(frame), row))
        except ValueError:
            raise UserError(
                f"row {row} has annot_id {annotation!r} and frame_num {frame!r}", "Download it again", path
            ) from None
    return {number: sorted(pairs) for number, pairs in found.items()}


def crop_frame(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A frame (H, W) uint8 cropped to its nodule: (256, 256) uint8; a ValueError if the mask is empty."""
    return square_frame(crop_to_lesion(image, clean_lesion_mask(mask)))


def read_nodule(case: Case) -> dict[int, np.ndarray]:
    """The frames of one nodule; one frame at a time is in memory at full size."""
    path = case.sources[0]
    with open_films(path) as films:
        pairs = rows_by_nodule(films, path).get(int(case.name.removeprefix("Nodule")), [])
        if not pairs:
            raise UserError("holds no frame of this nodule", "Remove it from metadata.csv", path)
        numbers = [number for number, _ in pairs]
        if len(set(numbers)) < len(numbers):
            raise UserError("holds a frame of this nodule more than once", "Download it again", path)
        frames = {}
        for number, row in pairs:
            try:
                frames[number] = crop_frame(films["image"][row], films["mask"][row])
            except (ValueError, OSError) as error:
                raise UserError(f"frame {number} (row {row}): {error}", "Download it again", path) from None
    if all(np.ptp(frame) == 0 for frame in frames.values()):
        raise UserError("all frames of this nodule are constant", "Download it again", path)
    return frames


def main() -> int:
    """Parses the command line and runs the step."""
    parser = steps.parser(
        "Step (a), first part, for TUSC: crop every ultrasound frame to its nodule, 256 x 256, and write the published "
        "train/test split. Run it inside TUSC/; finished nodules are passed over.",
        "cd TUSC && python extract_all_images.py --num_workers 8",
    )
    parser.add_argument("--hdf5", default="dataset.hdf5", help="images and masks (default: %(default)s)")
    parser.add_argument("--metadata", default="metadata.csv", help="TI-RADS table (default: %(default)s)")
    parser.add_argument("--output", help=f"folder to write (default: {ALL_IMAGES} beside the hdf5 file)")
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    hdf5, metadata = find(arguments.hdf5, TUSC.home), find(arguments.metadata, TUSC.home)
    nodules, rejected = read_nodules(metadata)
    with open_films(hdf5):
        pass  # a file that cannot be read stops here, not once for every nodule
    rejected |= {nodule.case: nodule.problem for nodule in nodules if nodule.problem}
    return extract(
        TUSC,
        [
            Case(nodule.case, nodule.split, nodule.cls, (hdf5,), nodule.text)
            for nodule in nodules
            if not nodule.problem
        ],
        read_nodule,
        arguments.output or hdf5.parent / ALL_IMAGES,
        rejected=rejected,
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        next_step=f"{TUSC.home}/save_all_consecutive_images.py",
    )


if __name__ == "__main__":
    steps.run(main)
