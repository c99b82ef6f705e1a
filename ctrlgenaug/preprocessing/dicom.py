"""DICOM: files to series, series to volumes or films. What names a patient is read here and handed on to nobody.

A series of slices with positions is a volume; a multi-frame file, or pictures without positions, is a film.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.images import Box
from ctrlgenaug.preprocessing.notes import note
from ctrlgenaug.preprocessing.raw_files import check_claim, check_memory, check_picture, natural
from ctrlgenaug.preprocessing.volumes import Volume

REMEDY = "Copy it again"
TAGS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "AccessionNumber", "Modality"),
    *("Rows", "Columns", "NumberOfFrames", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"),
    *("InstanceNumber", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation"),
)
RAS_OF_LPS = np.diag(
    [-1.0, -1.0, 1.0, 1.0]
)  # DICOM counts towards left and back, affines towards right and front
SAME_POSITION = 1e-3  # mm
SAME_DIRECTION = 0.01
# objects with pixels that are no pictures of the patient: what was drawn or computed over them
NO_PICTURES = {"SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "PR", "SR", "KO", "REG"}
UNEVEN = 1.5  # a gap so many times the usual distance between slices: one is missing


@dataclass(frozen=True)
class Series:
    """Files that belong together.

    Attributes:
        files: in the order of their positions or numbers.
        ids: what a table may call it: ``series``, ``study``, ``patient``, ``accession``. Not to be shown or written.
        modality: ``CT``, ``MR``, ``US``, ...
        frames: slices or frames.
        size: rows and columns.
    """

    files: tuple[Path, ...]
    ids: dict[str, str] = field(repr=False)
    modality: str = ""
    frames: int = 1
    size: tuple[int, int] = (0, 0)


def _header(path: Path) -> Any:
    """The tags that sort a file into its series; None if it is no DICOM file or holds no picture."""
    import pydicom

    try:
        with _quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TAGS))
            for tag in TAGS:
                header.get(tag)  # values are decoded when they are asked for: a damaged one must be met here
            int(header.Rows), int(header.Columns)
            if _text(header, "Modality").upper() in NO_PICTURES:
                return None
    except Exception:  # a file that is no DICOM or a damaged one can raise nearly anything
        return None
    return header


class _quiet:
    """Keeps the library's warnings, which quote values, out of logs."""

    def __enter__(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._logger = logging.getLogger("pydicom")
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *error: object) -> None:
        self._logger.setLevel(self._level)
        self._warnings.__exit__(*error)  # type: ignore[arg-type]


def _numbers(header: Any, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in header.get(name) or ())
    except (TypeError, ValueError):
        return ()


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()


def _integer(header: Any, name: str, default: int) -> int:
    try:
        return int(str(header.get(name)))
    except (TypeError, ValueError):
        return default


def find_series(files: Iterable[Path]) -> tuple[list[Series], int]:
    """The series among ``files``, in the order of their first files; and how many files are no DICOM pictures.

    A multi-frame file is a series of its own. Files of one series that differ in size or direction (a localiser among
    them) are different series, as are those of other patients and studies, whatever their series' UID: careless
    anonymisers give one to all. Without one the folder tells. A file that is there twice counts once.
    """
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], tuple[Path, Any]]] = defaultdict(dict)
    headers = [
        (path, _header(path) if path.is_file() and path.name != "DICOMDIR" else None) for path in files
    ]
    pictures = [(path, header) for path, header in headers if header is not None]
    uids = Counter(_text(header, "SOPInstanceUID") for _, header in pictures)
    for path, header in pictures:
        uid, position = _text(header, "SOPInstanceUID"), _numbers(header, "ImagePositionPatient")
        instance: tuple[Any, ...] = (uid, position, _text(header, "InstanceNumber"))
        if not uid or (
            uids[uid] > 1 and not position
        ):  # the UID says little where an anonymiser gave one to all
            instance = (uid, hashlib.sha256(path.read_bytes()).hexdigest())
        direction = tuple(round(value, 3) for value in _numbers(header, "ImageOrientationPatient"))
        key: tuple[Any, ...] = (
            *(_text(header, name) for name in ("PatientID", "StudyInstanceUID")),
            _text(header, "SeriesInstanceUID") or path.parent,
            *(int(header.Rows), int(header.Columns)),
            direction,
            instance if _integer(header, "NumberOfFrames", 1) > 1 else "",
        )
        groups[key].setdefault(instance, (path, header))
    return [_series(list(members.values())) for members in groups.values()], len(headers) - len(pictures)


