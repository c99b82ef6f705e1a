"""Step (c) as a user runs it: files, resume, encoders that must not be mixed, bad frames."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from moving import moving_clip, texture
from segment_anything import random_weights

from augment.demo.weights import write_medsam
from ctrlgenaug import datasets
from ctrlgenaug.conditions.image_priors import Settings, extract_priors, verify_priors
from ctrlgenaug.conditions.medsam import encode, load_encoder
from ctrlgenaug.devices import pick_device
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import exclusive
from ctrlgenaug.preprocessing.png import encode_png, read_png

MOSMED = datasets.get("MosMed")

SCRIPT = "extract_image_priors.py"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small encoder's Hugging Face folder."""
    folder = tmp_path_factory.mktemp("weights") / "medsam"
    write_medsam(folder, seed=0)
    return folder


@pytest.fixture
def home(make_home):
    """Two clips of 8, of which the first 3 frames are sampled."""
    return make_home({f"study_{i:04d}_s01": moving_clip(i) for i in (1, 2)}, frames_of=3)


def settings(weights, **changes):
    return Settings(**{"checkpoint": str(weights), "device": "cpu"} | changes)


def last_line(result):
    return result.stdout.strip().splitlines()[-1]


def test_every_frame_gets_its_prior_and_a_second_run_keeps_them(home, weights, run_script, tmp_path):
    command = (
        SCRIPT,
        "--data_dir",
        "MosMedData/MosMed_data",
        "--medsam_checkpoint",
        weights,
        "--batch_size",
        2,
    )
    result = run_script(*command, "--device", "cpu", cwd=tmp_path)
    assert last_line(result) == "image priors: 6 made, 0 were there already, in MosMedData/MosMed_data_emb"
    assert (
        "next: python extract_motion_field_trajs.py --clip_data_dir MosMedData/MosMed_volume" in result.stdout
    )
    model = load_encoder(weights)
    for name in ("study_0001_slice01", "study_0002_slice03"):
        prior = np.load(MOSMED.prior_path(home, name))
        assert prior.shape == (256, 64, 64) and prior.dtype == np.float32
        frame = read_png(home / MOSMED.frames_dir / f"{name}.png")
        assert np.abs(prior - encode(model, frame[None])[0]).max() < 1e-4
    again = run_script(*command, cwd=tmp_path)
    assert last_line(again).startswith("image priors: 0 made, 6 were there already")
    checked = run_script(SCRIPT, "--data_dir", home / MOSMED.frames_dir, "--verify", cwd=tmp_path)
    assert last_line(checked) == "6 image priors in MosMedData/MosMed_data_emb are whole"


