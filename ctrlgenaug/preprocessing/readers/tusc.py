"""TUSC: thyroid ultrasound films to frames cropped to their nodule (method, sections 1 and 2).

Three steps, as published: every frame cropped (`IMAGES`), of each nodule the frames that follow one another
(`CONSECUTIVE`), and the nodules' descriptions (`put_texts`).
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import SPLITS
from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.files import check_file
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import read_jsonl, write_jsonl
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.clips import read_cases
from ctrlgenaug.preprocessing.images import lesion_box, square_frame, with_margin
from ctrlgenaug.preprocessing.png import read_png_and_bytes
from ctrlgenaug.preprocessing.raw_files import check_picture, find
from ctrlgenaug.preprocessing.readers.reader import Found, RawReader
from ctrlgenaug.preprocessing.readers.tirads import Nodule, nodule_number, read_nodules

ALL_IMAGES = "TUSC_all_images"
ALONE = {"Nodule4": 1}  # its frame 1 stands alone: the published data drop it and keep the run after it
DATA_SETS = ("image", "mask", "annot_id", "frame_num")


# --- every frame, cropped to its nodule --------------------------------------------------------------------------

# Where a chunk holds parts of several frames (h5py's own choice), those of a few frames fit: each is unpacked once.
CHUNK_CACHE, CHUNK_SLOTS = 64 << 20, 10007
MOST_FRAMES = 10_000_000  # far beyond any data set: a damaged length must not fill the memory


@contextmanager
def open_films(path: Path) -> Iterator[h5py.File]:
    """The hdf5 file, checked: `image` and `mask` (n, H, W) uint8, `annot_id` and `frame_num` (n,)."""
    check_file(path, "Download it again")
    try:
        films = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=CHUNK_SLOTS)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES) or "unable to lock" in str(error):
            remedy = "Close it there, or set HDF5_USE_FILE_LOCKING=FALSE"
            raise UserError("is open in another program", remedy, path) from None
        raise UserError(f"is not a whole HDF5 file ({error})", "Download it again", path) from None
    with films, _named(path):
        missing = [name for name in DATA_SETS if name not in films]
        if missing:
            raise UserError(
                f"lacks the data set {', '.join(missing)}", f"It has {', '.join(films) or 'none'}", path
            )
        for name in DATA_SETS:
            _refuse_elsewhere(films, name, path)
        image, mask = films["image"], films["mask"]
        if image.ndim != 3 or image.shape != mask.shape or {image.dtype, mask.dtype} != {np.dtype(np.uint8)}:
            raise UserError(
                f"image is {image.shape} {image.dtype} and mask {mask.shape} {mask.dtype}",
                "Both must be (n, H, W) uint8 of one shape",
                path,
            )
        check_picture(path, *image.shape[1:])
        if not len(image) == films["annot_id"].size == films["frame_num"].size or len(image) > MOST_FRAMES:
            raise UserError("its data sets differ in length", "Download it again", path)
        yield films


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the library raises where it reads in the midst of a damaged file, as a `UserError`."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, OverflowError, MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = in_one_line(error)
        raise UserError(f"is damaged ({reason})", "Download it again", path) from None


def _refuse_elsewhere(films: h5py.File, name: str, path: Path) -> None:
    """A `UserError` if ``name`` is read from another file: a downloaded file must not open those of this machine."""
    data = films.get(name) if isinstance(films.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise UserError(f"its {name} is a link, no data set of its own", "Download it again", path)


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


@functools.lru_cache(maxsize=1)
def _rows_of_file(path: Path, size: int, changed: int) -> dict[int, list[tuple[int, int]]]:
    """`rows_by_nodule`, once a process and state of the file instead of once a nodule."""
    with open_films(path) as films:
        return rows_by_nodule(films, path)


def crop_frame(image: np.ndarray | h5py.Dataset, mask: np.ndarray) -> np.ndarray:
    """A frame (H, W) uint8 cropped to its nodule: (256, 256) uint8; a ValueError if the mask is empty."""
    return square_frame(image[with_margin(lesion_box(mask), mask.shape)])


def read_nodule(case: Case) -> dict[int, np.ndarray]:
    """The frames of one nodule; of each its mask and the part of the picture around the nodule are in memory."""
    path = case.sources[0]
    with open_films(path) as films:
        status = path.stat()
        rows = _rows_of_file(path, status.st_size, status.st_mtime_ns)
        pairs = rows.get(int(case.name.removeprefix("Nodule")), [])
        if not pairs:
            raise UserError("holds no frame of this nodule", "Remove it from metadata.csv", path)
        numbers = [number for number, _ in pairs]
        if len(set(numbers)) < len(numbers):
            raise UserError("holds a frame of this nodule more than once", "Download it again", path)
        frames = {}
        images, masks = films["image"], films["mask"]
        mask = np.empty(masks.shape[1:], np.uint8)
        for number, row in pairs:
            try:
                masks.read_direct(mask, np.s_[row])
                box = with_margin(lesion_box(mask), mask.shape)
                frames[number] = square_frame(images[(row, *box)])
            except (ValueError, OSError) as error:
                raise UserError(f"frame {number} (row {row}): {error}", "Download it again", path) from None
    if all(np.ptp(frame) == 0 for frame in frames.values()):
        raise UserError("all frames of this nodule are constant", "Download it again", path)
    return frames


def _add_image_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hdf5", default="dataset.hdf5", help="images and masks (default: %(default)s)")
    parser.add_argument("--metadata", default="metadata.csv", help="TI-RADS table (default: %(default)s)")


def _find_nodules(options: argparse.Namespace) -> Found:
    home = datasets.get("TUSC").home
    hdf5, metadata = find(options.hdf5, home), find(options.metadata, home)
    nodules, rejected = read_nodules(metadata)
    with open_films(hdf5):
        pass  # a file that cannot be read stops here, not once for every nodule
    rejected |= {nodule.case: nodule.problem for nodule in nodules if nodule.problem}
    cases = [
        Case(nodule.case, nodule.split, nodule.cls, (hdf5,), nodule.text)
        for nodule in nodules
        if not nodule.problem
    ]
    return Found(cases, read_nodule, hdf5.parent / ALL_IMAGES, metadata, rejected, {"crop_end": "exclusive"})


IMAGES = RawReader(
    "TUSC",
    "TUSC/extract_all_images.py",
    "Step (a), first part, for TUSC: crop every ultrasound frame to its nodule, 256 x 256, and write the published "
    "train/test split. Run it inside TUSC/; finished nodules are passed over.",
    _add_image_options,
    _find_nodules,
    "TUSC/save_all_consecutive_images.py",
)


# --- of each nodule the frames that follow one another -------------------------------------------------------------


def consecutive(case: Case) -> Case:
    """``case`` with the run of consecutive frames that starts at its first frame."""
    spec = datasets.get("TUSC")
    by_number = {spec.parse_frame(path.stem)[1]: path for path in case.sources}
    numbers = sorted(by_number)
    if ALONE.get(case.name) == numbers[0] and numbers[0] + 1 not in by_number and len(numbers) > 1:
        numbers = numbers[1:]
    run = [number for i, number in enumerate(numbers) if number == numbers[0] + i]
    return dataclasses.replace(case, sources=tuple(by_number[number] for number in run))


def read_frames(case: Case) -> dict[int, np.ndarray | bytes]:
    """The frames of a case: PNG files that are whole are taken as they are, without decoding and encoding them."""
    spec = datasets.get("TUSC")
    frames: dict[int, np.ndarray | bytes] = {}
    for path in case.sources:
        frames[spec.parse_frame(path.stem)[1]] = read_png_and_bytes(path)[1]
    return frames


def _add_consecutive_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all_images_dir", default=ALL_IMAGES, help="what the first part wrote (default: %(default)s)"
    )


def _find_runs(options: argparse.Namespace) -> Found:
    spec = datasets.get("TUSC")
    folder = find(options.all_images_dir, spec.home)
    if not folder.is_dir():
        raise UserError("is not a folder", "Run extract_all_images.py first", folder)
    cases = [consecutive(case) for split in SPLITS for case in read_cases(spec, folder, split)]
    return Found(cases, read_frames, folder.parent / spec.slices_dir, folder)


CONSECUTIVE = RawReader(
    "TUSC",
    "TUSC/save_all_consecutive_images.py",
    "Step (a), second part, for TUSC: keep the run of consecutive frames from a nodule's first frame on, so that clips "
    "never jump. Run it inside TUSC/.",
    _add_consecutive_options,
    _find_runs,
    "TUSC/extract_all_texts.py, then TUSC/sample_videos.py",
    reads_raw=False,
)


# --- the nodules' descriptions -------------------------------------------------------------------------------------


def put_texts(folder: Path, nodules: dict[str, Nodule], table: Path) -> tuple[int, int]:
    """Writes each frame's description into the metadata in ``folder``; (rows, rows that changed)."""
    spec = datasets.get("TUSC")
    seen = changed = 0
    with exclusive(folder):
        for split in SPLITS:
            path = spec.metadata_path(folder, split)
            rows = []
            for row in read_jsonl(path, ("file_name", "cls")):
                case, _ = spec.parse_frame(Path(row["file_name"]).stem)
                if case not in nodules or nodules[case].problem:
                    raise UserError(
                        f"has no description of {case}", f"Mend its row, or leave it out of {path}", table
                    )
                if str(row["cls"]) != nodules[case].cls:
                    problem = f"says class {row['cls']} of {case}, {table.name} says {nodules[case].cls}"
                    raise UserError(problem, "Run extract_all_images.py and the step after it again", path)
                rows.append({"file_name": row["file_name"], "text": nodules[case].text, "cls": row["cls"]})
                changed += rows[-1] != row
            seen += len(rows)
            write_jsonl(path, rows)
    return seen, changed


