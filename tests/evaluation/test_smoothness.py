"""Smoothness of clips whose score is known; interpolators told apart."""

from __future__ import annotations

import numpy as np
import pytest

from augment.quality.smoothness import INTERPOLATORS, amt_scorer, mean_of_neighbours, smoothness
from ctrlgenaug.errors import UserError


def texture(size=96, seed=0):
    import cv2

    return cv2.GaussianBlur(
        np.random.default_rng(seed).uniform(0, 255, (size, size)).astype(np.float32), (0, 0), 3
    )


@pytest.mark.parametrize("interpolate", INTERPOLATORS.values())
def test_a_still_clip_is_perfect(interpolate):
    still = np.repeat(texture().astype(np.uint8)[None], 8, 0)
    assert smoothness(still, interpolate) == pytest.approx(
        100, abs=0.2 if interpolate is not mean_of_neighbours else 0
    )


def test_alternating_frames_are_the_worst():
    flicker = np.zeros((9, 8, 8), np.uint8)
    flicker[1::2] = 255
    assert smoothness(flicker) == 0


def test_only_every_other_frame_is_recreated():
    frames = np.full((8, 4, 4), 100, np.uint8)
    frames[3] = 151  # re-created as 100: an error of 51 in one of three
    assert smoothness(frames) == pytest.approx(100 * (1 - 51 / 3 / 255))
    frames[7] = 0  # has no right neighbour
    assert smoothness(frames) == pytest.approx(100 * (1 - 51 / 3 / 255))
    even_ramp = np.arange(8, dtype=np.uint8)[:, None, None] * np.full((1, 4, 4), 20, np.uint8)
    assert smoothness(even_ramp) == 100


def test_short_clips_have_no_score():
    assert smoothness(np.zeros((2, 4, 4), np.uint8)) is None
    assert smoothness(np.zeros((3, 4, 4), np.uint8)) == 100


def test_flow_follows_even_motion_and_the_mean_does_not():
    wide = texture(160)
    moving = np.stack([wide[32:128, 20 + 4 * t : 116 + 4 * t] for t in range(8)]).astype(np.uint8)
    by_mean, by_flow = (smoothness(moving, INTERPOLATORS[name]) for name in ("mean", "flow"))
    assert 100 - by_flow < 0.5 * (100 - by_mean)
    jumping = moving.copy()
    jumping[1::2] = np.roll(jumping[1::2], 9, axis=1)
    assert smoothness(jumping, INTERPOLATORS["flow"]) < by_flow - 1


def test_amt_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="amt_weights"):
        amt_scorer(tmp_path / "amt-s.pth", "cpu")
    (tmp_path / "amt-s.pth").write_bytes(b"")
    try:
        import vbench  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="needs the package vbench"):
            amt_scorer(tmp_path / "amt-s.pth", "cpu")
