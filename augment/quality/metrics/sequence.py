"""How frames follow each other: VAE-Seq, motion smoothness, the order of slices."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from augment.quality.clip_sets import View
from augment.quality.metrics.registry import Cells, Metric, Row, Selection, clip_figure, mean_of, register
from ctrlgenaug.number_format import NONE, interval, number

VAE_SEQ = register(
    clip_figure(
        "vae_seq",
        "VAE-Seq",
        "vae_seq",
        needs=[("vae_path",)],
        note="Mean cosine similarity of neighbouring frames' latents.",
    )
)
SMOOTHNESS = register(
    clip_figure(
        "smoothness",
        "Motion smoothness",
        "smoothness",
        note="How well every other frame is re-created from its neighbours.",
    )
)


def frame_similarities(thumbnails: np.ndarray) -> np.ndarray:
    """Correlation of the frames of each clip with each other: (N, F, h, w) -> (N, F, F); 0 for a flat frame."""
    flat = thumbnails.reshape(*thumbnails.shape[:2], -1).astype(np.float64)
    flat = flat - flat.mean(2, keepdims=True)
    length = np.linalg.norm(flat, axis=2, keepdims=True)
    flat = np.where(length > 1e-6, flat / np.maximum(length, 1e-6), 0)
    return flat @ flat.transpose(0, 2, 1)


def order(similarities: np.ndarray) -> np.ndarray:
    """How strictly similarity falls with distance in each clip: (N, F, F) -> (N,) in [-1, 1].

    Spearman's rank correlation over all pairs of frames of a clip between their distance in the clip and their
    dissimilarity: 1 where frames are the less alike the further they lie apart, about 0 for frames in no order. NaN
    for clips of fewer than 3 frames, or of equal frames.
    """
    frames = similarities.shape[1]
    one, other = np.triu_indices(frames, 1)
    found = np.full(len(similarities), np.nan)
    if frames < 3:
        return found
    apart = rankdata(other - one)
    for index, similarity in enumerate(similarities):
        unlike = rankdata(-similarity[one, other].round(6))  # equal to rounding: a tie
        if unlike.std() > 0:
            found[index] = np.corrcoef(apart, unlike)[0, 1]
    return found


def _slice_order(chosen: Selection) -> Row | None:
    def of(view: View) -> Row | None:
        similarities = frame_similarities(view["thumbnails"])
        row = mean_of(view, order(similarities), chosen.run.seed)
        frames = similarities.shape[1]
        by_distance = [np.diagonal(similarities, step, 1, 2).mean() for step in range(1, frames)]
        return row and row | {"similarity": [round(float(value), 6) for value in by_distance]}

    found = {view.clips.name: of(view) for view in (chosen.synthetic, chosen.real) if len(view)}
    return {name: row for name, row in found.items() if row} or None


def _order_cells(row: Row) -> Cells:
    cells: Cells = []
    for group in ("synthetic", "real"):
        if group in row:
            found = row[group]
            curve = ", ".join(number(value) for value in found["similarity"])
            cells.append((group, number(found["mean"]), interval(found["interval"]), curve or NONE))
    return cells


def _order_headline(row: Row) -> str:
    if "synthetic" not in row:  # clips of equal frames have no order
        return ""
    real = f" (real {number(row['real']['mean'])})" if "real" in row else ""
    return f"order of slices {number(row['synthetic']['mean'])}{real}"


register(
    Metric(
        name="slice_order",
        title="Order of slices",
        compute=_slice_order,
        heads=("clips", "order", "95 % interval", "similarity of frames 1, 2, ... apart"),
        cells=_order_cells,
        features=("thumbnails",),
        headline=_order_headline,
        note="Order: rank correlation of frames' distance in the clip and their unlikeness; 1 is perfect, 0 is none.",
        steering="slice_order",
    )
)
