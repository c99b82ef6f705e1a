"""Phantoms: reproducible, varied, with findings that tell the classes apart."""

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from ctrlgenaug.errors import UserError
from ctrlgenaug.phantom import chest, class_counts, formats, heart, knee, make_phantom, shapes
from ctrlgenaug.phantom.cohort import Patient
from ctrlgenaug.phantom.movement import drift


def chest_clips(per_class):
    """(grey-value histograms, share of tissue, labels) of 8 frames out of 15 neighbouring slices, class by class."""
    histograms, tissue, labels = [], [], []
    for label, categories in enumerate((("CT-0",), ("CT-1",), ("CT-2", "CT-3", "CT-4"))):
        for i in range(per_class):
            category = categories[i % len(categories)]
            volume = chest.draw_volume(shapes.generator(5, f"{category} {i}"), category, 20, in_plane=128)
            clip = volume[i % 6 : i % 6 + 15 : 2]
            histograms.append(np.histogram(clip, np.arange(-1000, 401, 50))[0] / clip.size)
            tissue.append([(clip > -500).mean()])
            labels.append(label)
    return np.array(histograms), np.array(tissue), np.array(labels)


def test_chest_classes_can_be_told_apart_but_not_by_body_size():
    histograms, tissue, labels = chest_clips(12)
    forest = RandomForestClassifier(60, random_state=0)
    assert cross_val_score(forest, histograms, labels, cv=4).mean() > 0.9
    assert (
        cross_val_score(forest, tissue, labels, cv=4).mean() < 0.8
    )  # the amount of tissue alone does not tell


def test_findings_move_smoothly_through_the_slices():
    plain, ill = (
        chest.draw_volume(shapes.generator(3, "x"), category, 30, in_plane=128).astype(float)
        for category in ("CT-0", "CT-3")
    )
    difference = ill - plain  # the same stream draws the same anatomy
    assert (difference > 150).mean() > 0.01
    neighbours = np.abs(np.diff(difference, axis=0)).mean()
    shuffled = np.abs(difference[::2][:15] - difference[1::2][::-1][:15]).mean()
    assert neighbours < 0.5 * shuffled


@pytest.mark.parametrize("data_name", formats())
def test_the_same_seed_writes_the_same_bytes(data_name, small, originals, tmp_path):
    cases, slices = small[data_name]
    again = tmp_path / "again"
    make_phantom(data_name, again, class_counts(data_name, cases, True), seed=1, slices=slices, num_workers=2)
    first = originals(data_name)
    files = sorted(
        path.relative_to(first) for path in first.rglob("*") if path.is_file() and path.name != ".lock"
    )
    assert len(files) >= 3
    for name in files:
        if name.suffix == ".xlsx":  # holds the time it was written
            continue
        assert (again / name).read_bytes() == (first / name).read_bytes(), name


def test_chest_volumes_are_like_the_real_ones(originals):
    for path in sorted((originals("MosMed") / "studies").rglob("*.nii.gz"))[:2]:
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.int16 and image.shape[:2] == (512, 512)
        assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
        voxels = np.asarray(image.dataobj)
        assert voxels.min() == -1000 and 200 < voxels.max() < 1000


def test_knees_and_hearts_differ_by_class():
    whole, torn = (
        np.mean([knee.draw_series(shapes.generator(s, "k"), t, 20)[:, 100:150, 60:100] for s in range(4)])
        for t in (False, True)
    )
    assert abs(torn - whole) > 5
    volume = {}
    for group in heart.GROUPS:
        phases = [
            heart.draw_phase(shapes.generator(0, "h"), group, 10, (200, 240), systole)[1]
            for systole in (False, True)
        ]
        volume[group] = [[(labels == label).sum() for label in (1, 2, 3)] for labels in phases]
    ejected = {group: 1 - systole[2] / diastole[2] for group, (diastole, systole) in volume.items()}
    assert ejected["NOR"] > 0.5 > ejected["MINF"] > ejected["DCM"]
    assert volume["HCM"][0][1] > 1.5 * volume["NOR"][0][1]
    assert volume["RV"][0][0] > 2 * volume["NOR"][0][0]
    assert volume["DCM"][0][2] > 1.5 * volume["NOR"][0][2]


