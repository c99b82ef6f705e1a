"""export_clips.py: the same grey values in every format, marked as synthetic, with labels and a card."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from augment.export.formats import Clip, write_dicom
from augment.generation.plan import parse_file_name
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
    ("name", "kept"),
    [
        ("患者-Łódź_s01_CT-0_66", "患者-Łódź_s01_CT-0_66"),
        ("a\\b^c=d_s01_CT-0_66", "a_b_c_d_s01_CT-0_66"),
        (f"sub-{'0123456789' * 8}_s01_CT-0_66", "-789012345678901234567890123456789_s01_CT-0_66"),
    ],
)
def test_names_that_dicom_does_not_take_as_they_are(name, kept, tmp_path):
    made = Clip(Path(f"{name}.mp4"), parse_file_name(f"{name}.mp4"), 0, np.zeros((2, 16, 16), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_dicom(made, tmp_path / "series")
        found = str(pydicom.dcmread(tmp_path / "series" / "0001.dcm").PatientName)
    assert found.startswith("SYNTHETIC^") and found.endswith(kept) and len(found) <= 64


@pytest.mark.parametrize("form", ["png", "npz"])
def test_an_export_holds_the_clips_of_its_folder_and_no_others(form, world, tmp_path, call_script):
    """A clip that the filter drops by now, a copy of a patient perhaps, does not stay in what is given away; one that
    was generated again is exported again."""
    folder = tmp_path / "kept"
    for name in NAMES:
        write_mp4(folder / f"{name}.mp4", read_video(world / "synthetic" / f"{name}.mp4"))
    suffix, target = {"png": "", "npz": ".npz"}[form], tmp_path / f"kept_{form}"

    def export():
        return call_script(
            "export_clips.py", "--synthetic", folder, "--format", form, "--num_workers", 1, cwd=world
        ).stdout

    export()
    (target / "mine_and_mine_1").mkdir()
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*") if NAMES[0] in str(path)}
    (folder / f"{NAMES[1]}.mp4").unlink()
    write_mp4(folder / f"{NAMES[2]}.mp4", np.full((8, 64, 64), 77, np.uint8))
    assert "1 clips exported, 1 were there already, 1 removed because their clips are gone" in export()
    assert not (target / f"{NAMES[1]}{suffix}").exists() and (target / "mine_and_mine_1").is_dir()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = target / f"{NAMES[2]}{suffix}"
    frames = read_pngs(again)[0] if form == "png" else np.load(again)["frames"]
    assert abs(int(frames.mean()) - 77) <= 2
    # an export of before there was a record: its labels tell what it put there
    (target / "export_sources.json").unlink()
    (folder / f"{NAMES[2]}.mp4").unlink()
    with (target / "labels.csv").open("a") as handle:
        handle.write("README.md,,,,,\n../kept,,,,,\n")
    assert "0 clips exported, 1 were there already, 1 removed" in export()
    assert {path.name for path in target.iterdir() if "_s0" in path.name} == {f"{NAMES[0]}{suffix}"}
    assert (target / "README.md").is_file() and folder.is_dir()
    (row,) = csv.DictReader((target / "labels.csv").open())
    assert row["file"] == f"{NAMES[0]}{suffix}"


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
