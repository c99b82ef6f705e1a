"""One synthetic clip as NIfTI, DICOM, PNG, npz or MP4. Every format says within the file that the clip is synthetic."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from augment.generation.plan import Sample
from ctrlgenaug.files import atomic_path
from ctrlgenaug.preprocessing.png import encode_png

SYNTHETIC = "Synthetic image sequence made by a generative model (Ctrl-GenAug). It shows no patient."

PERSON = 64  # characters of a DICOM name


@dataclass(frozen=True)
class Clip:
    """What is written.

    Attributes:
        source: the MP4.
        sample: clip, class and seed, as its name says.
        class_id: the class as a number.
        frames: (F, H, W) uint8.
        spacing: millimetres between frames, rows and columns; None: not known.
        model: fingerprint of the model, or "".
    """

    source: Path
    sample: Sample
    class_id: int
    frames: np.ndarray
    spacing: tuple[float, float, float] | None = None
    model: str = ""

    @property
    def name(self) -> str:
        """The MP4's name without suffix."""
        return self.source.stem


def write_nifti(clip: Clip, target: Path) -> None:
    """``{name}.nii.gz``: (columns, rows, frames), LAS, with the spacing of the source clip (1 mm where unknown)."""
    between, rows, columns = clip.spacing or (1.0, 1.0, 1.0)
    # Frames are upright: rows run from front to back, columns from the patient's right to the left.
    voxels = np.ascontiguousarray(clip.frames[:, ::-1].transpose(2, 1, 0))
    image = nibabel.Nifti1Image(voxels, np.diag([-columns, rows, between, 1.0]))
    image.header.set_xyzt_units("mm" if clip.spacing else "unknown")
    image.header["descrip"] = SYNTHETIC[:79].encode()
    with atomic_path(target) as temporary:
        # the temporary name ends in .gz alone, so the suffix that tells nibabel to compress is given in full
        whole = temporary.with_name(temporary.name.removesuffix(".gz") + ".nii.gz")
        nibabel.save(image, whole)
        whole.replace(temporary)


def _person(name: str) -> str:
    r"""``SYNTHETIC^{name}`` as DICOM allows it: 64 characters, without ``\``, ``^`` and ``=``, which divide names."""
    plain = name.translate(str.maketrans("\\^=", "___"))
    room = PERSON - len("SYNTHETIC^")
    if len(plain) > room:  # the end tells class and seed, and a digest one long name from another
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        plain = f"{digest}-{plain[-(room - len(digest) - 1) :]}"
    return f"SYNTHETIC^{plain}"


def write_dicom(clip: Clip, target: Path) -> None:
    """A folder of secondary capture files, a series of its own with fresh UIDs, marked as synthetic."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    content = hashlib.sha256(clip.frames.tobytes()).hexdigest()

    def uid(what: str) -> str:
        """Fresh, but the same for the same clip, so that an export run again is the same series."""
        return generate_uid(entropy_srcs=[what, clip.name, clip.model, content])

    between, rows, columns = clip.spacing or (1.0, 1.0, 1.0)
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for number, frame in enumerate(clip.frames, start=1):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
            meta.MediaStorageSOPInstanceUID = uid(f"frame {number}")
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            data.SOPClassUID, data.SOPInstanceUID = (
                SecondaryCaptureImageStorage,
                meta.MediaStorageSOPInstanceUID,
            )
            data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
            data.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names come from data
            data.PatientName, data.PatientID = _person(clip.name), f"SYNTHETIC-{content[:12]}"
            data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = ""
            data.AccessionNumber = data.StudyID = data.ReferringPhysicianName = ""
            data.Modality, data.ConversionType = "OT", "SYN"
            data.ImageType = ["DERIVED", "SECONDARY", "SYNTHETIC"]
            data.DerivationDescription = (
                f"{SYNTHETIC} Class asked for: {clip.sample.cls}; model {clip.model or 'unknown'}"[:1024]
            )
            data.SeriesDescription = f"SYNTHETIC {clip.sample.cls}"[:64]
            data.SyntheticData = "YES"
            data.BurnedInAnnotation, data.PatientIdentityRemoved = "NO", "YES"
            data.DeidentificationMethod = "Synthetic data"
            data.SeriesNumber, data.InstanceNumber = 1, number
            data.Rows, data.Columns = frame.shape
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated = data.BitsStored = 8
            data.HighBit, data.PixelRepresentation = 7, 0
            if clip.spacing:
                data.PixelSpacing = [f"{rows:.6g}", f"{columns:.6g}"]
                data.SpacingBetweenSlices = data.SliceThickness = f"{between:.6g}"
                data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
                data.ImagePositionPatient = [0, 0, f"{between * (number - 1):.6g}"]
            data.PixelData = np.ascontiguousarray(frame).tobytes()
            pydicom.dcmwrite(temporary / f"{number:04d}.dcm", data, enforce_file_format=True)


def write_png(clip: Clip, target: Path) -> None:
    """A folder of ``frame01.png``, ``frame02.png``, ..."""
    with atomic_path(target) as temporary:
        temporary.mkdir()
        for number, frame in enumerate(clip.frames, start=1):
            (temporary / f"frame{number:02d}.png").write_bytes(encode_png(frame))


def write_npz(clip: Clip, target: Path) -> None:
    """``{name}.npz`` with ``frames`` (F, H, W) uint8, ``class_id``, ``spacing`` (NaN: unknown), ``meta`` (JSON)."""
    meta = {
        "clip": clip.sample.clip,
        "class": clip.sample.cls,
        "seed": clip.sample.seed,
        "note": SYNTHETIC,
        "model": clip.model,
    }
    spacing = np.array(clip.spacing or (np.nan,) * 3)
    with atomic_path(target) as temporary:
        np.savez_compressed(
            temporary,
            frames=clip.frames,
            class_id=np.int64(clip.class_id),
            spacing=spacing,
            meta=np.array(json.dumps(meta)),
        )


def write_mp4(clip: Clip, target: Path) -> None:
    """The MP4 itself."""
    with atomic_path(target) as temporary:
        shutil.copyfile(clip.source, temporary)


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        write: writes one clip whole or not at all.
        suffix: of the file; "" for a folder.
        title: for the card.
    """

    write: Callable[[Clip, Path], None]
    suffix: str
    title: str


FORMATS = {
    "nifti": Format(write_nifti, ".nii.gz", "NIfTI-1 volumes, (columns, rows, frames), uint8"),
    "dicom": Format(write_dicom, "", "DICOM secondary capture, a folder (series) a clip, 8 bits"),
    "png": Format(write_png, "", "PNG, a folder a clip, 8 bits of grey"),
    "npz": Format(write_npz, ".npz", "NumPy archives: frames (F, H, W) uint8, class_id, spacing, meta"),
    "mp4": Format(write_mp4, ".mp4", "H.264 MP4, 2.5 frames/s, as generated"),
}
