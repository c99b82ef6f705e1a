"""Motion smoothness as VBench defines it: how well every other frame is re-created from its neighbours.

The score of a clip is 1 - (mean absolute error of the re-created frames) / 255. It depends on the interpolator, so a
score is only comparable with scores of the same one; VBench, and the published figures, use AMT-S.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ctrlgenaug.errors import UserError

Interpolator = Callable[
    [np.ndarray, np.ndarray], np.ndarray
]  # two (H, W) uint8 frames -> the one between, (H, W)


def mean_of_neighbours(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The plain mean: needs no weights; any motion, however even, costs points."""
    return (before.astype(np.float32) + after.astype(np.float32)) / 2


def optical_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Both neighbours moved half way along OpenCV's DIS flow, then averaged: needs no weights, follows even motion."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    rows, columns = np.mgrid[: before.shape[0], : before.shape[1]].astype(np.float32)

    def half_way(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        flow = estimator.calc(source, target, None)  # (H, W, 2): source[y, x] lies at (x, y) + flow in target
        moved = (columns - flow[..., 0] / 2, rows - flow[..., 1] / 2)
        return cv2.remap(source.astype(np.float32), *moved, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return (half_way(before, after) + half_way(after, before)) / 2


INTERPOLATORS: dict[str, Interpolator] = {"mean": mean_of_neighbours, "flow": optical_flow}


def smoothness(frames: np.ndarray, interpolate: Interpolator = mean_of_neighbours) -> float | None:
    """The score of one clip in percent.

    Args:
        frames: (F, H, W) uint8. Frames 1, 3, 5, ... that have both neighbours are re-created.
        interpolate: see `Interpolator`.

    Returns:
        None for fewer than three frames.
    """
    if len(frames) < 3:
        return None
    errors = [
        np.abs(frames[index].astype(np.float32) - interpolate(frames[index - 1], frames[index + 1])).mean()
        for index in range(1, len(frames) - 1, 2)
    ]
    return float(100 * (1 - np.mean(errors) / 255))


def amt_scorer(weights: str | Path, device: str) -> Callable[[Path], float]:
    """VBench's own scorer with AMT-S, from the user's installation of the ``vbench`` package.

    Returns:
        a function from a clip's path to its score in percent.

    Raises:
        UserError: the package is not installed, or the weights are missing.
    """
    if not Path(weights).is_file():
        raise UserError("does not exist", "Give AMT-S's weights (amt-s.pth) with --amt_weights", weights)
    try:
        import vbench
        from vbench.motion_smoothness import MotionSmoothness
    except ImportError:
        raise UserError(
            "--interpolator amt needs the package vbench, which is not installed",
            "Install it (pip install vbench), or use --interpolator flow",
        ) from None
    config = Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml"
    scorer = MotionSmoothness(str(config), str(weights), device)
    return lambda path: 100 * float(scorer.motion_score(str(path)))
