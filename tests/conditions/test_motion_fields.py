"""Motion fields: known movement comes out, rows land where the method says, in the order it says."""

from __future__ import annotations

import cv2
import imageio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from moving import moving_clip, texture
from mvextractor.videocap import VideoCap

from ctrlgenaug.conditions.motion_arrows import draw_field
from ctrlgenaug.conditions.motion_field import (
    ADJACENT_REFERENCE,
    fill,
    motion_field,
    rasterise,
    read_vectors,
)
from ctrlgenaug.conditions.trajectories import cell_displacements
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import write_mp4


def plain_rasterise(rows, height, width):
    """docs/method.md section 4, a row at a time."""
    field = np.zeros((2, height, width), np.float32)
    for source, _, _, _, _, dst_x, dst_y, motion_x, motion_y, scale in rows.tolist():
        y, x = min(max(dst_y, 0), height - 1), min(max(dst_x, 0), width - 1)
        field[:, y, x] = source * motion_x / scale, source * motion_y / scale
    return field


@settings(max_examples=60, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(0, 40), st.just(10)), elements=st.integers(-9, 9)))
def test_rows_land_as_the_method_says_and_the_last_one_counts(rows):
    rows[:, 9] = np.abs(rows[:, 9]) + 1  # the scale is positive
    assert (rasterise(rows, 6, 8) == plain_rasterise(rows, 6, 8)).all()  # 48 pixels: many rows share one


@pytest.mark.parametrize(("dx", "dy"), [(3, 2), (0, 4), (6, 0)])
def test_with_adjacent_reference_a_vector_is_the_movement_since_the_frame_before(dx, dy):
    field = motion_field(moving_clip(0, dx, dy), adjacent_reference=True)
    assert field.shape == (7, 2, 256, 256) and field.dtype == np.float32
    for one in field:
        vectors = one[:, (one != 0).any(0)]
        assert vectors.shape[1] > 150  # nearly every block of 16 x 16
        exact = (np.abs(vectors - np.array([[dx], [dy]])) <= 0.25).all(0)
        assert exact.mean() > 0.9