def _series(members: list[tuple[Path, Any]]) -> Series:
    first = members[0][1]
    normal = _normal(_numbers(first, "ImageOrientationPatient"))

    def position(member: tuple[Path, Any]) -> tuple[float, int, list[tuple[int, int | str]]]:
        at = _numbers(member[1], "ImagePositionPatient")
        along = float(np.dot(normal, at)) if normal is not None and len(at) == 3 else 0.0
        return along, _integer(member[1], "InstanceNumber", 0), natural(member[0].name)

    ordered = sorted(members, key=position)
    return Series(
        tuple(path for path, _ in ordered),
        {
            "series": _text(first, "SeriesInstanceUID"),
            "study": _text(first, "StudyInstanceUID"),
            "patient": _text(first, "PatientID"),
            "accession": _text(first, "AccessionNumber"),
        },
        _text(first, "Modality"),
        sum(_integer(header, "NumberOfFrames", 1) for _, header in members),
        (int(first.Rows), int(first.Columns)),
    )


def _normal(direction: Sequence[float] | np.ndarray) -> np.ndarray | None:
    """The direction in which slices follow one another, from those of rows and columns."""
    if len(direction) != 6:
        return None
    normal = np.cross(direction[:3], direction[3:])
    length = np.linalg.norm(normal)
    return normal / length if length > 0.5 else None


def read_series(files: Sequence[Path]) -> tuple[Volume | np.ndarray, Box | None]:
    """Reads a series.

    Args:
        files: in order, see `Series`.

    Returns:
        a `Volume`, or a film (F, H, W) of grey values where the files say no positions; and where within a frame the
        ultrasound image is, if the file says so. Stored values are rescaled to the modality's (HU), MONOCHROME1 is
        turned round, and colours become grey.

    Raises:
        UserError: a file cannot be decoded, claims more than it holds, or slices lie at the same place. It names no
            file, because names of files may be names of patients, but its number.
    """
    planes: list[np.ndarray] = []
    places: list[tuple[np.ndarray, np.ndarray, tuple[float, float]] | None] = []
    region = None
    for number, path in enumerate(files, start=1):
        try:
            data = _opened(path)
            region = region or _ultrasound_region(data)
            for index, plane in enumerate(_frames(data, path)):
                planes.append(plane)
                places.append(_place(data, index))
                check_memory("", len(planes) * plane.nbytes)
        except UserError as error:
            raise UserError(f"file {number} of {len(files)} {error.problem}", error.remedy) from None
        except Exception as error:  # a damaged value is met where it is asked for
            problem = f"file {number} of {len(files)} is damaged ({type(error).__name__})"
            raise UserError(problem, REMEDY) from None
    if len({plane.shape for plane in planes}) > 1:
        raise UserError("holds slices of different sizes", "Export the series again")
    known = [place for place in places if place is not None]
    if len(planes) > 1 and len(known) == len(planes):
        if all(np.allclose(place[1], known[0][1], atol=SAME_DIRECTION) for place in known):
            return _volume(planes, known), region
        note("look in different directions: they are taken for a film, in the order of the file")
    return np.stack(planes), region


def _opened(path: Path) -> Any:
    import pydicom

    size = check_file(path, REMEDY)
    try:
        with _quiet():
            data = pydicom.dcmread(path)
        rows, columns = int(data.Rows), int(data.Columns)
        frames = _integer(data, "NumberOfFrames", 1)
        samples = _integer(data, "SamplesPerPixel", 1)
        if _text(data, "PhotometricInterpretation").endswith("_422"):  # two pixels share their colour
            samples = 2
        each = rows * columns * samples * _integer(data, "BitsAllocated", 8) // 8
        packed = data.file_meta.TransferSyntaxUID.is_compressed
    except Exception as error:  # see `_header`
        raise UserError(f"is not a readable DICOM file ({type(error).__name__})", REMEDY) from None
    check_picture("", rows, columns)
    check_claim("", each * frames, size, packed=packed)
    return data


def _frames(data: Any, path: Path) -> Iterator[np.ndarray]:
    """The frames of a file, one at a time, (H, W)."""
    from pydicom.pixels import apply_color_lut, iter_pixels

    kind = _text(data, "PhotometricInterpretation")
    try:
        with _quiet():
            for index, frame in enumerate(iter_pixels(data)):
                if kind == "PALETTE COLOR":
                    frame = apply_color_lut(frame, data)
                    frame = (frame >> 8).astype(np.uint8) if frame.dtype == np.uint16 else frame
                if frame.ndim == 3:
                    grey = cv2.cvtColor(np.ascontiguousarray(frame[..., :3]), cv2.COLOR_RGB2GRAY)
                    yield grey
                    continue
                if kind == "MONOCHROME1":
                    bits = _integer(data, "BitsStored", frame.dtype.itemsize * 8)
                    low = -(1 << (bits - 1)) if frame.dtype.kind == "i" else 0
                    high = low + (1 << bits) - 1
                    frame = (low + high - frame.astype(np.int64)).astype(frame.dtype)
                yield _rescaled(frame, *_rescale(data, index))
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged data
        reason = type(error).__name__
        if isinstance(error, (NotImplementedError, RuntimeError)) and "decompress" in str(error).lower():
            reason = f"no decoder reads its transfer syntax, {data.file_meta.TransferSyntaxUID.name}"
        raise UserError(f"is damaged or cannot be decoded ({reason})", REMEDY) from None


