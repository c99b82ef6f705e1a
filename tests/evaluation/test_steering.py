"""Whether clips follow their conditions: sets made to follow, to ignore, and to shuffle them."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from clip_home import SPEC

from augment.quality.evaluation import evaluate_folders
from augment.quality.instruments import EvaluationSettings
from augment.quality.metrics.sequence import frame_similarities, order
from augment.quality.similarity import end_point_errors, flow_cells, motion_cells
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.plain_data import save_npy
from ctrlgenaug.video import read_video, write_avi, write_mp4

PATIENTS = 6  # of each class


def moving(seed, direction, frames=8, size=64):
    """A texture of its own that moves by about 4 pixels a frame, in one of `PATIENTS` directions."""
    rng = np.random.default_rng(seed)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (128, 128)).astype(np.float32), (0, 0), 3)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    angle = 2 * np.pi * direction / PATIENTS
    step = np.round(4 * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    shifted = [np.roll(wide, tuple(step * t), (0, 1))[32 : 32 + size, 32 : 32 + size] for t in range(frames)]
    return np.stack(shifted).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Real clips with motion fields, and ``follows``, ``ignores``, ``shuffled``, a sample of each clip."""
    root = tmp_path_factory.mktemp("steering")
    folder = root / SPEC.home / SPEC.clips_dir
    folder.mkdir(parents=True)
    rows = []
    for number in range(len(SPEC.classes) * PATIENTS):
        name, cls = SPEC.clip_name(f"study_{number:04d}", 1), SPEC.classes[number % len(SPEC.classes)]
        rows.append({"file_name": f"{name}.avi", "cls": cls})
        frames = moving(number, number // 3)
        write_avi(folder / f"{name}.avi", frames)
        save_npy(SPEC.motion_path(root / SPEC.home, name), motion_field(read_video(folder / f"{name}.avi")))
        noise = np.random.default_rng(number).normal(0, 8, frames.shape)
        made = f"{name}_{cls}_66.mp4"
        write_mp4(root / "follows" / made, (frames + noise).clip(0, 255).astype(np.uint8))
        write_mp4(root / "ignores" / made, moving(1000 + number, number // 3 * 5 + 2))
        write_mp4(root / "shuffled" / made, frames[np.random.default_rng(number).permutation(8)])
    SPEC.metadata_path(folder, "train").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


RETRIEVED = ("image_prior", "motion_field", "optical_flow")


def steering(home, folder, **settings):
    metrics = (*RETRIEVED, "slice_order", "seed_diversity")
    result = evaluate_folders(
        SPEC, EvaluationSettings((str(home / folder),), str(home), metrics=metrics, **settings)
    )
    return result.found["steering"]


def test_clips_that_follow_retrieve_their_own(home):
    found = steering(home, "follows")
    for name in RETRIEVED:
        row = found[name]["all"]
        assert row["count"] == 18 and row["candidates"] == PATIENTS and row["chance"] == pytest.approx(1 / 6)
        assert row["retrieved"] >= 0.9 and row["nearer_than_another"] >= 0.95, name
        assert row["own_distance"] < 0.5 * row["another_distance"], name
        assert row["interval"][0] <= row["retrieved"] <= row["interval"][1]
        assert set(found[name]) == {"all", *SPEC.classes}
    assert found["slice_order"]["all"]["synthetic"]["mean"] > 0.8
    assert found["seed_diversity"]["all"] is None  # one seed a condition


def test_clips_that_ignore_their_conditions_retrieve_by_chance(home):
    found = steering(home, "ignores")
    for name in RETRIEVED:
        row = found[name]["all"]
        assert row["retrieved"] <= 0.5 and 0.3 < row["nearer_than_another"] < 0.7, name
        assert row["own_distance"] == pytest.approx(row["another_distance"], rel=0.2)


def test_movement_is_seen_through_speckle_that_the_encoder_follows_instead(home, tmp_path):
    """Noise anew in every frame, as of a sampler of few steps: vectors are drawn to it, optical flow is not."""
    for path in (home / "follows").iterdir():
        frames, rng = read_video(path), np.random.default_rng(7)
        coarse = rng.normal(0, 30, (len(frames), 32, 32)).astype(np.float32)
        noise = np.stack([cv2.resize(plane, frames.shape[1:][::-1]) for plane in coarse])
        write_mp4(tmp_path / path.name, (frames + noise).clip(0, 255).astype(np.uint8))
    found = steering(home, tmp_path)
    assert found["optical_flow"]["all"]["nearer_than_another"] >= 0.95
    assert (
        found["motion_field"]["all"]["nearer_than_another"]
        <= found["optical_flow"]["all"]["nearer_than_another"]
    )


def test_flow_by_hand():
    """A smooth picture that goes 3 pixels to the right and 2 up from frame to frame."""
    wide = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (96, 96)), (0, 0), 3)
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    clip = np.stack([np.roll(wide, (-2 * t, 3 * t), (0, 1))[16:80, 16:80] for t in range(4)]).astype(np.uint8)
    found = flow_cells(clip)
    assert found.shape == (3, 2, 4, 4) and found.dtype == np.float32
    assert np.abs(found[:, 0, 1:3, 1:3] - 3).max() < 0.3 and np.abs(found[:, 1, 1:3, 1:3] + 2).max() < 0.3
    assert flow_cells(clip[:1]).shape == (0, 2, 4, 4)


def test_shuffled_frames_are_in_no_order(home):
    found = steering(home, "shuffled")["slice_order"]["all"]
    assert abs(found["synthetic"]["mean"]) < 0.35 < 0.8 < found["real"]["mean"]
    curve = found["real"]["similarity"]
    assert len(curve) == 7 and curve[0] > curve[1] > curve[2] > max(curve[3:])


def test_fewer_candidates_and_other_data(home, tmp_path):
    assert steering(home, "follows", candidates=3)["image_prior"]["all"]["candidates"] == 3
    folder = tmp_path / "mixed"
    shutil.copytree(home / "follows", folder)
    write_mp4(
        folder / "study_9999_s01_CT-0_66.mp4", moving(5, 0)
    )  # a source that is not among the real clips
    write_mp4(
        folder / "study_0000_s01_CT-0_67.mp4", moving(0, 0, frames=12)
    )  # another length: no field to compare
    found = steering(home, folder)
    assert found["image_prior"]["all"]["count"] == 19 and found["motion_field"]["all"]["count"] == 18
    assert found["seed_diversity"]["all"]["conditions"] == 1


def test_order_by_hand():
    ramp = np.linspace(0, 1, 8)[None, :, None, None] * np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    ramp = ramp + np.random.default_rng(1).normal(size=(1, 1, 8, 8))
    assert order(frame_similarities(ramp))[0] > 0.95
    assert np.isnan(order(frame_similarities(np.ones((1, 8, 4, 4))))[0])  # equal frames
    assert np.isnan(order(frame_similarities(ramp[:, :2]))[0])


def test_motion_cells_are_means_of_the_moving_blocks():
    field = np.zeros((1, 2, 32, 32), np.float32)
    field[0, :, 4, 4], field[0, :, 4, 12], field[0, :, 24, 24] = (2, 0), (4, 2), (0, -3)
    cells = motion_cells(field)
    assert cells.shape == (1, 2, 2, 2)
    assert cells[0, :, 0, 0].tolist() == [3, 1] and cells[0, :, 1, 1].tolist() == [0, -3]
    assert not cells[0, :, 0, 1].any()
    assert end_point_errors(cells, np.stack([cells, 0 * cells])).tolist() == pytest.approx(
        [0, (np.sqrt(10) + 3) / 4]
    )


def test_fields_are_the_conditions_where_they_were_extracted(home, tmp_path):
    """Without the folder of motion fields, they are extracted again from the real clips: the same result."""
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    shutil.rmtree(copy / SPEC.home / SPEC.motion_dir)
    assert steering(copy, "follows") == steering(home, "follows")
    assert read_video(next((copy / "follows").glob("*.mp4"))).shape == (8, 64, 64)