def test_a_view_drifts_mostly_one_way_and_a_quarter_lies_still():
    places = [drift(shapes.generator(seed, "d"), 8, 6) for seed in range(200)]
    assert all((place[0] == 0).all() for place in places)
    still = sum(not place.any() for place in places)
    assert 30 <= still <= 70  # of 50 expected
    steps = np.array([np.diff(place, axis=0) for place in places if place.any()])
    means = np.hypot(*steps.mean(1).T)
    assert 6 * 0.55 < means.mean() < 6 * 0.8  # even over the disc: two thirds
    angles = np.arctan2(*steps.mean(1).T)
    assert abs(np.exp(1j * angles).mean()) < 0.2


def test_a_moved_patient_is_the_still_one_shifted_and_its_masks_go_along():
    still, moving = (Patient(3, "NOR", 10, 1, movement=most) for most in (0, 5))
    picture, labels = heart.draw_phase(still.generator("heart"), "NOR", 10, (160, 180), systole=False)
    assert still.moved("frame 1", picture, labels)[0] is picture
    shown, mask = moving.moved("frame 1", picture, labels)
    places = np.rint(drift(moving.generator("movement frame 1"), 10, 5)).astype(int)
    assert places.any() and set(np.unique(mask)) == {0, 1, 2, 3}
    for before, after, old, new, (y, x) in zip(picture, shown, labels, mask, places, strict=True):
        inner = slice(60, 100), slice(60, 120)
        back = slice(60 - y, 100 - y), slice(60 - x, 120 - x)
        assert np.array_equal(after[inner], before[back]) and np.array_equal(new[inner], old[back])


def test_class_counts():
    assert class_counts("MosMed", 1110) == formats()["MosMed"].frequencies
    assert class_counts("MosMed", 30, balance=True) == {
        "CT-0": 10,
        "CT-1": 10,
        "CT-2": 4,
        "CT-3": 3,
        "CT-4": 3,
    }
    with pytest.raises(UserError, match="--cases 11 or more"):
        class_counts("MosMed", 10)


def test_a_view_that_moves_would_not_be_seen_where_frames_are_cropped(tmp_path):
    with pytest.raises(UserError, match="cropped to the finding. Leave out --movement"):
        make_phantom("TUSC", tmp_path, class_counts("TUSC", 7), movement=3)
    assert not (tmp_path / "dataset.hdf5").exists()


def test_command_line(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "ctrlgenaug.phantom", "--data_name", "MRNet", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    settings = ("--class_counts", "0=1,1=1", "--slices", "3,4", "--out", "knees")
    made = call(*settings)
    assert made.returncode == 0 and made.stdout.startswith(
        "made 2 MRNet phantom patients (0 1, 1 1) in knees"
    )
    assert call(*settings).stdout.startswith("already complete")
    other = call(*settings, "--seed", "9")
    assert (
        other.returncode == 2 and "made with other settings" in other.stderr and other.stderr.count("\n") == 1
    )
    assert "has no class 7" in call("--class_counts", "7=1", "--out", "x").stderr
    moving = call("--class_counts", "0=1,1=1", "--slices", "3,4", "--out", "moving", "--movement", "4")
    assert moving.returncode == 0, moving.stderr
    assert "movement: 4.0 there, 0.0 now" in call(*settings[:-1], "moving").stderr
    record = tmp_path / "knees" / "phantom.json"
    older = json.loads(record.read_text())
    del older["movement"]
    record.write_text(json.dumps(older))
    assert call(*settings).stdout.startswith("already complete")
    assert call("--movement", "-1", "--out", "x").returncode == 2
    assert "--in_plane is for MosMed" in call("--in_plane", "9", "--out", "x").stderr
