"""Clips in and out: what was written comes back."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from ctrlgenaug import video
from ctrlgenaug.errors import UserError


@pytest.fixture
def frames():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    return np.stack([np.roll(ramp, shift, axis=1) for shift in range(8)])


def test_avi_keeps_grey_values_within_the_rounding_of_video_range(tmp_path, frames):
    video.write_avi(tmp_path / "a b ü.avi", frames)
    assert (tmp_path / "a b ü.avi").stat().st_size > frames.size * 3 // 2  # raw: nothing is compressed
    back = video.read_video(tmp_path / "a b ü.avi", 8)
    assert back.shape == frames.shape and back.dtype == np.uint8
    assert np.abs(back.astype(int) - frames).max() <= 2


def test_mp4_lossless_keeps_every_value(tmp_path, frames):
    video.write_mp4(tmp_path / "a.mp4", frames, lossless=True)
    assert (video.read_video(tmp_path / "a.mp4") == frames).all()


def test_mp4_bytes_are_reproducible(tmp_path, frames):
    video.write_mp4(tmp_path / "a.mp4", frames)
    video.write_mp4(tmp_path / "b.mp4", frames)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_bad_videos_are_named(tmp_path, frames):
    with pytest.raises(UserError, match="gone.avi: does not exist"):
        video.read_video(tmp_path / "gone.avi")
    (tmp_path / "broken.avi").write_bytes(b"not a video")
    with pytest.raises(UserError, match="broken.avi: is not a readable video"):
        video.read_video(tmp_path / "broken.avi")
    video.write_avi(tmp_path / "short.avi", frames[:5])
    with pytest.raises(UserError, match="has 5 frames, expected 8"):
        video.read_video(tmp_path / "short.avi", 8)


def test_failed_encoding_leaves_nothing(tmp_path, frames):
    with pytest.raises(UserError, match="cannot be encoded"):
        video.write_mp4(tmp_path / "a.mp4", frames[:, :63, :255])  # H.264 in yuv420p needs even sizes
    assert not list(tmp_path.iterdir())


def test_wrong_arrays_are_refused(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        video.write_avi(tmp_path / "a.avi", np.zeros((8, 64, 64), np.float32))


@pytest.mark.parametrize("shape", [(8, 256, 256), (1, 2, 2), (15, 50, 34), (3, 64, 96)])
def test_avi_is_ffmpegs_byte_for_byte(shape, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    video.write_avi(tmp_path / "ours.avi", frames)
    grey = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{shape[2]}x{shape[1]}", "-r", "2.5", "-i", "-")
    codec = ("-fflags", "+bitexact", "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-vtag", "I420")
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        *grey,
        *codec,
        str(tmp_path / "theirs.avi"),
    ]
    subprocess.run(command, input=frames.tobytes(), check=True)
    assert (tmp_path / "ours.avi").read_bytes() == (tmp_path / "theirs.avi").read_bytes()


def test_avi_of_odd_sizes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="do not fit"):
        video.write_avi(tmp_path / "clip.avi", np.zeros((2, 31, 32), np.uint8))
    assert not list(tmp_path.iterdir())
