"""Volumes with their orientation, and how they become upright slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctrlgenaug.imports import without
from ctrlgenaug.preprocessing.notes import note

with without(
    "pydicom"
):  # half of nibabel's start, to understand DICOM headers that converters attach to NIfTI files
    import nibabel
    from nibabel import orientations
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

# Axis of slices in an LAS volume: x to the left, y to the front, z to the head.
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
OWN = "LAS"
NOT_NIFTI = (ImageFileError, HeaderDataError)  # what nibabel raises where it reads something else


@dataclass(frozen=True)
class Volume:
    """Grey values with their place in the patient.

    Attributes:
        voxels: (X, Y, Z).
        affine: (4, 4), voxel indices to millimetres, RAS+.
    """

    voxels: np.ndarray
    affine: np.ndarray

    @property
    def orientation(self) -> str:
        """Where the three axes lead, e.g. ``LAS``; ``?`` for one of which the affine does not say it."""
        if not np.isfinite(self.affine).all():
            return "???"
        return "".join(axis or "?" for axis in nibabel.aff2axcodes(self.affine))

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along the three axes; 0 where the affine does not say it."""
        x, y, z = np.nan_to_num(np.sqrt((self.affine[:3, :3] ** 2).sum(0)), posinf=0)
        return float(x), float(y), float(z)

    def oriented(self, wanted: str = OWN) -> Volume:
        """The volume with its axes swapped and mirrored, so that they lead to ``wanted``; no value is interpolated.

        Where the affine does not say where they lead, it is the volume as stored, and a note.
        """
        if "?" in self.orientation:
            note("have an affine that tells no orientation: their axes are taken as stored")
            return self
        if self.orientation == wanted:
            return self
        change = orientations.ornt_transform(
            orientations.io_orientation(self.affine), orientations.axcodes2ornt(wanted)
        )
        affine = self.affine @ orientations.inv_ornt_aff(change, self.voxels.shape)
        return Volume(orientations.apply_orientation(self.voxels, change), affine)

    def thick_axis(self) -> str:
        """The axis along which the slices lie furthest apart; where all are alike, the last one of the file."""
        spacing = np.array(self.spacing)
        axis = 2 if spacing.max() < 1.01 * spacing.min() else int(np.argmax(spacing))
        toward = self.orientation[axis]
        return {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal"}.get(toward, "axial")


def spacing_of_slices(
    volume: Volume, axis: str = "auto", *, stored: bool = False
) -> tuple[float, float, float]:
    """Millimetres between the slices, rows and columns that `upright` (or, ``stored``, `as_stored`) returns."""
    along = 2 if stored and axis == "auto" else AXES[volume.thick_axis() if axis == "auto" else axis]
    columns, rows = (side for index, side in enumerate(volume.spacing) if index != along)
    return volume.spacing[along], rows, columns


def upright(volume: Volume, axis: str = "auto") -> np.ndarray:
    """The slices of an LAS volume as a reader of films holds them: head or front up, the patient's right on the left.

    Args:
        volume: LAS, see `Volume.oriented`.
        axis: a key of `AXES`; ``auto`` is `Volume.thick_axis`.

    Returns:
        (n, H, W); axial slices from the feet up, coronal ones from the back, sagittal ones from the right, front on
        the left.
    """
    along = AXES[volume.thick_axis() if axis == "auto" else axis]
    slices = np.moveaxis(volume.voxels, along, 0)  # (n, first remaining axis, second)
    upright_slices = np.rot90(slices, axes=(1, 2))  # the second axis leads up, the first to the right
    return upright_slices[:, :, ::-1] if along == 0 else upright_slices


def as_stored(volume: Volume, axis: str = "auto") -> np.ndarray:
    """The slices in the file's own axes, (n, rows, columns) as image programs show (X, Y, Z): the last axis is n.

    ``axis`` other than ``auto`` names the file's axis by what it would be in an LAS volume.
    """
    along = 2 if axis == "auto" else AXES[axis]
    return np.moveaxis(volume.voxels, along, 0).swapaxes(1, 2)
