"""DICOM as archives export it: series, positions, transfer syntaxes, colours; and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from raw_examples import dicom_slice, film

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing import notes
from ctrlgenaug.preprocessing.dicom import find_series, read_series
from ctrlgenaug.preprocessing.volumes import Volume, upright

FILM = film(3, 7).astype(np.int16)
SYNTAXES = (
    "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "MR_small_expb.dcm",
)  # fmt: skip
COLOURS = (
    "SC_rgb_rle.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_small_odd.dcm",
    "examples_rgb_color.dcm", "examples_palette.dcm", "SC_rgb_rle_2frame.dcm",
)  # fmt: skip


def sample(name):
    """A file of pydicom's own package, without asking the network; the test is skipped if this release lacks it."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom has no {name}")
    return Path(path)


def series(folder, order=(0, 1, 2, 3, 4, 5, 6), *, uid=None, **tags):
    """A CT series whose instance numbers and names say nothing about positions."""
    uid, study = uid or generate_uid(), generate_uid()
    for k in order:
        position = tags.get("ImagePositionPatient", [0, 0, 5.0 * k])
        dicom_slice(
            folder / f"{(k * 5) % 7}_{len(list(folder.glob('*')))}.dcm", FILM[k], series=uid, study=study, patient="1",
            number=(k * 3) % 7, **{**tags, "ImagePositionPatient": position},
        )  # fmt: skip
    return folder


def test_slices_are_sorted_by_position_and_rescaled(tmp_path):
    series(tmp_path, (4, 1, 6, 0, 3, 5, 2))
    (found,), others = find_series(sorted(tmp_path.iterdir()))
    volume, region = read_series(found.files)
    assert isinstance(volume, Volume) and region is None and others == 0 and found.frames == 7
    assert volume.orientation == "LPS" and np.allclose(volume.spacing, (0.8, 0.8, 5))
    np.testing.assert_array_equal(upright(volume.oriented()), FILM - 1024)


def test_a_sagittal_series_is_shown_as_it_was_taken(tmp_path):
    for k in range(len(FILM)):
        dicom_slice(
            tmp_path / f"{k}.dcm", FILM[k], series="1.2.3", study="1.2", patient="1", number=k,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[4.0 * k, 0, 0],
        )  # fmt: skip
    volume, _ = read_series(find_series(sorted(tmp_path.iterdir()))[0][0].files)
    assert volume.thick_axis() == "sagittal"
    stack = upright(volume.oriented())
    assert any(np.array_equal(stack, way) for way in (FILM - 1024, FILM[::-1] - 1024))


@pytest.mark.parametrize("name", SYNTAXES)
def test_every_transfer_syntax_gives_the_same_pixels(name):
    expected, _ = read_series([sample("MR_small.dcm")])
    found, _ = read_series([sample(name)])
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (1, 64, 64) and found.std() > 0


@pytest.mark.parametrize("name", COLOURS)
def test_colours_become_grey(name):
    found, _ = read_series([sample(name)])
    assert found.dtype == np.uint8 and found.ndim == 3 and len(found) == (2 if "2frame" in name else 1)
    assert np.ptp(found) > 20


def test_monochrome1_is_turned_round(tmp_path):
    usual, negative = tmp_path / "usual", tmp_path / "negative"
    series(usual, (0,), RescaleIntercept=0)
    top = 2**15 - 1
    dicom_slice(
        negative / "x.dcm", (-1 - FILM[0]).astype(np.int16), series="1.1", study="1", patient="1", number=1,
        PhotometricInterpretation="MONOCHROME1", RescaleIntercept=0,
    )  # fmt: skip
    expected, found = (read_series(sorted(folder.iterdir()))[0] for folder in (usual, negative))
    np.testing.assert_array_equal(found, expected)
    assert found.max() < top


