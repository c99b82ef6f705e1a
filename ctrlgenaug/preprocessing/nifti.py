"""NIfTI volumes, checked when read."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from ctrlgenaug.errors import UserError

MOST_VOXELS = 2**31  # a header may claim anything; no scan is this large


def read_nifti(path: str | Path, *, allow_constant: bool = False) -> np.ndarray:
    """Reads a volume in the axis order of the file, its scale factors applied.

    Args:
        path: a .nii or .nii.gz file.
        allow_constant: accept a volume whose voxels are all equal (an empty mask).

    Returns:
        (X, Y, Z) integers or floats, finite.

    Raises:
        UserError: missing, truncated, not NIfTI, not three-dimensional, NaN, infinite or constant.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("does not exist", "Add the file, or remove it from the table that names it", path)
    if path.stat().st_size == 0:
        raise UserError("is empty (0 bytes)", "Copy it again", path)
    try:
        image = nibabel.load(path, mmap=False)
        shape = image.shape
        if len(shape) != 3 or 0 in shape:
            raise UserError(
                f"has shape {shape}, not three dimensions", "Give one volume of stacked slices", path
            )
        if np.prod(shape, dtype=np.int64) > MOST_VOXELS:
            raise UserError(f"claims {shape} voxels", "Check its header", path)
        voxels = np.asanyarray(image.dataobj)
    except ImageFileError as error:
        raise UserError(f"is not a NIfTI volume ({error})", "Convert it, e.g. with dcm2niix", path) from None
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(
            f"is damaged or truncated ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            "Copy it again",
            path,
        ) from None
    if voxels.dtype.kind not in "iuf":
        raise UserError(
            f"holds {voxels.dtype} values, not grey values", "Convert it to one number a voxel", path
        )
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise UserError("holds NaN or infinite voxels", "Repair the volume", path)
    if not allow_constant and voxels.min() == voxels.max():
        raise UserError(f"is constant (all voxels {voxels.flat[0]})", "Copy the volume again", path)
    return voxels
