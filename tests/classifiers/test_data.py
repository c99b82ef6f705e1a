"""Who learns from what: patients stay on one side, test conditions are refused, ratios are kept."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clip_home import SPEC, draw_clip

from augment.classifiers import clip_items
from augment.classifiers.clip_items import ClipReader, Item
from augment.classifiers.clips import Augmentation
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import write_mp4


def items(patients_of_class, clips=2):
    return [
        Item(Path(f"{label}_{p}_{c}"), label, f"{label}_{p}")
        for label, number in enumerate(patients_of_class)
        for p in range(number)
        for c in range(clips)
    ]


def test_held_out_patients_are_whole_and_of_every_class():
    everything = items((10, 5, 2, 1))
    learn, choose = clip_items.hold_out(everything, 0.2, 7)
    assert sorted(learn + choose, key=str) == sorted(everything, key=str)
    assert not {item.patient for item in learn} & {item.patient for item in choose}
    patients = Counter(label for label, _ in {(item.label, item.patient) for item in choose})
    assert patients == {0: 2, 1: 1, 2: 1}  # a class of one patient is learned from
    assert clip_items.hold_out(everything, 0.2, 7) == (learn, choose)
    assert {tuple(i.patient for i in clip_items.hold_out(everything, 0.2, seed)[1]) for seed in range(5)} != {
        ()
    }
    assert clip_items.hold_out(everything, 0, 7) == (everything, [])
    with pytest.raises(UserError, match="no class has two patients"):
        clip_items.hold_out(items((1, 1)), 0.2, 7)
    with pytest.raises(UserError, match="validation_fraction"):
        clip_items.hold_out(everything, 1.0, 7)


@pytest.mark.parametrize("seed", range(8))
def test_no_class_loses_its_last_patient_through_another_class_of_his(seed):
    def clip(label, patient):
        return Item(Path(f"{label}_{patient}"), label, patient)

    # b is the one patient of class 1; c and d are those of class 2, and both of class 0 too
    everything = [
        *(clip(0, patient) for patient in "abcd"),
        clip(1, "b"),
        *(clip(2, patient) for patient in "cd"),
    ]
    for fraction in (0.3, 0.9):
        learn, choose = clip_items.hold_out(everything, fraction, seed)
        assert {item.label for item in learn} == {0, 1, 2} and choose
        assert not {item.patient for item in learn} & {item.patient for item in choose}
        assert "b" not in {item.patient for item in choose}
    with pytest.raises(UserError, match="one can be held out"):
        clip_items.hold_out([clip(0, "a"), clip(0, "b"), clip(1, "a"), clip(2, "b")], 0.5, seed)


def test_both_frames_of_a_cardiac_patient_are_one_patient():
    spec = datasets.get("ACDC")
    assert spec.patient("patient001_frame01_s01") == spec.patient("patient001_frame12_s09") == "patient001"
    assert SPEC.patient("study_0001_s16") == "study_0001"
    assert datasets.get("TUSC").patient("Nodule43_f16") == "Nodule43"


def test_a_patient_in_both_splits_is_refused():
    with pytest.raises(UserError, match="in the train and in the test split, such as 0_0"):
        clip_items.refuse_test_patients(items((2,)), items((1,)))


def test_synthetic_clips_carry_the_class_that_was_asked_for(root):
    found, skipped = clip_items.synthetic_items([root / "synthetic"], SPEC)
    assert len(found) == 36 and not skipped
    assert all(item.synthetic for item in found)
    assert Counter(item.label for item in found) == {0: 12, 1: 12, 2: 12}


def test_clips_from_test_conditions_are_refused(root, tmp_path):
    home = root / SPEC.home
    test = clip_items.real_items(SPEC, home, "test")
    folder = tmp_path / "synthetic"
    shutil.copytree(root / "synthetic", folder)
    clip_items.synthetic_items([folder], SPEC, test)
    # by name: filtered folders carry no manifest
    leak = SPEC.clips(home, "test")[0]
    write_mp4(folder / f"{leak.name}_{leak.cls}_66.mp4", draw_clip("CT-0", 1))
    with pytest.raises(UserError, match="test conditions"):
        clip_items.synthetic_items([folder], SPEC, test)
    (folder / f"{leak.name}_{leak.cls}_66.mp4").unlink()
    # by the folder's own records, either of them
    for name, text in (
        ("settings.json", json.dumps({"split": "test"}, indent=2)),
        ("manifest.jsonl", '{"file": "a", "split": "train"}\n{"file": "b", "split": "test"}\n'),
    ):
        (folder / name).write_text(text)
        with pytest.raises(UserError, match="test conditions"):
            clip_items.synthetic_items([folder], SPEC, [])
        (folder / name).write_text(text.replace('"test"', '"train"'))
        assert len(clip_items.synthetic_items([folder], SPEC, [])[0]) == 36


def test_foreign_files_and_empty_folders(root, tmp_path):
    write_mp4(tmp_path / "holiday.mp4", draw_clip("CT-0", 1))
    with pytest.raises(UserError, match="holds no synthetic clip of MosMed"):
        clip_items.synthetic_items([tmp_path], SPEC)
    write_mp4(tmp_path / "study_0001_s01_CT-0_66.mp4", draw_clip("CT-0", 1))
    found, skipped = clip_items.synthetic_items([tmp_path, root / "synthetic"], SPEC)
    assert len(found) == 37 and skipped == ["holiday.mp4 (not a file of MosMed)"]
    with pytest.raises(UserError, match="is not a folder"):
        clip_items.synthetic_items([tmp_path / "none"], SPEC)


def test_the_ratio_draws_evenly_from_the_classes():
    synthetic = items((10, 10, 2), clips=1)
    taken = clip_items.take_ratio(synthetic, 6, 1.5, seed=3)
    assert Counter(item.label for item in taken) in ({0: 4, 1: 3, 2: 2}, {0: 3, 1: 4, 2: 2})
    assert taken == [item for item in synthetic if item in taken]  # in the folder's order
    assert (
        taken
        == clip_items.take_ratio(synthetic, 6, 1.5, seed=3)
        != clip_items.take_ratio(synthetic, 6, 1.5, seed=4)
    )
    assert clip_items.take_ratio(synthetic, 6, None, 3) == synthetic
    assert (
        len(clip_items.take_ratio(synthetic, 6, 99, 3)) == 22
        and clip_items.take_ratio(synthetic, 6, 0, 3) == []
    )


def test_batches_do_not_depend_on_threads_or_memory(root):
    clips = clip_items.real_items(SPEC, root / SPEC.home, "train")[:5]
    order = [3, 0, 4, 1, 2]

    def batches(**how):
        reader = ClipReader(clips, 48, 8, **how)
        for _ in range(2):  # the second pass comes from memory
            result = list(reader.batches(order, 2, Augmentation(), (1, 2)))
        return result

    one, other = batches(threads=1, cache_gb=0), batches(threads=4)
    assert len(one) == 2  # a last batch of one clip has no batch statistics
    for (clip, label), (same, same_label) in zip(one, other, strict=True):
        assert clip.shape == (2, 1, 8, 48, 48) and clip.dtype == np.float32
        np.testing.assert_array_equal(clip, same)
        np.testing.assert_array_equal(label, same_label)
    assert [label.tolist() for _, label in one] == [
        [clips[3].label, clips[0].label],
        [clips[4].label, clips[1].label],
    ]
    plain = list(ClipReader(clips, 48, 8).batches(order, 2))
    assert [len(clip) for clip, _ in plain] == [2, 2, 1]
    assert list(ClipReader(clips, 48, 8).batches([], 2)) == []


def test_a_last_clip_joins_nothing_unless_every_batch_is_one_clip(root):
    reader = ClipReader(clip_items.real_items(SPEC, root / SPEC.home, "train"), 32, 8)

    def sizes(clips, batch_size):
        batches = reader.batches(range(clips), batch_size, Augmentation(), (1,))
        return [len(labels) for _, labels in batches]

    assert sizes(5, 2) == [2, 2] and sizes(1, 2) == [1]
    assert sizes(5, 1) == [1] * 5  # --batch_size 1 takes as many steps as it is told


def test_a_missing_clip_is_named(root, tmp_path):
    shutil.copytree(root / SPEC.home, tmp_path / SPEC.home)
    clip = SPEC.clips(tmp_path / SPEC.home, "train")[0]
    path = tmp_path / SPEC.home / SPEC.clips_dir / clip.file_name
    path.write_bytes(b"not a video")
    reader = ClipReader(clip_items.real_items(SPEC, tmp_path / SPEC.home, "train"), 48, 8)
    with pytest.raises(UserError, match="is not a readable video"):
        list(reader.batches([1, 0], 2))
    path.unlink()
    with pytest.raises(UserError, match=clip.file_name):
        clip_items.real_items(SPEC, tmp_path / SPEC.home, "train")