def test_killed_and_continued_gives_the_same_files(make_home, weights, repository, tmp_path):
    home = make_home({f"study_{i:04d}_s01": moving_clip(i) for i in range(4)}, frames_of=8)
    folder = home / MOSMED.priors_dir
    command = [sys.executable, str(repository / SCRIPT), "--data_dir", str(home / MOSMED.frames_dir)]
    command += ["--medsam_checkpoint", str(weights), "--batch_size", "1", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("study*"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(list(folder.glob("study*"))) < 32, "it was not killed in the middle"

    def all_priors():
        return {path.name: path.read_bytes() for path in folder.glob("*.npy")}

    one_by_one = settings(weights, batch_size=1)
    outcome, _ = extract_priors(home / MOSMED.frames_dir, MOSMED, one_by_one)
    assert outcome.counts["kept"] >= 1 and outcome.counts["made"] + outcome.counts["kept"] == 32
    continued = all_priors()
    assert len(continued) == 32 and not list(folder.glob(".unfinished*"))
    shutil.rmtree(folder)
    extract_priors(home / MOSMED.frames_dir, MOSMED, one_by_one)
    assert all_priors() == continued


def test_first_frames_only_and_half_precision(home, weights):
    frames = home / MOSMED.frames_dir
    outcome, folder = extract_priors(
        frames, MOSMED, settings(weights, first_frames_only=True, dtype="float16")
    )
    assert sorted(path.stem for path in folder.glob("*.npy")) == ["study_0001_slice01", "study_0002_slice01"]
    prior = np.load(folder / "study_0001_slice01.npy")
    assert prior.dtype == np.float16 and outcome.counts["made"] == 2
    full = encode(load_encoder(weights), read_png(frames / "study_0001_slice01.png")[None])[0]
    assert np.abs(prior - full).max() < 5e-3
    noted = json.loads((folder / "weights.json").read_text())
    assert noted["dtype"] == "float16" and noted["encoder"] == "medsam" and len(noted["fingerprint"]) == 16


def test_priors_of_two_encoders_or_precisions_are_never_mixed(home, weights, tmp_path, run_script):
    frames = home / MOSMED.frames_dir
    extract_priors(frames, MOSMED, settings(weights, first_frames_only=True))
    other = tmp_path / "other"
    write_medsam(other, seed=1)
    with pytest.raises(
        UserError, match=r"MosMed_data_emb: was made with other .*fingerprint: .*weights.json"
    ):
        extract_priors(frames, MOSMED, settings(other))
    with pytest.raises(UserError, match="holds priors of another encoder"):
        verify_priors(frames, MOSMED, settings(other))
    with pytest.raises(UserError, match="dtype: '?float32'? there, '?float16'? now"):
        extract_priors(frames, MOSMED, settings(weights, dtype="float16"))
    renamed = tmp_path / "renamed"
    weights_copy = shutil.copytree(weights, renamed)
    assert extract_priors(frames, MOSMED, settings(weights_copy))[0].counts["kept"] == 2  # the same weights
    (home / MOSMED.priors_dir / "weights.json").unlink()
    with pytest.raises(UserError, match="holds files but no weights.json"):
        extract_priors(frames, MOSMED, settings(weights))
    with exclusive(home / MOSMED.priors_dir), pytest.raises(UserError, match="another run is writing"):
        extract_priors(frames, MOSMED, settings(weights))


def test_bad_frames_are_reported_and_skipped(make_home, weights, run_script, tmp_path):
    clips = {
        "Größe 1, groß_s01": moving_clip(1),
        "empty_s01": moving_clip(2),
        "cut_s01": moving_clip(3),
        "wide_s01": np.repeat(np.tile(texture(0, 256), 2)[None], 8, 0),
        "gone_s01": moving_clip(4),
    }
    home = make_home(clips, frames_of=1)
    frames = home / MOSMED.frames_dir
    (frames / "empty_slice01.png").write_bytes(b"")
    cut = frames / "cut_slice01.png"
    cut.write_bytes(cut.read_bytes()[:20000])
    (frames / "gone_slice01.png").unlink()
    for batch_size in (1, 3):
        arguments = ("--data_dir", frames, "--medsam_checkpoint", weights, "--batch_size", batch_size)
        result = run_script(SCRIPT, *arguments, cwd=tmp_path, code=1)
        assert last_line(result).endswith("in MosMedData/MosMed_data_emb; 4 failed (listed above)")
        for reason in (
            "skipped empty_slice01: ", "is empty (0 bytes)", "cut_slice01.png: is not a whole PNG",
            "wide_slice01.png: is 512 x 256 pixels", "gone_slice01.png: does not exist",
        ):  # fmt: skip
            assert reason in result.stderr, reason
    made = [path.stem for path in (home / MOSMED.priors_dir).glob("*.npy")]
    assert made == ["Größe 1, groß_slice01"]
    with pytest.raises(UserError, match="is empty"):
        extract_priors(frames, MOSMED, settings(weights), strict=True)
    # a clip whose first frame the frames' metadata lack is not passed over
    (frames / "train_metadata.jsonl").write_text(
        '{"file_name": "Größe 1, groß_slice01.png", "cls": "CT-0"}\n'
    )
    outcome, _ = extract_priors(frames, MOSMED, settings(weights, first_frames_only=True))
    assert len(outcome.failures) == 4 and outcome.counts["kept"] == 1


def test_a_prior_of_a_former_version_of_its_frame_is_not_kept(home, weights):
    frames = home / MOSMED.frames_dir
    extract_priors(frames, MOSMED, settings(weights))
    name = "study_0001_slice02"
    frame, prior = frames / f"{name}.png", MOSMED.prior_path(home, name)
    before, written = prior.read_bytes(), frame.stat()
    new = encode_png(np.ascontiguousarray(np.fliplr(read_png(frame))))
    frame.write_bytes(new)
    os.utime(frame, ns=(written.st_atime_ns, written.st_mtime_ns))  # so that the time does not tell
    checked, _ = verify_priors(frames, MOSMED, settings(weights))
    assert list(checked.failures) == [name] and "another version of its frame" in checked.failures[name]
    outcome, _ = extract_priors(frames, MOSMED, settings(weights))
    assert outcome.counts == {"kept": 5, "made": 1} and prior.read_bytes() != before
    # the same frame written anew, as by a copy: the time alone is no reason
    frame.write_bytes(new)
    assert extract_priors(frames, MOSMED, settings(weights))[0].counts == {"kept": 6}
    frame.write_bytes(b"")
    outcome, _ = extract_priors(frames, MOSMED, settings(weights))
    assert list(outcome.failures) == [name] and not prior.exists()


def test_verify_finds_every_kind_of_damage(home, weights, run_script, tmp_path):
    frames = home / MOSMED.frames_dir
    _, folder = extract_priors(frames, MOSMED, settings(weights))
    names = sorted(path.name for path in folder.glob("*.npy"))
    good = np.load(folder / names[0])
    (folder / names[0]).unlink()
    (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-100])
    np.save(folder / names[2], np.where(good > 1, np.nan, good))
    np.save(folder / names[3], good.astype(np.float16))
    np.save(folder / names[4], np.zeros_like(good))
    result = run_script(SCRIPT, "--data_dir", frames, "--verify", cwd=tmp_path, code=1)
    assert (
        last_line(result) == "1 image priors in MosMedData/MosMed_data_emb are whole; 5 failed (listed above)"
    )
    for name, reason in zip(
        names, ("does not exist", "not a readable", "not finite", "holds float16", "one value"), strict=False
    ):
        assert any(name in line and reason in line for line in result.stderr.splitlines()), (name, reason)
    # what another run would not take for a prior is made again; damage to the values it cannot see
    outcome, _ = extract_priors(frames, MOSMED, settings(weights))
    assert outcome.counts == {"kept": 3, "made": 3}


def test_an_encoder_that_yields_no_numbers_writes_nothing(home, tmp_path):
    state = random_weights()
    chosen = settings(tmp_path / "medsam.pth", first_frames_only=True)
    torch.save(state | {"image_encoder.neck.3.bias": torch.full((256,), torch.nan)}, tmp_path / "medsam.pth")
    with pytest.raises(UserError, match="medsam.pth: holds values that are not finite"):
        extract_priors(home / MOSMED.frames_dir, MOSMED, chosen)
    state["image_encoder.neck.3.weight"][:] = 3e38  # finite, but not what it yields
    torch.save(state, tmp_path / "medsam.pth")
    shutil.rmtree(home / MOSMED.priors_dir)
    outcome, folder = extract_priors(home / MOSMED.frames_dir, MOSMED, chosen)
    assert len(outcome.failures) == 2 and "not finite" in outcome.failures["study_0001_slice01"]
    assert not list(folder.glob("*.npy"))


def test_a_device_that_is_not_there_is_named():
    assert pick_device("cpu") == "cpu"
    assert pick_device("auto") in ("cpu", "cuda:0")
    with pytest.raises(UserError, match="'gpu' is not a device"):
        pick_device("gpu")
    with pytest.raises(UserError, match="cuda:99 does not exist here"):
        pick_device("cuda:99")


def refused(run_script, cwd, *arguments):
    lines = run_script(SCRIPT, *arguments, cwd=cwd, code=2).stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_mistakes_of_the_command_line_are_one_line(home, weights, run_script, tmp_path):
    frames = home / MOSMED.frames_dir
    assert "Give --data_name" in refused(run_script, tmp_path, "--data_dir", tmp_path)
    assert "--medsam_checkpoint is missing" in refused(run_script, tmp_path, "--data_dir", frames)
    missing = refused(run_script, tmp_path, "--data_dir", frames, "--medsam_checkpoint", "nowhere.pth")
    assert "nowhere.pth: does not exist. Get medsam_vit_b.pth" in missing
    command = ("--data_dir", frames, "--medsam_checkpoint", weights)
    told = run_script(SCRIPT, *command, "--batch_size", 0, cwd=tmp_path, code=2).stderr
    assert "argument --batch_size: 0" in told or "argument --batch_size: '0'" in told
    assert "weights.json: does not exist" in refused(run_script, tmp_path, "--data_dir", frames, "--verify")


@pytest.mark.slow
def test_two_machines_of_a_cluster_make_the_same(home, weights, on_two_nodes, tmp_path):
    """Priors, then motion, which goes case by case; relative paths mean what they mean here."""
    frames = "MosMedData/MosMed_data"
    priors = [
        SCRIPT,
        "--data_dir",
        frames,
        "--medsam_checkpoint",
        weights,
        "--batch_size",
        1,
        "--device",
        "cpu",
    ]
    motion = [
        "extract_motion_field_trajs.py",
        "--clip_data_dir",
        "MosMedData/MosMed_volume",
        "--num_workers",
        2,
    ]
    result = on_two_nodes(priors, motion, cwd=tmp_path)
    assert "image priors: 6 made, 0 were there already" in result.stdout
    made = {path.name: path.read_bytes() for path in (home / MOSMED.priors_dir).glob("*.npy")}
    assert len(list((home / MOSMED.motion_dir).glob("*.npy"))) == 2
    shutil.rmtree(home / MOSMED.priors_dir)
    extract_priors(home / MOSMED.frames_dir, MOSMED, settings(weights, batch_size=1))
    assert {path.name: path.read_bytes() for path in (home / MOSMED.priors_dir).glob("*.npy")} == made
