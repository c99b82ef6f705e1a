"""The naming rules of the four data sets, as the published folders show them."""

import json

import pytest

from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError


@pytest.mark.parametrize(
    ("data_name", "clip", "first_frame", "classes"),
    [
        ("MosMed", "study_0001_s01", "study_0001_slice01", ["CT-0", "CT-1", "CT-234"]),
        ("MRNet", "0000_s01", "0000_slice01", ["0", "1"]),
        ("ACDC", "patient001_frame01_s01", "patient001_frame01_slice01", ["NOR", "MINF", "DCM", "HCM", "RV"]),
        ("TUSC", "Nodule43_f16", "Nodule43_16", ["TR2-3", "TR4", "TR5"]),
    ],
)
def test_names_and_ids(data_name, clip, first_frame, classes):
    spec = datasets.get(data_name)
    assert spec.first_frame(clip) == first_frame
    case, number = spec.parse_clip(clip)
    assert spec.clip_name(case, number) == clip
    assert spec.parse_frame(first_frame) == (case, number)
    assert [spec.class_id(cls) for cls in classes] == list(range(len(classes)))


def test_integer_classes_are_written_as_numbers():
    assert datasets.get("MRNet").metadata_class("1") == 1
    assert datasets.get("MosMed").metadata_class("CT-1") == "CT-1"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="Did you mean MosMed?"):
        datasets.get("MosMd")
    with pytest.raises(UserError, match="'CT-9' is not a class of MosMed"):
        datasets.get("MosMed").class_id("CT-9")
    with pytest.raises(UserError, match="is not named like MosMed's files"):
        datasets.get("MosMed").parse_clip("Nodule43_f16")


def test_folder_tells_the_data_set(tmp_path):
    assert datasets.of_folder(tmp_path / "TUSC_video") is datasets.get("TUSC")
    assert datasets.of_folder(tmp_path / "ACDC_all_slices") is datasets.get("ACDC")
    with pytest.raises(UserError, match="Give --data_name"):
        datasets.of_folder(tmp_path)


def _metadata(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_clips_are_read_in_order_and_checked(tmp_path):
    spec = datasets.get("MRNet")
    home = tmp_path / "MRNet"
    _metadata(
        home / spec.clips_dir,
        {"file_name": "0002_s01.avi", "cls": 1},
        {"file_name": "0001_s03.avi", "cls": 0},
    )
    assert spec.home_in(tmp_path) == spec.home_in(home) == home
    assert [(clip.name, clip.cls) for clip in spec.clips(home)] == [("0002_s01", "1"), ("0001_s03", "0")]

    _metadata(home / spec.clips_dir, {"file_name": "0002_s01.avi", "cls": 7})
    with pytest.raises(UserError, match="holds class '7'"):
        spec.clips(home)
    _metadata(home / spec.clips_dir, {"file_name": "../../0002_s01.avi", "cls": 1})
    with pytest.raises(UserError, match="not a plain file name"):
        spec.clips(home)
    _metadata(home / spec.clips_dir)
    with pytest.raises(UserError, match="names no clip"):
        spec.clips(home)


def test_tusc_rows_need_their_text(tmp_path):
    _metadata(tmp_path, {"file_name": "Nodule43_16.png", "cls": "TR4"})
    with pytest.raises(UserError, match="line 1 lacks text"):
        list(datasets.get("TUSC").rows(tmp_path, "train"))
