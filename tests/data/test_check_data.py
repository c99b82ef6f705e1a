"""check_data.py: what is wrong with a data set in each of its stages, and the exit code."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from raw_examples import knee

from ctrlgenaug.conditions.image_priors import frame_digest
from ctrlgenaug.conditions.motion_extraction import made_from
from ctrlgenaug.conditions.trajectories import save_tracks, track
from ctrlgenaug.plain_data import read_jsonl, save_npy, write_jsonl
from ctrlgenaug.preprocessing import ledger

DATA = """name: Knee
classes: ["0", "1"]
raw: {kind: npy, pattern: "scans/{case}.np[yz]"}
table: {file: labels.csv, columns: {case: scan, patient: patient, class: tear}}
clips: {frames_per_clip: 8, clip_sampling_interval: 0}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, call_script):
    """A data set with all five stages."""
    root = tmp_path_factory.mktemp("check")
    home = knee(root / "Knee")
    (home / "Knee.yaml").write_text(DATA)
    call_script("prepare_data.py", "--data", "Knee/Knee.yaml", "--num_workers", 1, cwd=root)
    prior = np.zeros((256, 64, 64), np.float16)
    prior[0] = 1
    for split in ("train", "test"):
        for row in read_jsonl(home / "Knee_volume" / f"{split}_metadata.jsonl"):
            name = row["file_name"].removesuffix(".avi")
            save_npy(home / "Knee_data_emb" / f"{name.replace('_s', '_slice')}.npy", prior)
            field = np.zeros((7, 2, 256, 256), np.float32)
            field[:, 0, 96:128, 96:128] = 8.0
            save_npy(home / "Knee_motion_field" / f"{name}.npy", field)
            save_tracks(home / "Knee_motion_field_trajectory" / f"{name}.npy", track(field, 0))
            frame = name.replace("_s", "_slice")
            digest = frame_digest(home / "Knee_data" / f"{frame}.png")
            ledger.record(home / "Knee_data_emb", {"case": frame, "made_from": digest, "files": {}})
            version = made_from(home / "Knee_volume" / f"{name}.avi")
            ledger.record(home / "Knee_motion_field", {"case": name, "made_from": version, "files": {}})
    return root


def check(call_script, root, *arguments, code):
    return call_script(
        "check_data.py", "--data", "Knee/Knee.yaml", "--num_workers", 1, *arguments, cwd=root, code=code
    )


