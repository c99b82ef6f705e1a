"""The five folders of docs/your_own_data.md, with drawn patients: told apart by the size of a disc."""

from __future__ import annotations

from pathlib import Path

import cv2
import imageio_ffmpeg
import nibabel
import numpy as np
import pandas
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

PATIENTS = 6  # the first three of one class, the others of the other
FRAMES = 9


def picture(patient: int, frame: int, size: int = 48) -> np.ndarray:
    """(size, size) uint8: a disc that moves from frame to frame, larger in the second class."""
    image = np.full((size, size), 20 + 5 * patient, np.uint8)
    radius = size // 10 + (size // 6) * (patient >= PATIENTS // 2)
    cv2.circle(image, (size // 3 + frame, size // 2 + patient), radius, 220, -1, cv2.LINE_AA)
    cv2.rectangle(image, (2, 2), (size // 4, size // 8), 120, -1)  # so that mirrored pictures differ
    return image


def film(patient: int, frames: int = FRAMES, size: int = 48) -> np.ndarray:
    """(F, size, size) uint8."""
    return np.stack([picture(patient, frame, size) for frame in range(frames)])


def brain(folder: Path, affines: dict[int, np.ndarray] | None = None) -> Path:
    """NIfTI volumes and a CSV with patient, grade and split."""
    (folder / "volumes").mkdir(parents=True)
    rows = []
    for patient in range(PATIENTS):
        upright = film(patient).astype(np.int16) * 3  # (n, H, W)
        las = np.rot90(upright, -1, axes=(1, 2)).transpose(1, 2, 0)
        affine = np.diag([-1.0, 1.0, 5.0, 1.0])
        image = nibabel.Nifti1Image(np.ascontiguousarray(las), affine)
        nibabel.save(image, folder / "volumes" / f"p{patient:02d}_T1w.nii.gz")
        grade = "low_grade" if patient < 3 else "high_grade"
        rows.append(
            {
                "scan": f"p{patient:02d}",
                "sex": "f" if patient % 2 else "m",
                "grade": grade,
                "split": "test" if patient % 3 == 0 else "train",
            }
        )
    pandas.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder


def dicom_slice(
    path: Path, pixels: np.ndarray, *, series: str, study: str, patient: str, number: int, **tags
) -> None:
    """A CT slice with everything that names a patient in it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = series, study
    data.PatientID, data.PatientName, data.PatientBirthDate = (
        f"MRN{patient}",
        f"Doe^Jane{patient}",
        "19510203",
    )
    data.StudyDate, data.AccessionNumber, data.Modality = "20200229", f"REQ{patient}", "CT"
    data.InstanceNumber = number
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, -5.0 * number]
    data.PixelSpacing, data.SliceThickness = [0.8, 0.8], 5
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def lung(folder: Path) -> Path:
    """A folder of CT series as an archive exports them, and a workbook that knows patients by their ids."""
    rows = []
    for patient in range(PATIENTS):
        series, study = generate_uid(), generate_uid()
        for k, plane in enumerate(film(patient)):
            dicom_slice(
                folder / "export" / f"JANE_DOE_{patient}" / "ST1" / f"IM{k:04d}",
                plane.astype(np.int16) * 6,
                series=series,
                study=study,
                patient=str(patient),
                number=FRAMES - k,  # instance numbers run against the position
            )
        rows.append(
            {
                "Patient ID": f"MRN{patient}",
                "Age": 60 + patient,
                "Diagnosis": "COVID" if patient < 3 else "CAP",
            }
        )
    pandas.DataFrame(rows).to_excel(folder / "clinical.xlsx", index=False)
    return folder


def write_video(path: Path, frames: np.ndarray, codec: str = "mpeg4") -> None:
    """An ultrasound film as machines export it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = imageio_ffmpeg.write_frames(
        str(path), frames.shape[2:0:-1], pix_fmt_in="gray", codec=codec, fps=25, quality=9, macro_block_size=1
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def thyroid(folder: Path) -> Path:
    """Ultrasound films in a folder for each class; no table."""
    for patient in range(PATIENTS):
        cls = "benign" if patient < 3 else "malignant"
        suffix = "mp4" if patient % 2 else "avi"
        write_video(folder / cls / f"case{patient}.{suffix}", film(patient, frames=18, size=64))
    return folder


def polyp(folder: Path) -> Path:
    """Frames as PNG, a folder for each case below train/ and test/, and a table."""
    rows = []
    for patient in range(PATIENTS):
        target = folder / ("test" if patient % 3 == 0 else "train") / f"seq{patient}"
        target.mkdir(parents=True)
        for k, frame in enumerate(film(patient)):
            cv2.imwrite(str(target / f"frame{k + 1}.png"), cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        rows.append(
            {
                "sequence": f"seq{patient}",
                "kind": "adenoma" if patient < 3 else "hyperplastic",
                "report": f"A {patient + 3} mm polyp in the ascending colon.",
            }
        )
    pandas.DataFrame(rows).to_csv(folder / "labels.tsv", sep="\t", index=False)
    return folder


def knee(folder: Path) -> Path:
    """Arrays and a semicolon CSV with several scans of a patient."""
    (folder / "scans").mkdir(parents=True)
    lines = ["scan;patient;tear"]
    for scan in range(2 * PATIENTS):
        np.save(folder / "scans" / f"{scan:04d}.npy", film(scan // 2) + np.uint8(scan % 2))
        lines.append(f"{scan};{scan // 2 + 100};{int(scan // 2 >= 3)}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


EXAMPLES = {"Brain": brain, "Lung": lung, "Thyroid": thyroid, "Polyp": polyp, "Knee": knee}


def ultrasound_dicom(path: Path, frames: np.ndarray, patient: str = "9") -> None:
    """A colour multi-frame film with burned-in margins and the region that says so."""
    count, height, width = frames.shape
    wide = np.zeros((count, height + 20, width + 30, 3), np.uint8)
    wide[:, 5:12, 5:60] = 255  # name and date, burned in
    wide[:, 20:, 30:] = frames[..., None]
    region = pydicom.Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 30, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = width + 29, height + 19
    dicom_slice(
        path, wide, series=generate_uid(), study=generate_uid(), patient=patient, number=1,
        SOPClassUID=UltrasoundMultiFrameImageStorage, Rows=height + 20, Columns=width + 30, NumberOfFrames=count,
        SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB", Modality="US",
        SequenceOfUltrasoundRegions=[region], RescaleIntercept=0,
    )  # fmt: skip
    data = pydicom.dcmread(path)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(data, name)
    data.save_as(path)