def test_series_are_told_apart(tmp_path):
    uid = generate_uid()
    series(tmp_path / "a", uid=uid)
    series(tmp_path / "b", (0, 1, 2))
    # a localiser within the first series, taken across the others
    dicom_slice(
        tmp_path / "a" / "localiser.dcm", FILM[0], series=uid, study="1", patient="1", number=99,
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 0, 0],
    )  # fmt: skip
    shutil.copy(next((tmp_path / "b").iterdir()), tmp_path / "b" / "copy.dcm")  # the same instance again
    (tmp_path / "a" / "report.txt").write_text("no DICOM")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    found, others = find_series(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert sorted(item.frames for item in found) == [1, 3, 7] and others == 2


@pytest.mark.parametrize("shared", ["SeriesInstanceUID", "SOPInstanceUID", "all UIDs", "no UIDs"])
def test_uids_that_an_anonymiser_gave_to_all_mix_no_patients(shared, tmp_path):
    """And lose no slice: files of one instance UID are copies only where they are of one place, or equal."""
    fixed = {"SeriesInstanceUID": "1.2", "StudyInstanceUID": "1.3", "SOPInstanceUID": "1.4"}
    fixed = {"all UIDs": fixed, "no UIDs": dict.fromkeys(fixed, "")}.get(shared, {shared: "1.2"})
    for who in ("1", "2"):
        for k in range(4):
            tags = {"SeriesInstanceUID": f"1.5.{who}", "StudyInstanceUID": f"1.6.{who}"} | fixed
            dicom_slice(
                tmp_path / who / f"{k}.dcm", FILM[k] + int(who), series="", study="", patient=who, number=k,
                **tags, ImagePositionPatient=[0, 0, 5.0 * k],
            )  # fmt: skip
            still = pydicom.dcmread(
                tmp_path / who / f"{k}.dcm"
            )  # one without a place, as ultrasound machines write
            still.Modality, still.SeriesInstanceUID = "US", fixed.get("SeriesInstanceUID", f"1.7.{who}")
            del still.ImagePositionPatient, still.ImageOrientationPatient, still.InstanceNumber
            still.save_as(tmp_path / who / f"still{k + 8}.dcm")  # 8, 9, 10, 11: in the order of numbers
            shutil.copy(tmp_path / who / f"still{k + 8}.dcm", tmp_path / who / f"copy{k + 8}.dcm")
    found, _ = find_series(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert sorted((item.ids["patient"], item.modality, item.frames) for item in found) == [
        (f"MRN{who}", kind, 4) for who in "12" for kind in ("CT", "US")
    ]
    for item in found:
        who = item.ids["patient"][-1]
        read, _ = read_series(item.files)
        stack = upright(read.oriented()) if isinstance(read, Volume) else read
        np.testing.assert_array_equal(stack, FILM[:4] + int(who) - 1024)


def _enhanced(path, frames, **of_frame):
    """A multi-frame file whose frames have their own groups."""
    dicom_slice(
        path,
        frames,
        series="1.1",
        study="1",
        patient="1",
        number=1,
        NumberOfFrames=len(frames),
        Modality="MR",
    )
    data = pydicom.dcmread(path)
    del data.ImagePositionPatient, data.ImageOrientationPatient, data.RescaleSlope, data.RescaleIntercept
    groups = []
    for index in range(len(frames)):
        group = pydicom.Dataset()
        for sequence, values in of_frame.items():
            item = pydicom.Dataset()
            for name, value in values(index).items():
                setattr(item, name, value)
            setattr(group, sequence, [item])
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    data.save_as(path)
    return path


def test_each_frame_has_its_own_scale(tmp_path):
    path = _enhanced(
        tmp_path / "x.dcm", FILM,
        PixelValueTransformationSequence=lambda k: {"RescaleSlope": k + 1, "RescaleIntercept": -k},
    )  # fmt: skip
    found, _ = read_series([path])
    np.testing.assert_array_equal(found, [plane.astype(int) * (k + 1) - k for k, plane in enumerate(FILM)])


def test_frames_that_look_in_different_directions_are_no_volume(tmp_path):
    notes.taken()
    turned = [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]]
    path = _enhanced(
        tmp_path / "x.dcm", FILM,
        PlanePositionSequence=lambda k: {"ImagePositionPatient": [3.0 * k, 7.0 * (k % 2), -2.0 * k]},
        PlaneOrientationSequence=lambda k: {"ImageOrientationPatient": turned[k % 3]},
    )  # fmt: skip
    found, _ = read_series([path])
    np.testing.assert_array_equal(found, FILM)
    assert "different directions" in notes.taken().texts[0]


def test_what_was_drawn_over_pictures_is_no_picture(tmp_path):
    series(tmp_path)
    for index, modality in enumerate(("SEG", "RTDOSE")):
        dicom_slice(
            tmp_path / f"z{index}.dcm", FILM[0], series=generate_uid(), study="1", patient="1", number=1,
            Modality=modality,
        )  # fmt: skip
    found, others = find_series(sorted(tmp_path.iterdir()))
    assert [item.frames for item in found] == [7] and others == 2


def test_missing_slices_are_noted_and_phases_are_refused(tmp_path):
    notes.taken()
    read_series(find_series(sorted(series(tmp_path / "a", (0, 1, 2, 5, 6)).iterdir()))[0][0].files)
    assert notes.taken().texts == ["have slices missing, or unevenly spaced"]
    series(tmp_path / "b", (0, 1, 2, 3), ImagePositionPatient=[0, 0, 10.0])
    with pytest.raises(UserError, match="3 slices at the place of another: several phases or echoes"):
        read_series(find_series(sorted((tmp_path / "b").iterdir()))[0][0].files)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def _claim(path):
    data = pydicom.dcmread(path)
    data.Rows = data.Columns = 60_000
    data.save_as(path)


def _claim_frames(path):
    data = pydicom.dcmread(path)
    data.NumberOfFrames = 2_000_000
    data.save_as(path)


def _unknown_syntax(path):
    shutil.copy(sample("JPEG2000.dcm"), path)
    _cut(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_cut, "damaged|claims"),
        (_claim, "claims 60000 x 60000 pixels"),
        (_claim_frames, "claims [0-9.]+ GB of grey values"),
        (_unknown_syntax, "damaged|not a readable|different sizes"),
        (lambda path: path.write_bytes(b"\0" * 400), "is not a readable DICOM file"),
        (lambda path: path.unlink(), "does not exist"),
    ],
)
def test_damaged_files_are_told_by_number_not_by_name(spoil, message, tmp_path):
    (found,), _ = find_series(sorted(series(tmp_path / "JANE_DOE").iterdir()))
    spoil(found.files[2])
    with pytest.raises(UserError, match=message) as caught:
        read_series(found.files)
    assert "JANE" not in str(caught.value)
    assert "file 3 of 7" in str(caught.value) or "different sizes" in str(caught.value)
