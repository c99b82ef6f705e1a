"""Motion fields: what a video encoder found out about the movement in a clip (method, section 4)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.video import ENCODER_THREADS, write_mp4

if TYPE_CHECKING:
    from av.sidedata.motionvectors import MotionVectors

REMEDY = "Delete it and run extract_motion_field_trajs.py again"

# x264 may predict a frame from later ones (B-frames) and from frames further back, so that by default a vector may span
# up to 4 frames. These options leave it the frame before.
ADJACENT_REFERENCE = ("-bf", "0", "-refs", "1")

# of a row of motion vectors
COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
SOURCE, W, H, DST_X, DST_Y, MOTION_X, MOTION_Y, MOTION_SCALE = (
    COLUMNS.index(name)
    for name in ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
)


READERS = ("pyav", "mv-extractor")


def motion_field(
    frames: np.ndarray,
    *,
    adjacent_reference: bool = False,
    fill_blocks: bool = False,
    encoder_threads: int = ENCODER_THREADS,
    reader: str = "pyav",
) -> np.ndarray:
    """The motion field of a clip, from its encoding as H.264 (`write_mp4`).

    Args:
        frames: (F, H, W) uint8, H and W even.
        adjacent_reference: let the encoder predict from the frame before only, so that a field is between neighbours.
        fill_blocks: give every pixel of a block its vector, in place of the middle one alone. Trajectories look at
            the corner of each cell, which is hardly ever a block's middle, so without it most of them stand still.
        encoder_threads: see `write_mp4`; fields of published models may be those of another number.
        reader: one of `READERS`.

    Returns:
        (F-1, 2, H, W) float32: pixels moved from the reference to frame 1, 2, ..., channel 0 = x (to the right), zero
        where there is no vector (one vector a block, at its middle, unless ``fill_blocks``).
    """
    options = ADJACENT_REFERENCE if adjacent_reference else ()
    with tempfile.TemporaryDirectory(prefix="ctrlgenaug-motion-") as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(path, frames, threads=encoder_threads, encoder_options=options)
        vectors = read_vectors(path) if reader == "pyav" else read_by_mv_extractor(path)
    if len(vectors) != len(frames):
        raise UserError(
            f"the encoder returned {len(vectors)} of {len(frames)} frames", "Check the installed ffmpeg"
        )
    height, width = frames.shape[1:]
    draw = fill if fill_blocks else rasterise
    fields = [draw(rows, height, width) for rows in vectors[1:]]
    return np.stack(fields) if fields else np.zeros((0, 2, height, width), np.float32)


def read_vectors(path: str | Path) -> list[np.ndarray]:
    """The motion vectors of each frame of an encoded video, in order of display.

    These are mv-extractor's rows, read with one decoder thread. mv-extractor itself starts a thread a core, and a frame
    that is shown after later ones were decoded (a B-frame as reference) can be handed out before its thread has filled
    in its vectors: on two cores every sixth to third reading of a clip had lost some, not always the same.

    Returns:
        (N, 10) integers a frame: source, w, h, src_x, src_y, dst_x, dst_y, motion_x, motion_y, motion_scale; source is
        -1 for a reference in the past, 1 for one in the future.
    """
    import av  # here, because it loads its own ffmpeg

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"flags2": "+export_mvs"}
            stream.codec_context.thread_count = 1
            return [_rows(frame.side_data.get("MOTION_VECTORS")) for frame in container.decode(stream)]
    except Exception as error:  # besides its own errors, those of texts and tables in a damaged container
        reason = in_one_line(error)
        problem = f"cannot be read for its motion vectors ({reason})"
        raise UserError(problem, "Check that it is a video", path) from None


def read_by_mv_extractor(path: str | Path) -> list[np.ndarray]:
    """The same rows as the published code reads them, with mv-extractor; see `read_vectors` for what that risks."""
    from mvextractor.videocap import VideoCap  # here, because it loads its own ffmpeg

    capture, found = VideoCap(), []
    if not capture.open(str(path)):
        raise UserError("cannot be read for its motion vectors", "Check that it is a video", path)
    try:
        while (read := capture.read())[0]:
            found.append(read[2].reshape(-1, len(COLUMNS)).astype(np.int64))
    finally:
        capture.release()
    return found


def _rows(vectors: MotionVectors | None) -> np.ndarray:
    if vectors is None:  # a frame that refers to no other
        return np.zeros((0, len(COLUMNS)), dtype=np.int64)
    table = vectors.to_ndarray()
    return np.stack([table[name].astype(np.int64) for name in COLUMNS], axis=1)


def rasterise(rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Puts each vector at the middle of its block; where two fall on one pixel, the later row counts.

    Args:
        rows: (N, 10) motion vectors of a frame.
        height: of the field.
        width: of the field.

    Returns:
        (2, height, width) float32: source * (motion_x, motion_y) / motion_scale.
    """
    field = np.zeros((2, height * width), dtype=np.float32)
    if len(rows):
        x = np.clip(rows[:, DST_X], 0, width - 1)
        y = np.clip(rows[:, DST_Y], 0, height - 1)
        # Assignment to repeated indices is in no promised order, so the last row of each pixel is picked first.
        pixel, from_behind = np.unique((y * width + x)[::-1], return_index=True)
        last = rows[len(rows) - 1 - from_behind]
        moved = last[:, SOURCE] * last[:, [MOTION_X, MOTION_Y]].T / last[:, MOTION_SCALE]
        field[:, pixel] = moved
    return field.reshape(2, height, width)


def fill(rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Gives each vector to all pixels of its block, see `rasterise`; where blocks overlap the later row counts."""
    field = np.zeros((2, height, width), dtype=np.float32)
    for row in rows:
        top, left = max(row[DST_Y] - row[H] // 2, 0), max(row[DST_X] - row[W] // 2, 0)
        block = slice(top, top + row[H]), slice(left, left + row[W])
        field[:, *block] = (row[SOURCE] * row[[MOTION_X, MOTION_Y]] / row[MOTION_SCALE])[:, None, None]
    return field


def load_field(
    path: str | Path, num_frames: int | None = None, *, mmap: bool = False, remedy: str = REMEDY
) -> np.ndarray:
    """The motion field (F-1, 2, 256, 256) of a clip; a `UserError` if it is not one, or of another F."""
    shape = (num_frames and num_frames - 1, 2, IMAGE_SIZE, IMAGE_SIZE)
    return load_npy(path, shape, mmap=mmap, remedy=remedy)