def texts_main() -> int:
    """Parses the command line and runs the third step."""
    spec = datasets.get("TUSC")
    parser = steps.parser(
        "Step (a), third part, for TUSC: write a sentence for each nodule, made from its TI-RADS codes, into the "
        "metadata. The image steps do so too; run this one alone after a correction in the table. Run it inside TUSC/.",
        "cd TUSC && python extract_all_texts.py",
    )
    parser.add_argument("--metadata", default="metadata.csv", help="TI-RADS table (default: %(default)s)")
    parser.add_argument(
        "--all_frames_dir",
        default=spec.slices_dir,
        help="folder with metadata to fill (default: %(default)s)",
    )
    arguments = parser.parse_args()
    table, folder = find(arguments.metadata, spec.home), find(arguments.all_frames_dir, spec.home)
    if not folder.is_dir():
        raise UserError("is not a folder", "Run save_all_consecutive_images.py first", folder)
    nodules, rejected = read_nodules(table)
    for line, reason in rejected.items():
        print(f"skipped {line}: {reason}")
    rows, changed = put_texts(folder, {nodule.case: nodule for nodule in nodules}, table)
    verb = f"wrote the texts of {changed} of" if changed else "already complete: the texts of"
    print(f"{verb} {rows} frames in {folder}; next: {spec.home}/sample_videos.py")
    return 1 if rejected else 0
