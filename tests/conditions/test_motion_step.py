"""Step (d) as a user runs it: results, workers, resume, bad clips."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
from moving import moving_clip

from ctrlgenaug import datasets
from ctrlgenaug.conditions.motion_extraction import Settings, field_options
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.trajectories import clip_seed, link, load_trajectories
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import write_jsonl
from ctrlgenaug.video import read_video, write_avi

MOSMED = datasets.get("MosMed")

SCRIPT = "extract_motion_field_trajs.py"
CLIPS = {f"study_{i:04d}_s01": moving_clip(i, i, 2) for i in (1, 2, 3)}


def digests(home):
    folders = (MOSMED.motion_dir, MOSMED.trajectories_dir, f"{MOSMED.motion_dir}_pictures")
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in sorted((home / folder).glob("*"))
        if not path.name.startswith(".")
    }


def last_line(result):
    return result.stdout.strip().splitlines()[-1]


def test_every_clip_gets_its_field_and_trajectories(make_home, run_script, tmp_path):
    home = make_home(CLIPS)
    result = run_script(
        SCRIPT, "--clip_data_dir", "MosMedData/MosMed_volume", "--seed", 5, "--visualize", cwd=tmp_path
    )
    assert last_line(result).startswith("motion fields and trajectories: 3 clips made, 0 were there already")
    assert "next: sh vae_train.sh configs/compress_ratio_8_vae_config/MosMed-vae.yaml" in result.stdout
    for name in CLIPS:
        frames = read_video(home / MOSMED.clips_dir / f"{name}.avi")
        field = np.load(MOSMED.motion_path(home, name))
        assert (field == motion_field(frames)).all() and field.dtype == np.float32
        index = load_trajectories(MOSMED.trajectory_path(home, name), 8)
        assert (index == link(field, clip_seed(5, name))).all()
        picture = cv2.imread(str(home / "MosMed_motion_field_pictures" / f"{name}.png"))
        assert picture.shape == (1028, 2060, 3) and (picture[..., 1] > picture[..., 0]).any()


def test_neither_workers_nor_order_matter(make_home, run_script, tmp_path):
    home = make_home(CLIPS)
    run_script(SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, "--num_workers", 1, cwd=tmp_path)
    once = digests(home)
    assert len(once) == 8
    for folder in (MOSMED.motion_dir, MOSMED.trajectories_dir):
        (home / folder).rename(home / f"{folder}_first")
    rows = [{"file_name": f"{name}.avi", "cls": "CT-0"} for name in reversed(CLIPS)]
    write_jsonl(home / MOSMED.clips_dir / "train_metadata.jsonl", rows)
    run_script(SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, "--num_workers", 4, cwd=tmp_path)
    assert digests(home) == once


def test_a_second_run_makes_only_what_is_missing_damaged_or_stale(make_home, run_script, tmp_path):
    home = make_home(CLIPS)
    command = (SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, "--num_workers", 1)
    run_script(*command, cwd=tmp_path)
    before = digests(home)
    assert "0 clips made, 3 were there already" in last_line(run_script(*command, cwd=tmp_path))

    first, second, third = CLIPS
    field = MOSMED.motion_path(home, first)
    field.write_bytes(field.read_bytes()[:1000])
    MOSMED.trajectory_path(home, second).unlink()
    (home / MOSMED.motion_dir / ".unfinished-left").write_bytes(b"by a killed run")
    assert "2 clips made, 1 were there already" in last_line(run_script(*command, cwd=tmp_path))
    assert digests(home) == before
    assert not (home / MOSMED.motion_dir / ".unfinished-left").exists()

    write_avi(home / MOSMED.clips_dir / f"{third}.avi", moving_clip(9, 5, 5))  # sampled again, same name
    assert "1 clips made, 2 were there already" in last_line(run_script(*command, cwd=tmp_path))
    changed = {name for name, digest in digests(home).items() if before[name] != digest}
    assert changed == {f"{folder}/{third}.npy" for folder in (MOSMED.motion_dir, MOSMED.trajectories_dir)}

    # a former clip put back as it was, with its date, and a mere copy with a newer one
    clips = home / MOSMED.clips_dir
    write_avi(clips / f"{third}.avi", CLIPS[third])
    os.utime(clips / f"{third}.avi", (1e9, 1e9))
    (clips / f"{first}.avi").touch()
    assert "1 clips made, 2 were there already" in last_line(run_script(*command, cwd=tmp_path))
    assert digests(home) == before
    (home / MOSMED.motion_dir / ".finished.jsonl").unlink()  # a folder from before there was one
    (clips / f"{second}.avi").touch()
    assert "2 clips made, 1 were there already" in last_line(run_script(*command, cwd=tmp_path))
    assert "0 clips made, 3 were there already" in last_line(run_script(*command, cwd=tmp_path))


def test_killed_and_continued_gives_the_same_files(make_home, run_script, repository, tmp_path):
    clips = {f"study_{i:04d}_s01": moving_clip(i % 3, 2, 2) for i in range(30)}
    home = make_home(clips)
    command = (SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, "--num_workers", 1)
    process = subprocess.Popen(
        [sys.executable, str(repository / SCRIPT), *map(str, command[1:])],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = home / MOSMED.motion_dir
    while process.poll() is None and len(list(folder.glob("study*"))) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(list(folder.glob("study*")))
    assert 3 <= made < 30, "it was not killed in the middle"
    assert "30 were" not in last_line(run_script(*command, cwd=tmp_path))
    continued = digests(home)
    for name in (MOSMED.motion_dir, MOSMED.trajectories_dir):
        (home / name).rename(home / f"{name}_continued")
    run_script(*command, cwd=tmp_path)
    assert digests(home) == continued and len(continued) == 62


def test_bad_clips_are_reported_and_skipped(make_home, run_script, tmp_path):
    clips = {
        "study_0001_s01": CLIPS["study_0001_s01"],
        "study_0002_s01": CLIPS["study_0002_s01"][:7],
        "study_0003_s01": np.ascontiguousarray(CLIPS["study_0003_s01"][:, :128]),
        "a name, with blanks_s01": CLIPS["study_0002_s01"],
        "Größe_s12": CLIPS["study_0003_s01"],
    }
    home = make_home(clips)
    folder = home / MOSMED.clips_dir
    (folder / "empty_s01.avi").write_bytes(b"")
    (folder / "noise_s01.avi").write_bytes(b"RIFF" + bytes(5000))
    with (folder / "train_metadata.jsonl").open("a") as handle:
        for name in ("empty_s01", "noise_s01", "missing_s01"):
            handle.write(json.dumps({"file_name": f"{name}.avi", "cls": "CT-1"}) + "\n")
    MOSMED.motion_path(home, "noise_s01").parent.mkdir()
    (home / MOSMED.motion_dir / "settings.json").write_text(json.dumps(Settings().encoding))
    MOSMED.motion_path(home, "noise_s01").write_bytes(b"of a former clip")
    for workers in (1, 2):
        result = run_script(SCRIPT, "--clip_data_dir", folder, "--num_workers", workers, cwd=tmp_path, code=1)
        assert last_line(result).endswith("; 5 failed (listed above)")
        for reason in (
            "skipped study_0002_s01: ", "has 7 frames, expected 8", "has frames of 128 x 256", "empty_s01.avi: ",
            "noise_s01.avi: is not a readable video", "missing_s01.avi: does not exist",
        ):  # fmt: skip
            assert reason in result.stderr, reason
    made = {path.stem for path in (home / MOSMED.motion_dir).glob("*.npy")}
    assert made == {"study_0001_s01", "a name, with blanks_s01", "Größe_s12"}
    strict = run_script(SCRIPT, "--clip_data_dir", folder, "--strict", cwd=tmp_path, code=2)
    assert strict.stderr.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in strict.stderr


def refused(run_script, cwd, *arguments):
    result = run_script(SCRIPT, *arguments, cwd=cwd, code=2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_mistakes_of_the_command_line_are_one_line(make_home, run_script, tmp_path):
    home = make_home({"study_0001_s01": CLIPS["study_0001_s01"]})
    clips = home / MOSMED.clips_dir
    assert "Give --data_name" in refused(run_script, tmp_path, "--clip_data_dir", tmp_path)
    assert "Did you mean MosMed" in refused(
        run_script, tmp_path, "--clip_data_dir", clips, "--data_name", "MosMet"
    )
    empty = tmp_path / "empty" / MOSMED.clips_dir
    assert "does not exist" in refused(run_script, tmp_path, "--clip_data_dir", empty)
    assert "test_metadata.jsonl: does not exist" in refused(
        run_script, tmp_path, "--clip_data_dir", clips, "--split", "test"
    )
    run_script(SCRIPT, "--clip_data_dir", clips, cwd=tmp_path)
    other = refused(run_script, tmp_path, "--clip_data_dir", clips, "--adjacent_reference")
    assert "was made with other settings (adjacent_reference: False there, True now" in other
    assert "fill_blocks: False there, True now" in refused(
        run_script, tmp_path, "--clip_data_dir", clips, "--fill_blocks"
    )
    assert "(seed: 0 there, 1 now" in refused(run_script, tmp_path, "--clip_data_dir", clips, "--seed", 1)
    (home / MOSMED.trajectories_dir / "settings.json").unlink()
    assert "holds files but no settings.json" in refused(run_script, tmp_path, "--clip_data_dir", clips)
    (clips / "train_metadata.jsonl").write_text('{"file_name": "../x.avi", "cls": "CT-0"}\n')
    assert "not a plain file name" in refused(run_script, tmp_path, "--clip_data_dir", clips)
    (clips / "train_metadata.jsonl").write_text("")
    assert "names no clip" in refused(run_script, tmp_path, "--clip_data_dir", clips)


def test_two_runs_do_not_write_one_folder(make_home, run_script, tmp_path):
    home = make_home({"study_0001_s01": CLIPS["study_0001_s01"]})
    with exclusive(home / MOSMED.trajectories_dir):
        error = refused(run_script, tmp_path, "--clip_data_dir", home / MOSMED.clips_dir)
    assert "another run is writing this folder" in error


def test_both_splits_any_frame_count_and_the_official_format(make_home, run_script, tmp_path):
    make_home({"study_0001_s01": moving_clip(1, num_frames=5)}, split="test")
    home = make_home({"study_0002_s01": moving_clip(2, num_frames=5)})
    arguments = ("--required_clip_num", 5, "--official_format", "--adjacent_reference")
    result = run_script(SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, *arguments, cwd=tmp_path)
    assert "2 clips made" in last_line(result)
    for name in ("study_0001_s01", "study_0002_s01"):
        path = MOSMED.trajectory_path(home, name)
        assert np.load(path, allow_pickle=True).item()["traj32"].shape == (5 * 1024, 13, 3)
        field = np.load(MOSMED.motion_path(home, name))
        expected = link(field, clip_seed(0, name))
        assert (load_trajectories(path, 5) == expected).all()
    again = run_script(SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, *arguments, cwd=tmp_path)
    assert "0 clips made, 2 were there already" in last_line(again)


def test_a_folder_tells_how_its_fields_were_made(make_home, run_script, tmp_path):
    """A field re-extracted from a synthetic clip is made as the conditions were."""
    home = make_home({"study_0002_s01": moving_clip(2)})
    arguments = ("--adjacent_reference", "--fill_blocks", "--encoder_threads", 7)
    run_script(SCRIPT, "--clip_data_dir", home / MOSMED.clips_dir, *arguments, cwd=tmp_path)
    noted = json.loads((home / MOSMED.motion_dir / "settings.json").read_text())
    assert field_options(noted) == {
        "adjacent_reference": True, "fill_blocks": True, "encoder_threads": 7, "reader": "pyav"
    }  # fmt: skip
    clip = next((home / MOSMED.clips_dir).glob("study_0002_s01.*"))
    field = np.load(MOSMED.motion_path(home, "study_0002_s01"))
    assert np.array_equal(motion_field(read_video(clip), **field_options(noted)), field)
    assert field_options({}) == field_options({"encoder": "x264", "motion_reader": 3}) == {
        "adjacent_reference": False, "fill_blocks": False, "encoder_threads": 3, "reader": "pyav"
    }  # fmt: skip


def test_help_tells_defaults_and_an_example(run_script, tmp_path):
    text = run_script(SCRIPT, "--help", cwd=tmp_path).stdout
    assert "example:" in text and "--adjacent_reference" in text and "default" in text
