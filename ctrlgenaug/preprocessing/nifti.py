"""NIfTI volumes, checked before and after they are read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.files import check_file
from ctrlgenaug.preprocessing.deflate import Errors, unpack_gzip
from ctrlgenaug.preprocessing.raw_files import check_claim
from ctrlgenaug.preprocessing.volumes import NOT_NIFTI, Volume, nibabel

HEADER_BYTES = 544  # enough for NIfTI-1 (352) and NIfTI-2 (544)
SUFFIXES = (".nii.gz", ".nii")
CONVERT = "Convert it, e.g. with dcm2niix"


def existing(path: Path) -> Path:
    """``path``, or the same name with the other suffix: tables say .nii.gz where unpackers left .nii."""
    if path.exists():
        return path
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            for other in SUFFIXES:
                twin = path.with_name(path.name.removesuffix(suffix) + other)
                if twin.is_file():
                    return twin
            break
    return path


def stem(name: str) -> str:
    """A file's name without .nii or .nii.gz."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def read_nifti(
    path: str | Path, *, allow_constant: bool = False, not_finite: float | None = None
) -> np.ndarray:
    """The voxels of `read_volume`: (X, Y, Z) in the axis order of the file."""
    return read_volume(path, allow_constant=allow_constant, not_finite=not_finite).voxels


def read_volume(path: str | Path, *, allow_constant: bool = False, not_finite: float | None = None) -> Volume:
    """Reads a volume in the axis order of the file, its scale factors applied.

    Whether it is compressed is told by its content, not by its name.

    Args:
        path: a .nii or .nii.gz file.
        allow_constant: accept a volume whose voxels are all equal (an empty mask).
        not_finite: what NaN and infinite voxels become; None: they are an error.

    Returns:
        (X, Y, Z) integers or floats, finite, with the affine.

    Raises:
        UserError: missing, truncated, not NIfTI, claiming more than it holds, not three-dimensional, NaN, infinite or
            constant.
    """
    path = Path(path)
    stored = check_file(path)
    data = path.read_bytes()
    packed = data[:2] == b"\x1f\x8b"
    try:
        head = unpack_gzip(data, HEADER_BYTES) if packed else data[:HEADER_BYTES]
        image_class = _image_class(head, path)
        header = image_class.header_class.from_fileobj(
            io.BytesIO(head[: image_class.header_class.sizeof_hdr])
        )
        shape = _three_dimensional(header.get_data_shape(), path)
        claimed = int(np.prod(shape, dtype=np.int64)) * header.get_data_dtype().itemsize
        first = int(header.get_data_offset())
        check_claim(path, claimed, stored - first, packed=packed)
        whole = first + claimed
        data = unpack_gzip(data, whole) if packed else data
        if len(data) < whole:
            raise UserError(f"is damaged or truncated ({len(data)} of {whole} bytes)", "Copy it again", path)
        image = image_class.from_bytes(data)
        voxels = np.asanyarray(image.dataobj).reshape(shape, order="F")
    except NOT_NIFTI as error:
        raise UserError(f"is not a NIfTI volume ({in_one_line(error)})", CONVERT, path) from None
    except (EOFError, OSError, ValueError, TypeError, OverflowError, *Errors) as error:
        raise UserError(f"is damaged or truncated ({in_one_line(error)})", "Copy it again", path) from None
    return Volume(_checked(voxels, path, allow_constant, not_finite), np.asarray(image.affine, np.float64))


def _image_class(head: bytes, path: Path) -> type[nibabel.Nifti1Image]:
    for image_class in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        size = image_class.header_class.sizeof_hdr
        if len(head) >= size and image_class.header_class.may_contain_header(head[:size]):
            magic = head[344:348] if size == 348 else head[4:8]
            if magic[:2] == b"ni":
                raise UserError("is the header of a .hdr/.img pair", f"Join the two. {CONVERT}", path)
            return image_class
    raise UserError("is not a NIfTI volume (no NIfTI header)", CONVERT, path)


def _three_dimensional(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """(X, Y, Z); further dimensions of size 1 are dropped."""
    kept = shape
    while len(kept) > 3 and kept[-1] == 1:
        kept = kept[:-1]
    if len(kept) != 3 or min(kept) < 1:
        raise UserError(f"has shape {shape}, not three dimensions", "Give one volume of stacked slices", path)
    return int(kept[0]), int(kept[1]), int(kept[2])


def _checked(voxels: np.ndarray, path: Path, allow_constant: bool, not_finite: float | None) -> np.ndarray:
    if voxels.dtype.kind not in "iuf":
        remedy = "Convert it to one number a voxel"
        raise UserError(f"holds {voxels.dtype} values, not grey values", remedy, path)
    if voxels.dtype.kind == "f":
        bad = ~np.isfinite(voxels)
        if count := int(bad.sum()):
            if not_finite is None:
                at = tuple(int(i) for i in np.argwhere(bad)[0])
                problem = f"holds {count} NaN or infinite voxels of {voxels.size}, the first at {at}"
                raise UserError(problem, "Repair the volume, or say what they are to become", path)
            voxels = np.where(bad, np.asarray(not_finite, voxels.dtype), voxels)
    if not allow_constant and voxels.min() == voxels.max():
        raise UserError(f"is constant (all voxels {voxels.flat[0]})", "Copy the volume again", path)
    return voxels
