"""What one case or file is like. Module-level functions: they run in worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.conditions.image_priors import load_prior
from ctrlgenaug.conditions.motion_field import load_field
from ctrlgenaug.conditions.trajectories import load_trajectories
from ctrlgenaug.datasets.data_file import DataFile
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import Reader
from ctrlgenaug.preprocessing.own.reading import read_case, read_raw
from ctrlgenaug.preprocessing.png import read_png
from ctrlgenaug.preprocessing.volumes import Volume
from ctrlgenaug.video import read_video

STRIP = 64  # side of a frame on the contact sheet, in pixels
STRIP_FRAMES = 8
BRIGHT, DARK = 250, 5  # grey values that count as saturated


@dataclass(frozen=True)
class Measure:
    """What a case's frames are like.

    Attributes:
        frames: how many.
        size: rows and columns as stored, in words.
        spacing: between voxels, in words, or "".
        low: least stored value.
        high: greatest stored value.
        constant: frames without any contrast.
        bright: share of pixels at the white end.
        dark: share of pixels at the black end.
        digest: equal for equal pixels.
        strip: (F, `STRIP`, `STRIP`) uint8, a few frames for the contact sheet; None: not asked for.
    """

    frames: int
    size: str
    spacing: str
    low: float
    high: float
    constant: int
    bright: float
    dark: float
    digest: str
    strip: np.ndarray | None = None


def measure(
    frames: np.ndarray,
    *,
    size: str = "",
    spacing: str = "",
    low: float = 0,
    high: float = 0,
    draw: bool = False,
) -> Measure:
    """Measures frames (F, H, W) uint8."""
    chosen = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    small = (
        [cv2.resize(frames[i], (STRIP, STRIP), interpolation=cv2.INTER_AREA) for i in chosen]
        if draw
        else None
    )
    return Measure(
        len(frames),
        size or f"{frames.shape[2]} x {frames.shape[1]}",
        spacing,
        low or float(frames.min()),
        high or float(frames.max()),
        int(sum(np.ptp(frame) == 0 for frame in frames)),
        float((frames >= BRIGHT).mean()),
        float((frames <= DARK).mean()),
        hashlib.sha256(frames.tobytes()).hexdigest()[:16],
        np.stack(small) if small else None,
    )


def _stack(frames: Mapping[int, np.ndarray | bytes]) -> np.ndarray:
    return np.stack([frame for frame in frames.values() if isinstance(frame, np.ndarray)])


def raw_of_own(case: Case, data: DataFile, draw: bool) -> Measure:
    """A case of a user's own data: its raw values, and its frames."""
    files = case.sources[:-1] if data.raw.mask else case.sources
    shown = _stack(read_case(case, data))  # first: its errors name no file where cases have pseudonyms
    stored, _ = read_raw(files, data)
    voxels = stored.voxels if isinstance(stored, Volume) else stored
    size = " x ".join(map(str, voxels.shape)) + f" {voxels.dtype}"
    spacing = ""
    if isinstance(stored, Volume):
        spacing = " x ".join(f"{mm:.3g}" for mm in stored.spacing) + f" mm, {stored.orientation}"
    return measure(
        shown, size=size, spacing=spacing, low=float(voxels.min()), high=float(voxels.max()), draw=draw
    )


def raw_of_published(case: Case, read: Reader, draw: bool) -> Measure:
    """A case of a published data set, by its own reader."""
    return measure(_stack(read(case)), draw=draw)


def frames_of(paths: Sequence[Path], draw: bool) -> Measure:
    """The PNG frames of a case."""
    return measure(np.stack([read_png(path) for path in paths]), draw=draw)


def clip_of(path: Path, draw: bool) -> Measure:
    """A clip."""
    return measure(read_video(path), draw=draw)


def prior_of(path: Path) -> str:
    """The type of an image prior; a `UserError` if it is damaged."""
    prior = load_prior(path)
    return f"{prior.shape} {prior.dtype}"


def motion_of(field: Path, trajectories: Path) -> tuple[int, float]:
    """Frames of a clip by its motion field, and the share of pixels that move; the trajectories must fit."""
    vectors = load_field(field)
    load_trajectories(trajectories, len(vectors) + 1)
    return len(vectors) + 1, float((vectors != 0).any(1).mean())
