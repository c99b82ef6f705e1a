"""export_clips.py: the same grey values in every format, marked as synthetic, with labels and a card."""

from __future__ import annotations

import csv
import json

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from ctrlgenaug.plain_data import write_json
from ctrlgenaug.video import read_video, write_mp4

NAMES = ("study_0001_s01_CT-0_66", "study_0002_s05_CT-234_66", "study_0002_s05_CT-234_3407")
SPACING = {"study_0001": [8.0, 1.4, 1.5]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of three synthetic MosMed clips with what the other steps note there; one source's spacing is known."""
    root = tmp_path_factory.mktemp("export")
    y, x = np.mgrid[:64, :64]
    for index, name in enumerate(NAMES):
        frames = np.stack([np.clip(2 * y + x + 9 * f + 20 * index, 0, 255) for f in range(8)]).astype(
            np.uint8
        )
        write_mp4(root / "synthetic" / f"{name}.mp4", frames)
    (root / "synthetic" / "stray.mp4").write_bytes(b"")
    write_json(
        root / "synthetic" / "settings.json",
        {"model": {"unet": "a1b2"}, "solver": "ddim", "data_name": "MosMed"},
    )
    write_json(
        root / "synthetic" / "VAE_Seq_train_results.json", {f"{NAMES[0]}.mp4": 80.0, f"{NAMES[1]}.mp4": 90.0}
    )
    write_json(root / "synthetic" / "filter_report.json", {"levels": ["class"], "samples": []})
    write_json(root / "evaluation.json", {"metrics": {"fvd": {"value": 12.5}}})
    write_json(root / "MosMedData" / "MosMed_all_slices" / "spacing.json", SPACING)
    return root


def read_nifti(target):
    image = nibabel.load(target)
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
    return np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1], image.header.get_zooms()


def read_dicom(target):
    files = sorted(target.glob("*.dcm"))
    data = [pydicom.dcmread(file) for file in files]
    for item in data:
        assert (
            item.SyntheticData == "YES"
            and "SYNTHETIC" in item.ImageType
            and "shows no patient" in item.DerivationDescription
        )
        assert str(item.PatientName).startswith("SYNTHETIC")
    assert (
        len({item.SOPInstanceUID for item in data}) == 8
        and len({item.SeriesInstanceUID for item in data}) == 1
    )
    zooms = None
    if "PixelSpacing" in data[0]:
        volume = SimpleITK.ReadImage([str(file) for file in files])  # another reader than the writer's
        zooms = volume.GetSpacing()
    return np.stack([item.pixel_array for item in data]), zooms


def read_pngs(target):
    return np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(target.iterdir())]), None


def read_npz(target):
    with np.load(target) as arrays:
        assert json.loads(str(arrays["meta"]))["class"] == "CT-0" and arrays["class_id"] == 0
        return arrays["frames"], arrays["spacing"][::-1]


@pytest.mark.parametrize(
    ("form", "suffix", "read"),
    [
        ("nifti", ".nii.gz", read_nifti), ("dicom", "", read_dicom), ("png", "", read_pngs), ("npz", ".npz", read_npz),
        ("mp4", ".mp4", lambda target: (read_video(target), None)),
    ],
)  # fmt: skip
def test_every_format_holds_the_clips_grey_values(form, suffix, read, world, call_script):
    arguments = ("--synthetic", "synthetic", "--format", form, "--num_workers", 1, "--license", "CC-BY-4.0")
    result = call_script("export_clips.py", *arguments, "--evaluation", "evaluation.json", cwd=world, code=1)
    assert (
        "3 clips exported, 0 were there already" in result.stdout
    )  # the stray is named, and the rest goes on
    target = world / f"synthetic_{form}"
    frames, zooms = read(target / f"{NAMES[0]}{suffix}")
    np.testing.assert_array_equal(frames, read_video(world / "synthetic" / f"{NAMES[0]}.mp4"))
    if zooms is not None:
        np.testing.assert_allclose(zooms, (1.5, 1.4, 16.0), rtol=1e-6)  # every second slice is in a clip
    rows = list(csv.DictReader((target / "labels.csv").open()))
    assert [(row["class"], row["class_id"], row["seed"], row["vae_seq"]) for row in rows] == [
        ("CT-0", "0", "66", "80.0"), ("CT-234", "2", "3407", ""), ("CT-234", "2", "66", "90.0")
    ]  # fmt: skip
    assert all((target / row["file"]).exists() for row in rows)
    card = (target / "README.md").read_text()
    for text in (
        "CC-BY-4.0",
        "CT-0 1, CT-234 2",
        "a1b2",
        "Mean 85.00 %",
        "12.5",
        "for 1 clips, unknown for 2",
        "class",
    ):
        assert text in card
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    again = call_script("export_clips.py", *arguments, "--evaluation", "evaluation.json", cwd=world, code=1)
    assert "0 clips exported, 3 were there already" in again.stdout
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--synthetic", "nowhere"), "is not a folder"),
        (("--synthetic", "MosMedData"), "holds no synthetic clip of MosMed"),
        (("--synthetic", "synthetic", "--data_name", "ACDC"), "holds no synthetic clip of ACDC"),
        (("--synthetic", "synthetic", "--output", "synthetic"), "holds files but no export.json"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, message, world, call_script):
    result = call_script("export_clips.py", "--format", "npz", *arguments, cwd=world, code=2)
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_an_export_is_not_mixed_with_another_format(world, call_script):
    arguments = ("--synthetic", "synthetic", "--output", "one", "--num_workers", 1)
    call_script("export_clips.py", *arguments, "--format", "npz", cwd=world, code=1)
    result = call_script("export_clips.py", *arguments, "--format", "png", cwd=world, code=2)
    assert "was made with other settings (format: npz there, png now" in result.stderr
