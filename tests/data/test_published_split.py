"""Somebody else's split and row order, and sets that are known by synthetic clips alone."""

from __future__ import annotations

import random
import shutil

import pytest

from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_jsonl, write_jsonl

STEPS = {
    "MRNet": ("MRNet/extract_all_slices.py", "MRNet_all_slices", "MRNet/sample_sequences.py", "MRNet_volume"),
    "ACDC": ("ACDC/extract_all_slices.py", "ACDC_all_slices", "ACDC/sample_sequences.py", "ACDC_volume"),
    "TUSC": ("TUSC/extract_all_images.py", "TUSC_all_images", "TUSC/sample_videos.py", "TUSC_video"),
}


def rows(folder, split):
    return read_jsonl(folder / f"{split}_metadata.jsonl")


@pytest.mark.parametrize("name", STEPS)
def test_rows_come_in_the_order_of_the_published_metadata(name, finished, tmp_path, call_script):
    home = shutil.copytree(finished(name), tmp_path / "home")
    read, slices, sample, clips = STEPS[name]
    given = tmp_path / "published"
    for folder in (slices, clips):
        for split in datasets.SPLITS:
            shuffled = rows(home / folder, split)
            random.Random(1).shuffle(shuffled)
            write_jsonl(given / folder / f"{split}_metadata.jsonl", shuffled)
    # published: one case of the test split is in train
    spec = datasets.get(name)
    moved = spec.parse_frame(rows(given / slices, "test")[0]["file_name"].removesuffix(".png"))[0]
    for folder, parse in ((slices, spec.parse_frame), (clips, spec.parse_clip)):
        train, test = (rows(given / folder, split) for split in datasets.SPLITS)
        mine = [row for row in test if parse(row["file_name"].rsplit(".", 1)[0])[0] == moved]
        write_jsonl(given / folder / "train_metadata.jsonl", [*mine, *train])
        write_jsonl(given / folder / "test_metadata.jsonl", [row for row in test if row not in mine])

    call_script(read, "--published_split", given / slices, "--num_workers", 1, cwd=home)
    if name != "TUSC":  # whose clips are cut from the second part's frames
        call_script(sample, "--published_split", given / clips, "--num_workers", 1, cwd=home)
    for folder in (slices, clips) if name != "TUSC" else (slices,):
        for split in datasets.SPLITS:
            ours, theirs = (rows(place / folder, split) for place in (home, given))
            assert [row["file_name"] for row in ours] == [row["file_name"] for row in theirs]


def test_a_split_that_contradicts_itself(finished, tmp_path, call_script):
    home = shutil.copytree(finished("MRNet"), tmp_path / "home")
    for split in datasets.SPLITS:
        write_jsonl(tmp_path / "p" / f"{split}_metadata.jsonl", [{"file_name": "0000_slice01.png", "cls": 0}])
    result = call_script("MRNet/extract_all_slices.py", "--published_split", tmp_path / "p", cwd=home, code=2)
    assert "names 0000, which is in the other split too" in result.stderr
    (tmp_path / "rows.jsonl").write_text('{"file_name": "0000_slice01.png"}\n')
    result = call_script(
        "MRNet/extract_all_slices.py", "--published_split", tmp_path / "rows.jsonl", cwd=home, code=2
    )
    assert "says by its name neither train nor test" in result.stderr


def test_a_set_of_which_only_synthetic_clips_are_known():
    spec = datasets.get("Carotid")
    assert spec.classes == () and spec.patient("Artery_3_f12") == "Artery_3_f12"
    with pytest.raises(UserError, match="Write `classes"):
        spec.class_id("0")
    known = spec.with_classes_of(["a_1_stable_66.mp4", "a_1_plaque_3407.mp4", "b_f2_stable_66.mp4"])
    assert known.classes == ("plaque", "stable") and known.class_id("stable") == 1
    with pytest.raises(UserError, match="the classes of Carotid are not known"):
        spec.with_classes_of(["x.mp4"])
    assert datasets.get("MosMed").with_classes_of(["a_b_1.mp4"]) is datasets.get("MosMed")
