"""From the raw files of one case to its frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.datasets.data_file import DataFile, Slices
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.preprocessing import images, volumes
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.dicom import read_series
from ctrlgenaug.preprocessing.images import Box
from ctrlgenaug.preprocessing.nifti import read_volume
from ctrlgenaug.preprocessing.notes import note, note_spacing
from ctrlgenaug.preprocessing.pictures import read_pages
from ctrlgenaug.preprocessing.raw_files import check_claim, check_memory, check_picture
from ctrlgenaug.preprocessing.volumes import Volume
from ctrlgenaug.video import iterate_video

MOST_FRAMES = 20_000  # of one case
MOST_CHANNELS = 4  # columns of a frame that is none, but a row of coloured pixels
HALF = 128  # above it, a mask's grey value is white


def read_case(case: Case, data: DataFile) -> dict[int, np.ndarray]:
    """The frames of a case: {1: (256, 256) uint8, ...}.

    Raises:
        UserError: a file is damaged, holds no picture, or does not fit the data file. Where cases have pseudonyms the
            error names no file.
    """
    mask_path = case.sources[-1] if data.raw.mask else None
    files = case.sources[:-1] if data.raw.mask else case.sources
    try:
        found, region = read_raw(files, data)
        stack, spacing = _stack(found, data)
        if data.raw.kind in ("video", "frames") and _fits_at_once(data) and stack.dtype == np.uint8:
            data = dataclasses.replace(data, slices=Slices())  # cropped and scaled already
        mask = None
        if mask_path is not None:
            mask = _mask(mask_path, data, found, stack)
        return frames(stack, mask, region, data, spacing)
    except UserError as error:
        if not data.pseudonyms:
            raise
        raise UserError(error.problem, f"{error.remedy}; {data.name}_key.csv says which file it is") from None


def _nifti(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    return read_volume(files[0], not_finite=data.intensity.not_finite), None


def _dicom(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    return read_series(files)


def _video(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    return _piled(iterate_video(files[0]), files[0], data), None


def _frames(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    return _piled((page for path in files for page in read_pages(path)), files[0].parent, data), None


def _piled(pictures: Iterable[np.ndarray], path: Path, data: DataFile) -> np.ndarray:
    """The frames of a film, (F, H, W); already (F, 256, 256) where nothing of the rest is needed (`_fits_at_once`)."""
    pile: list[np.ndarray] = []
    size, deep = None, False
    for picture in pictures:
        if size not in (None, picture.shape):
            problem = (
                f"holds frames of {size[1]} x {size[0]} and of {picture.shape[1]} x {picture.shape[0]} pixels"
            )
            raise UserError(problem, "Scale them to one size", path)
        size = picture.shape
        if pile and deep != (picture.dtype != np.uint8):
            raise UserError("holds frames of 8 bits and of more", "Save all in one depth", path)
        deep = picture.dtype != np.uint8
        if _fits_at_once(data) and picture.dtype == np.uint8:
            picture = fitted(picture[_box(picture[None], None, None, data)])
        pile.append(picture)
        check_memory(path, len(pile) * picture.nbytes)
        if len(pile) > MOST_FRAMES:
            raise UserError(f"has more than {MOST_FRAMES} frames", "Cut it into cases", path)
    if not pile:
        raise UserError("holds no frame", "Copy it again", path)
    return np.stack(pile)


def _fits_at_once(data: DataFile) -> bool:
    """Whether an 8-bit frame of a film can be cropped and scaled before the next one is read: long films fit so."""
    rule = data.intensity
    return not (data.raw.mask or rule.window or rule.percentiles) and data.slices.crop in (
        "none",
        "centre",
        "box",
    )


def _npy(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    path = files[0]
    size = check_file(path)
    if path.suffix.lower() == ".npz":
        array = _single_array(path, size)
    else:
        array = load_npy(path, mmap=True, remedy="Copy it again")
        check_claim(path, array.nbytes, size, packed=False)
    if array.ndim == 4 and array.shape[-1] in (1, 3):  # (F, H, W, 1) or colour
        grey = array[..., 0] if array.shape[-1] == 1 else array @ np.array([0.299, 0.587, 0.114])
        array = grey.astype(array.dtype)
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "iufb":
        problem = f"holds an array of shape {array.shape} and type {array.dtype}"
        raise UserError(problem, "Give (frames, rows, columns) of numbers", path)
    if array.shape[-1] <= MOST_CHANNELS and min(array.shape[:2]) > MOST_CHANNELS:
        problem = f"holds an array of shape {array.shape}: one colour picture, or frames that come last"
        raise UserError(problem, "Give (frames, rows, columns)", path)
    if array.shape[0] == array.shape[1] > array.shape[2]:
        note(
            f"hold frames of {array.shape[2]} columns and many rows: if frames come last, move that axis to the front"
        )
    check_picture(path, *array.shape[1:])
    return np.ascontiguousarray(array), None


def _single_array(path: Path, size: int) -> np.ndarray:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(item.file_size for item in archive.infolist())
        check_claim(path, claimed, size, packed=True)
        with np.load(path, allow_pickle=False) as arrays:
            pictures = [name for name in arrays.files if arrays[name].ndim in (3, 4)]
            if len(pictures) != 1:
                remedy = "Save the frames alone, as one array"
                raise UserError(
                    f"holds {len(pictures)} arrays of frames ({', '.join(arrays.files)})", remedy, path
                )
            return arrays[pictures[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"is not a readable .npz file ({type(error).__name__})", "Copy it again", path
        ) from None


_RAW: dict[str, Callable[[tuple[Path, ...], DataFile], tuple[Volume | np.ndarray, Box | None]]] = {
    "nifti": _nifti,
    "dicom": _dicom,
    "video": _video,
    "frames": _frames,
    "npy": _npy,
}


def read_raw(files: tuple[Path, ...], data: DataFile) -> tuple[Volume | np.ndarray, Box | None]:
    """The grey values of a case's raw files: a volume or a film (F, H, W), and where its ultrasound image is."""
    return _RAW[data.raw.kind](files, data)