def _groups(data: Any, index: int) -> list[Any]:
    """What an enhanced multi-frame file says of all frames, and of one of them; the latter counts."""
    shared, each = (data.get(f"{name}FunctionalGroupsSequence") for name in ("Shared", "PerFrame"))
    found = [shared[0] if shared else None, each[index] if each and index < len(each) else None]
    return [group for group in found if group]


def _rescale(data: Any, index: int) -> tuple[float, float]:
    """Slope and intercept of a frame; of enhanced multi-frame files each frame may have its own."""
    source = data
    for group in _groups(data, index):
        if "PixelValueTransformationSequence" in group:
            source = group.PixelValueTransformationSequence[0]
    try:
        return float(source.get("RescaleSlope", 1)), float(source.get("RescaleIntercept", 0))
    except (TypeError, ValueError):
        return 1.0, 0.0


def _rescaled(frame: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if (slope, intercept) == (1.0, 0.0):
        return frame
    if slope.is_integer() and intercept.is_integer() and frame.dtype.kind in "iu" and abs(slope) < 2**15:
        return frame.astype(np.int32) * int(slope) + int(intercept)
    return (frame * slope + intercept).astype(np.float32)


def _place(data: Any, index: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]] | None:
    """Position (mm) of a frame's first pixel, directions of its rows and columns, and its pixel spacing; or None."""
    position, direction = _numbers(data, "ImagePositionPatient"), _numbers(data, "ImageOrientationPatient")
    spacing = _numbers(data, "PixelSpacing")
    for group in _groups(data, index):
        if "PlanePositionSequence" in group:
            position = _numbers(group.PlanePositionSequence[0], "ImagePositionPatient")
        if "PlaneOrientationSequence" in group:
            direction = _numbers(group.PlaneOrientationSequence[0], "ImageOrientationPatient")
        if "PixelMeasuresSequence" in group:
            spacing = _numbers(group.PixelMeasuresSequence[0], "PixelSpacing")
    if len(position) != 3 or _normal(direction) is None:
        return None
    row, column = spacing if len(spacing) == 2 and min(spacing) > 0 else (1.0, 1.0)
    return np.array(position), np.array(direction), (row, column)


def _volume(
    planes: list[np.ndarray], places: list[tuple[np.ndarray, np.ndarray, tuple[float, float]]]
) -> Volume:
    """The volume of slices by their positions: (columns, rows, slices)."""
    _, direction, (row, column) = places[0]
    normal = _normal(direction)
    assert normal is not None
    along = np.array([float(np.dot(normal, place[0])) for place in places])
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    if steps.min() < SAME_POSITION:
        problem = f"holds {int((steps < SAME_POSITION).sum())} slices at the place of another: several phases or echoes"
        raise UserError(problem, "Export each phase or echo as a series of its own")
    usual = float(np.median(steps))
    if steps.max() > UNEVEN * usual:
        note("have slices missing, or unevenly spaced")
    affine = np.eye(4)
    affine[:3, 0] = direction[:3] * column  # along a row, from column to column
    affine[:3, 1] = direction[3:] * row
    affine[:3, 2] = normal * usual
    affine[:3, 3] = places[int(order[0])][0]
    voxels = np.stack([planes[i] for i in order], axis=-1).swapaxes(0, 1)
    return Volume(voxels, RAS_OF_LPS @ affine)


def _ultrasound_region(data: Any) -> Box | None:
    """The largest two-dimensional region of an ultrasound picture, without the machine's margins."""
    boxes = []
    for region in data.get("SequenceOfUltrasoundRegions") or ():
        try:
            left, top = int(region.RegionLocationMinX0), int(region.RegionLocationMinY0)
            right, bottom = int(region.RegionLocationMaxX1), int(region.RegionLocationMaxY1)
        except (AttributeError, TypeError, ValueError):
            continue
        if 0 <= left < right and 0 <= top < bottom:
            boxes.append((slice(top, bottom + 1), slice(left, right + 1)))
    return max(
        boxes, key=lambda box: (box[0].stop - box[0].start) * (box[1].stop - box[1].start), default=None
    )
