"""Clips in and out: raw I420 AVI for the real ones, H.264 MP4 for the synthetic ones.

Frames are grey, (F, H, W) uint8, in [0, 255]. The AVI is written as ffmpeg would: OpenCV's own I420 writer goes
through BGR and shifts the chroma planes, which darkens grey values by 2 on average.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from ctrlgenaug.avi import grey_avi
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path, check_file
from ctrlgenaug.preprocessing.raw_files import check_picture

FRAMES_PER_SECOND = 2.5  # of every clip of the method, real or synthetic
MOST_CLIP_PIXELS = 1 << 27  # of all frames of a clip together: 2048 frames of 256 x 256
# x264 chooses 3 on two cores. Pictures and vectors were equal with 1 to 3 threads, others with 4 to 8 and from 12 on.
ENCODER_THREADS = 3


def _checked(frames: np.ndarray) -> np.ndarray:
    frames = np.ascontiguousarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 3 or not len(frames):
        raise ValueError(f"frames must be (F, H, W) uint8 with F >= 1, got {frames.shape} {frames.dtype}")
    return frames


def _encode(path: str | Path, frames: np.ndarray, codec: Sequence[str], *, rgb: bool = False) -> None:
    frames = _checked(frames)
    height, width = frames.shape[1:]
    if rgb:  # the way from three channels to luma rounds other than the way from one
        frames = np.repeat(frames[..., None], 3, axis=-1)
    with atomic_path(path) as temporary:
        command = [
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"),
            *(
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24" if rgb else "gray",
                "-s",
                f"{width}x{height}",
                "-r",
                str(FRAMES_PER_SECOND),
            ),
            *("-i", "-", "-fflags", "+bitexact", *codec, str(temporary)),
        ]
        result = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
        if result.returncode:
            message = result.stderr.decode(errors="replace").strip().splitlines() or ["ffmpeg failed"]
            raise UserError(f"cannot be encoded ({message[-1]})", "Check disk space and frame size", path)


def write_avi(path: str | Path, frames: np.ndarray) -> None:
    """Writes (F, H, W) uint8 frames as raw I420 AVI at 2.5 frames/s, whole or not at all (method, section 3).

    Raises:
        ValueError: no such frames, odd H or W, or a file of 1 GB or more.
    """
    content = grey_avi(_checked(frames))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_mp4(
    path: str | Path,
    frames: np.ndarray,
    *,
    crf: int | None = None,
    lossless: bool = False,
    threads: int = ENCODER_THREADS,
    encoder_options: Sequence[str] = (),
) -> None:
    """Writes (F, H, W) uint8 frames as H.264 MP4 at 2.5 frames/s, whole or not at all.

    As published: libx264 with its own defaults from RGB frames to yuv420p. Only the number of threads is fixed, because
    x264's output depends on it and a file must not depend on the machine.

    Args:
        path: the target.
        frames: even H and W.
        crf: constant rate factor; None: x264's default, 23.
        lossless: keep every grey value (crf 0, full-range luma).
        threads: of the encoder; 0: as many as x264 likes on this machine.
        encoder_options: further ffmpeg output options, e.g. ``("-bf", "0")``.
    """
    quality: tuple[str, ...] = ("-pix_fmt", "yuv420p")
    if lossless:
        quality = ("-crf", "0", "-pix_fmt", "yuvj420p")
    elif crf is not None:
        quality = ("-crf", str(crf), *quality)
    count = ("-threads", str(threads)) if threads else ()
    _encode(path, frames, ("-c:v", "libx264", *quality, *count, *encoder_options), rgb=not lossless)


def iterate_video(path: str | Path, remedy: str = "Copy it again") -> Iterator[np.ndarray]:
    """The frames of a video of any size, (H, W) uint8, one at a time.

    Raises:
        UserError: missing, no regular file, not a video, or of frames larger than any picture.
    """
    check_file(path, remedy)
    # An absolute path: the library takes a relative one with a colon for the address of a server.
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise UserError("is not a readable video", remedy, path)
        check_picture(
            path, int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        )
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    finally:
        capture.release()


def read_video(path: str | Path, num_frames: int | None = None) -> np.ndarray:
    """Reads a clip as grey frames.

    Args:
        path: AVI or MP4.
        num_frames: the count the clip must have, if any.

    Returns:
        (F, H, W) uint8.

    Raises:
        UserError: missing, unreadable, not ``num_frames`` long, or of more pixels than a clip has (`MOST_CLIP_PIXELS`).
    """
    remedy = "Delete it and run the step that writes it again"
    check_file(path, remedy)
    frames: list[np.ndarray] = []
    for frame in iterate_video(path, remedy):
        frames.append(frame)
        if len(frames) * frame.size > MOST_CLIP_PIXELS:
            problem = (
                f"has {len(frames)} or more frames of {frame.shape[1]} x {frame.shape[0]} pixels: no clip"
            )
            raise UserError(problem, remedy, path)
    if not frames:
        raise UserError("is not a readable video", remedy, path)
    if num_frames is not None and len(frames) != num_frames:
        raise UserError(
            f"has {len(frames)} frames, expected {num_frames}",
            "Sample the clips again with the same --required_clip_num",
            path,
        )
    return np.stack(frames)