Spacing = tuple[float, float, float]


def _stack(found: Volume | np.ndarray, data: DataFile) -> tuple[np.ndarray, Spacing | None]:
    """Slices or frames (n, H, W) as a person looks at them, and the millimetres along n, H and W, where known."""
    if isinstance(found, np.ndarray):
        return found, None
    if data.slices.orientation == "as_stored":
        axis = data.slices.axis
        return volumes.as_stored(found, axis), volumes.spacing_of_slices(found, axis, stored=True)
    oriented = found.oriented()
    if oriented is not found and data.raw.kind == "nifti":  # scanners' own axes are never LAS
        note(
            f"turned from {found.orientation} to {volumes.OWN} by the affine "
            "(slices: {orientation: as_stored} keeps the file's axes)"
        )
    axis = found.thick_axis() if data.slices.axis == "auto" else data.slices.axis
    return volumes.upright(oriented, axis), volumes.spacing_of_slices(oriented, axis)


def _mask(path: Path, data: DataFile, found: Volume | np.ndarray, stack: np.ndarray) -> np.ndarray:
    """The mask (n, H, W) bool, in the orientation of ``stack``."""
    suffix = path.name.lower()
    if suffix.endswith((".nii", ".nii.gz")):
        volume = read_volume(path, allow_constant=True)
        if isinstance(found, Volume):
            axis = found.thick_axis() if data.slices.axis == "auto" else data.slices.axis
            stored = data.slices.orientation == "as_stored"
            mask = (
                volumes.as_stored(volume, data.slices.axis)
                if stored
                else volumes.upright(volume.oriented(), axis)
            )
        else:
            mask = volume.voxels.transpose(2, 1, 0)
    elif suffix.endswith(".npy"):
        mask = load_npy(path)
    else:
        pages = list(read_pages(path))
        fits = len(pages) == 1 and pages[0].shape == stack.shape[1:]
        mask = np.broadcast_to(pages[0], stack.shape) if fits else _same_size(pages, path)
    if mask.shape != stack.shape:
        raise UserError(f"its mask has shape {mask.shape}, the picture {stack.shape}", "Check raw.mask", path)
    # a picture of black and white may have been compressed or scaled; volumes and arrays hold labels
    picture = (
        not suffix.endswith((".nii", ".nii.gz", ".npy")) and mask.dtype == np.uint8 and mask.max() > HALF
    )
    return mask > (HALF if picture else 0)


def _same_size(pages: list[np.ndarray], path: Path) -> np.ndarray:
    if len({page.shape for page in pages}) > 1:
        raise UserError("its mask's pages differ in size", "Check raw.mask", path)
    return np.stack(pages)