def plain_fill(rows, height, width):
    """A vector to each pixel of its block, a row at a time."""
    field = np.zeros((2, height, width), np.float32)
    for source, w, h, _, _, dst_x, dst_y, motion_x, motion_y, scale in rows.tolist():
        for y in range(max(dst_y - h // 2, 0), min(max(dst_y - h // 2, 0) + h, height)):
            for x in range(max(dst_x - w // 2, 0), min(max(dst_x - w // 2, 0) + w, width)):
                field[:, y, x] = source * motion_x / scale, source * motion_y / scale
    return field


@settings(max_examples=40, deadline=None)
@given(arrays(np.int32, st.tuples(st.integers(0, 12), st.just(10)), elements=st.integers(-9, 9)))
def test_a_vector_fills_its_block(rows):
    rows[:, 1:3] = np.abs(rows[:, 1:3]) + 1
    rows[:, 5:7] = np.abs(rows[:, 5:7])
    rows[:, 9] = np.abs(rows[:, 9]) + 1
    assert (fill(rows, 10, 12) == plain_fill(rows, 10, 12)).all()


def test_trajectories_move_only_along_filled_blocks():
    """Points are looked up at the corners of cells, of which at most every fourth is the middle of a block."""
    clip = moving_clip(0, 8, 0)  # one cell to the right, each frame

    def moving(**options):
        steps = cell_displacements(motion_field(clip, **options))
        return float((steps == np.array([1, 0])[:, None, None]).all(1).mean())

    assert moving() < 0.2 and moving(adjacent_reference=True) < 0.3
    assert moving(adjacent_reference=True, fill_blocks=True) > 0.85


def test_encoder_defaults_look_further_and_ahead(tmp_path):
    """The reason for ``--adjacent_reference``: some default fields span several frames."""
    clip = moving_clip(0)
    lengths = [np.median(np.hypot(*one[:, (one != 0).any(0)])) for one in motion_field(clip)]
    assert max(lengths) > 1.9 * np.hypot(3, 2)

    def sources(options):
        write_mp4(tmp_path / "clip.mp4", clip, encoder_options=options)
        return {int(s) for rows in read_vectors(tmp_path / "clip.mp4") for s in rows[:, 0]}

    assert sources(()) == {-1, 1} and sources(ADJACENT_REFERENCE) == {-1}


def test_the_rows_are_mv_extractors(tmp_path):
    """Of several readings by mv-extractor at least one is whole; see `read_vectors` for why not all are."""
    path = tmp_path / "clip.mp4"
    write_mp4(path, moving_clip(2, 2, 2))
    ours = read_vectors(path)
    agreed = [False] * len(ours)
    for _ in range(40):
        for index, rows in enumerate(_by_mv_extractor(path)):
            agreed[index] |= rows.shape == ours[index].shape and (rows == ours[index]).all()
        if all(agreed):
            break
    assert agreed == [True] * 8 and sum(map(len, ours)) > 1000


def _by_mv_extractor(path):
    capture = VideoCap()
    assert capture.open(str(path))
    while True:
        success, _, rows, _ = capture.read()
        if not success:
            capture.release()
            return
        yield rows.reshape(-1, 10)


def swaying_clip(seed):
    """Content that bends to and fro under noise: hard to predict, so that every choice of the encoder shows."""
    rng, still = np.random.default_rng(seed), texture(seed)
    down, across = np.mgrid[32:288, 32:288].astype(np.float32)
    frames = []
    for index in range(8):
        x, y = across + 6 * np.sin(down / 20 + index * 0.6), down + 5 * np.cos(across / 25 + index * 0.5)
        bent = cv2.remap(still, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        frames.append(np.clip(bent + rng.normal(0, 4, bent.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


@pytest.mark.parametrize("clip", [moving_clip(0), swaying_clip(0), swaying_clip(1)])
def test_the_field_is_that_of_the_published_script(tmp_path, clip):
    """It encodes with imageio and its defaults; on two cores x264 then has 3 threads."""
    pictures = [cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB) for frame in clip]
    imageio.mimsave(tmp_path / "clip.mp4", pictures, fps=2.5, ffmpeg_params=["-threads", "3"])
    published = [rasterise(rows, 256, 256) for rows in read_vectors(tmp_path / "clip.mp4")[1:]]
    ours = motion_field(clip)
    assert (ours == np.stack(published)).all() and ours.any()
    write_mp4(tmp_path / "other.mp4", clip, crf=25)
    other = [rasterise(rows, 256, 256) for rows in read_vectors(tmp_path / "other.mp4")[1:]]
    assert (ours != np.stack(other)).any(), (
        "the encoder's settings have no effect, so this test would not see it"
    )


def test_vectors_of_up_to_three_threads_are_the_same_and_of_twelve_are_others():
    clip = swaying_clip(2)
    assert (motion_field(clip, encoder_threads=1) == motion_field(clip)).all()
    assert (motion_field(clip, encoder_threads=12) != motion_field(clip)).any()


def test_mv_extractor_reads_most_of_the_same_rows():
    clip = moving_clip(3)
    ours, theirs = motion_field(clip), motion_field(clip, reader="mv-extractor")
    assert theirs.shape == ours.shape and (theirs == ours).all((1, 2, 3)).any()


def test_vectors_are_the_same_at_every_reading(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(path, moving_clip(2, 2, 2))
    once = read_vectors(path)
    for _ in range(20):
        assert all((one == other).all() for one, other in zip(once, read_vectors(path), strict=True))


def test_the_field_is_reproducible_and_a_still_clip_does_not_move():
    clip = moving_clip(1)
    assert (motion_field(clip) == motion_field(clip)).all()
    assert (motion_field(np.repeat(clip[:1], 8, axis=0)) == 0).all()


@pytest.mark.parametrize("num_frames", [1, 2, 17])
def test_any_number_of_frames(num_frames):
    assert motion_field(moving_clip(0, 1, 1, num_frames)).shape == (num_frames - 1, 2, 256, 256)


def test_a_video_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match="clip.mp4: cannot be read"):
        read_vectors(tmp_path / "clip.mp4")


def test_arrows_point_from_where_a_block_was_to_where_it_is():
    frames = np.zeros((2, 64, 64), np.uint8)
    field = np.zeros((1, 2, 64, 64), np.float32)
    field[0, 0, 32, 40] = 20  # 20 to the right, arriving at (40, 32)
    drawn = draw_field(frames, field).any(-1)
    rows, columns = np.nonzero(drawn)
    assert drawn.shape == (128, 128)
    assert 38 <= columns.min() <= 41 and 79 <= columns.max() <= 82 and abs(rows.mean() - 64) < 2
    height = [np.ptp(np.nonzero(drawn[:, x])[0]) for x in (45, 76)]
    assert height[1] > height[0]  # the head is on the right
    with pytest.raises(ValueError, match="expected 1 fields"):
        draw_field(frames, field[:0])
