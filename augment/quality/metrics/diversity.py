"""How different synthetic clips are: in all, and between seeds of one condition."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from augment.quality import similarity
from augment.quality.clip_sets import View
from augment.quality.metrics.registry import Cells, Metric, Row, Selection, register
from ctrlgenaug.number_format import number

SPACES = {
    "pixel": ("thumbnails", similarity.pixel_distances),
    "latent": ("latents", similarity.cosine_distances),
}
LARGEST = 2000  # clips of a set whose pairs are compared; of more, so many drawn at random


def _drawn(view: View, seed: int) -> np.ndarray:
    """Positions in ``view``: all, or `LARGEST` of them."""
    if len(view) <= LARGEST:
        return np.arange(len(view))
    return np.sort(np.random.default_rng(seed).choice(len(view), LARGEST, replace=False))


def _diversity(chosen: Selection) -> Row | None:
    """Mean distance of pairs of clips: pixels in grey values, latents as 1 - cosine; real beside synthetic."""
    row: Row = {}
    for view in (chosen.synthetic, chosen.real):
        if len(view):
            rows = _drawn(view, chosen.run.seed)
            row[view.clips.name] = {
                space: similarity.mean_pairwise(distances(view[feature][rows], view[feature][rows]))
                for space, (feature, distances) in SPACES.items()
                if view.has(feature)
            }
    return row or None


def _cells(row: Row) -> Cells:
    kinds = [(name, space) for name in ("synthetic", "real") for space in SPACES]
    return [tuple(number(row.get(name, {}).get(space), 4) for name, space in kinds)]


register(
    Metric(
        name="diversity",
        title="Diversity",
        compute=_diversity,
        heads=("synthetic, pixel", "synthetic, latent", "real, pixel", "real, latent"),
        cells=_cells,
        features=("thumbnails", "latents"),
        note="Mean distance of two clips of a set. Far below the real clips': the generator repeats itself.",
    )
)


def _between_seeds(chosen: Selection) -> Row | None:
    """Distance of clips of one condition and different seeds, beside that of clips of different conditions."""
    view = chosen.synthetic
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, (name, label) in enumerate(zip(view.names, view.labels, strict=True)):
        groups[name, int(label)].append(index)
    several = [np.array(members) for members in groups.values() if len(members) > 1]
    if not several:
        return None
    firsts = np.array([members[0] for members in groups.values()])[:LARGEST]
    row: Row = {"conditions": len(several), "clips": sum(map(len, several))}
    for space, (feature, distances) in SPACES.items():
        if not view.has(feature):
            continue
        values = view[feature]
        within = [similarity.mean_pairwise(distances(values[part], values[part])) for part in several]
        row[space] = {
            "seeds": float(np.mean(within)),  # type: ignore[arg-type]
            "conditions": similarity.mean_pairwise(distances(values[firsts], values[firsts])),
        }
    return row


def _seed_cells(row: Row) -> Cells:
    return [
        (space, str(row["conditions"]), number(row[space]["seeds"], 4), number(row[space]["conditions"], 4))
        for space in SPACES
        if space in row
    ]


register(
    Metric(
        name="seed_diversity",
        title="Diversity between seeds",
        compute=_between_seeds,
        heads=("distance", "conditions with several seeds", "between seeds", "between conditions"),
        cells=_seed_cells,
        features=("thumbnails", "latents"),
        headline=lambda row: f"seeds {number(row['pixel']['seeds'])} grey values apart",
        note="Mean distance of clips that differ in their seed alone, beside that of clips of different conditions. "
        "Zero between seeds: the conditions leave nothing to the noise; as much as between conditions: they are "
        "ignored.",
        steering="seed_diversity",
    )
)