def frames(
    stack: np.ndarray,
    mask: np.ndarray | None,
    region: Box | None,
    data: DataFile,
    spacing: Spacing | None = None,
) -> dict[int, np.ndarray]:
    """Grey values (n, H, W) to square frames {1: (256, 256) uint8, ...}, as intensity and slices say.

    ``spacing`` (millimetres along n, H, W) is noted as it becomes in the frames.
    """
    if len(stack) > MOST_FRAMES:
        raise UserError(f"has {len(stack)} slices or frames", "Cut it into cases")
    if mask is not None and data.slices.only_masked:
        kept = mask.any((1, 2))
        if not kept.any():
            raise UserError("its mask is empty", "Check the mask")
        stack, mask = stack[kept], mask[kept]
    box = _box(stack, mask, region, data)
    grey = _grey(stack[:, box[0], box[1]], data)
    shown = {number: fitted(plane) for number, plane in enumerate(grey, start=1)}
    if spacing is not None:
        scale = max(grey.shape[1:]) / IMAGE_SIZE
        note_spacing(spacing[0], spacing[1] * scale, spacing[2] * scale)
    if all(np.ptp(frame) == 0 for frame in shown.values()):
        raise UserError("all frames are constant", "Check the file and the data file's intensity")
    return shown


def fitted(plane: np.ndarray, size: int = IMAGE_SIZE) -> np.ndarray:
    """(H, W) uint8 zero-padded to a square and resized to (size, size); averaged where it shrinks to less than half."""
    square = images.pad_to_square(plane)
    method = cv2.INTER_AREA if len(square) > 2 * size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=method)


def _box(stack: np.ndarray, mask: np.ndarray | None, region: Box | None, data: DataFile) -> Box:
    """The part of each frame that is kept, the same for all, so that the clip does not jump."""
    height, width = stack.shape[1:]
    crop = data.slices.crop
    if crop == "centre":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return slice(top, top + side), slice(left, left + side)
    if crop == "box":
        top, bottom, left, right = data.slices.box
        rows = slice(int(top * height), max(int(bottom * height), int(top * height) + 1))
        return rows, slice(int(left * width), max(int(right * width), int(left * width) + 1))
    if crop == "region":
        if region is None:
            raise UserError("says nothing about an ultrasound region", "Give slices: {crop: box, box: [...]}")
        return slice(region[0].start, min(region[0].stop, height)), slice(
            region[1].start, min(region[1].stop, width)
        )
    if crop == "mask":
        if mask is None or not mask.any():
            raise UserError("its mask is empty", "Check the mask")
        touched = mask.any(0)
        box = images.lesion_box(np.where(touched, 255, 0).astype(np.uint8), speck=0)
        margin = data.slices.margin
        return tuple(  # type: ignore[return-value]
            slice(max(side.start - margin, 0), min(side.stop + margin, size))
            for side, size in zip(box, (height, width), strict=True)
        )
    return slice(0, height), slice(0, width)


def _grey(stack: np.ndarray, data: DataFile) -> np.ndarray:
    """Grey values as uint8, by the data file's intensity."""
    rule = data.intensity
    if stack.dtype.kind == "b":
        stack = stack.astype(np.uint8) * 255
    if stack.dtype.kind == "f" and not np.isfinite(stack).all():
        if rule.not_finite is None:
            count = int((~np.isfinite(stack)).sum())
            raise UserError(f"holds {count} NaN or infinite values", "Repair it, or set intensity.not_finite")
        stack = np.where(np.isfinite(stack), stack, np.asarray(rule.not_finite, stack.dtype))
    if rule.window:
        low, high = rule.window
        return np.stack([images.to_bytes(images.hu_window(plane, low, high)) for plane in stack])
    if rule.as_stored or (stack.dtype == np.uint8 and not rule.percentiles):
        if stack.min() < 0 or stack.max() > 255:
            raise UserError(
                f"holds values from {stack.min()} to {stack.max()}", "Set intensity.window or percentiles"
            )
        return stack.astype(np.uint8)
    low, high = rule.percentiles or (0.5, 99.5)
    try:
        return images.percentile_window(stack, low, high)
    except ValueError as error:
        raise UserError(f"holds no picture ({error})", "Check the file") from None