def test_a_whole_data_set_passes_in_all_five_stages(whole, call_script, monkeypatch):
    result = check(call_script, whole, code=0)
    for stage, count in (("raw", 12), ("frames", 12), ("clips", 12), ("priors", 12), ("motion", 12)):
        assert f"{stage}: {count} checked" in result.stdout
    assert (
        result.stdout.count("class 1 has only 4 cases in train") == 1
        and "0 errors, 2 warnings" in result.stdout
    )
    page = (whole / "Knee" / "Knee_check.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "p0001_0000" in page
    check(call_script, whole, "--strict", "--stages", "raw", code=1)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _first(folder, pattern):
    return sorted(folder.glob(pattern))[0]


def _copy_case(home):
    """The first training patient's scan again, as a patient of the test split."""
    test = read_jsonl(home / "Knee_volume" / "test_metadata.jsonl")[0]["file_name"].split("_")[1]
    train = read_jsonl(home / "Knee_volume" / "train_metadata.jsonl")[0]["file_name"].split("_")[1]
    shutil.copy(home / "scans" / f"{train}.npy", home / "scans" / f"{test}.npy")


def _short_and_white(home):
    frames = np.full((5, 32, 32), 255, np.uint8)
    frames[:, :8] = 10
    np.save(home / "scans" / "0003.npy", frames)


def _stray_frame(home):
    shutil.copy(_first(home / "Knee_data", "*.png"), home / "Knee_data" / "x_slice01.png")


def _move_row(home):
    folder = home / "Knee_volume"
    train, test = (read_jsonl(folder / f"{split}_metadata.jsonl") for split in ("train", "test"))
    write_jsonl(folder / "test_metadata.jsonl", [*test, train[0]])
    write_jsonl(folder / "train_metadata.jsonl", train[1:])


def _exchange(pattern):
    """Puts another file's contents into the first, with a date before anything was made of it."""

    def spoil(home):
        first, *_, last = sorted(home.glob(pattern))
        first.write_bytes(last.read_bytes())
        os.utime(first, (1e9, 1e9))

    return spoil


@pytest.mark.parametrize(
    ("stage", "spoil", "message", "code"),
    [
        ("raw", lambda home: _cut(home / "scans" / "0003.npy"), "cannot be used: .*0003.npy: is not a readable", 1),
        ("raw", lambda home: np.save(home / "scans" / "0003.npy", np.full((9, 8, 8), 7, np.uint8)), "constant", 1),
        ("raw", lambda home: np.save(home / "scans" / "0099.npy", np.zeros((9, 8, 8))), "has no row for it", 1),
        ("raw", lambda home: (home / "scans" / "0003.npy").unlink(), "has no raw file", 1),
        ("raw", _copy_case, "have equal pixels and lie in train and test", 1),
        ("raw", _short_and_white, "fewer than 8 frames.*white in more than 30%|white in more.*fewer than 8", 0),
        ("raw", lambda home: (home / "labels.csv").unlink(), "labels.csv: does not exist", 2),
        ("frames", lambda home: _cut(_first(home / "Knee_all_slices", "*.png")), "is not a whole PNG", 1),
        ("frames", lambda home: _first(home / "Knee_data", "*.png").unlink(), "are in the metadata, but not there", 1),
        ("frames", _stray_frame, "are not in the metadata", 0),
        ("clips", lambda home: _cut(_first(home / "Knee_volume", "*.avi")), "not have 8 frames|not a readable", 1),
        ("clips", lambda home: _first(home / "Knee_volume", "*.avi").unlink(), "are in the metadata, but not there", 1),
        ("clips", _move_row, "patients lie in train and test", 1),
        ("clips", lambda home: (home / "Knee_volume" / "test_metadata.jsonl").write_text("{}\n"), "lacks file_name", 1),
        ("priors", lambda home: _first(home / "Knee_data_emb", "*.npy").unlink(), "first frames have no prior", 1),
        ("priors", lambda home: _cut(_first(home / "Knee_data_emb", "*.npy")), "cannot be used", 1),
        ("motion", lambda home: _first(home / "Knee_motion_field", "*.npy").unlink(), "clips have no motion field", 1),
        ("motion", lambda home: _cut(_first(home / "Knee_motion_field_trajectory", "*.npy")), "cannot be used", 1),
        ("motion", _exchange("Knee_volume/*.avi"), "1 clips are others than their motion fields were made of", 1),
        ("priors", _exchange("Knee_data/*slice01.png"), "1 frames are others than their priors were made of", 1),
        ("motion", lambda home: shutil.rmtree(home / "Knee_motion_field"), "is not there yet", 2),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(stage, spoil, message, code, whole, tmp_path, call_script):
    shutil.copytree(whole / "Knee", tmp_path / "Knee")
    spoil(tmp_path / "Knee")
    result = check(call_script, tmp_path, "--stages", stage, code=code)
    assert re.search(message, result.stdout + result.stderr, re.DOTALL)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["MRNet", "ACDC", "TUSC"])
def test_published_data_sets_are_read_by_their_own_readers(name, phantom, call_script):
    home = phantom(name)
    result = call_script(
        "check_data.py", "--data_name", name, "--data_root", home.parent, "--stages", "raw", "--num_workers", 1,
        cwd=home.parent, code=2,
    )  # fmt: skip
    assert (
        "is not a folder" in result.stderr
    )  # the phantom's folder has another name than the data set's home
    home = home.rename(home.parent / name)
    result = call_script(
        "check_data.py", "--data_name", name, "--stages", "raw", "--num_workers", 1, cwd=home.parent
    )
    assert "0 errors" in result.stdout and (home / f"{name}_check.html").exists()
