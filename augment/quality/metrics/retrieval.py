"""Whether a synthetic clip follows its own conditions: they are looked for among those of other clips of its class.

A clip's own condition lies among up to 20 of one class, the others of other patients. Retrieved is a clip that is
nearest to its own; a generator that ignores the condition retrieves one in 20.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from augment.quality import similarity
from augment.quality.clip_sets import View
from augment.quality.metrics.registry import Cells, Metric, Row, Run, Selection, register
from augment.quality.resampling import mean_interval
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.errors import UserError
from ctrlgenaug.number_format import interval, number, percent
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.video import read_video

# (synthetic clips, position in them, real clips, positions of the candidates) -> (K,) distances; None: not comparable
Distances = Callable[[View, int, View, np.ndarray], np.ndarray | None]


def candidates_of(synthetic: View, index: int, real: View, most: int, seed: int) -> np.ndarray | None:
    """Positions in ``real`` of a synthetic clip's own source, first, and of up to ``most`` - 1 others of its class.

    The others are of other patients, drawn by the source's name, so that they are the same for all its samples. None
    where the source is not among the real clips, or nobody else is of its class.
    """
    name, patients = synthetic.names[index], np.asarray(real.patients)
    own = [position for position, other in enumerate(real.names) if other == name]
    if not own:
        return None
    others = np.flatnonzero((real.labels == synthetic.labels[index]) & (patients != patients[own[0]]))
    if not len(others):
        return None
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    drawn = rng.choice(others, min(most - 1, len(others)), replace=False)
    return np.array([own[0], *sorted(drawn)])


def retrieve(run: Run, distances: Distances) -> dict[str, np.ndarray]:
    """For every synthetic clip, aligned with the set; NaN where its condition cannot be looked for.

    Returns:
        ``rank``: of its own condition, from 1; ties count half. ``candidates``: how many there were. ``nearer``: the
        part of the others that lie further away than its own. ``own``, ``others``: distances (mean of the others).
    """
    synthetic, real = run.sets["synthetic"].view(), run.sets["real"].view()
    found = {
        key: np.full(len(synthetic), np.nan) for key in ("rank", "candidates", "nearer", "own", "others")
    }
    cache: dict[tuple[str, int], np.ndarray | None] = {}
    names, labels = synthetic.names, synthetic.labels
    for index in range(len(synthetic)):
        key = names[index], int(labels[index])
        if key not in cache:
            most = run.instruments.settings.candidates
            cache[key] = candidates_of(synthetic, index, real, most, run.seed)
        chosen = cache[key]
        row = None if chosen is None else distances(synthetic, index, real, chosen)
        if row is None:
            continue
        ties = (row[1:] == row[0]).sum() / 2
        before = (row[1:] < row[0]).sum() + ties
        found["rank"][index], found["candidates"][index] = 1 + before, len(row)
        found["nearer"][index] = 1 - before / (len(row) - 1)
        found["own"][index], found["others"][index] = row[0], row[1:].mean()
    return found


def _first_frame(synthetic: View, index: int, real: View, chosen: np.ndarray) -> np.ndarray:
    """RMS difference in grey values of first frames, averaged down to 32 x 32: the prior is the first frame's."""
    own = synthetic["thumbnails"][index, :1]
    return similarity.pixel_distances(own[None], real["thumbnails"][chosen, :1])[0]


def _movement(run: Run, feature: str) -> Distances:
    """End-point error of a clip's movement, as ``feature`` found it, against the conditions' fields."""
    instruments = run.instruments
    fields: dict[str, np.ndarray | None] = run.once("condition_fields", dict)

    def condition(real: View, position: int) -> np.ndarray | None:
        item = real.items[position]
        if item.path.stem not in fields:
            fields[item.path.stem] = None
            home = instruments.home
            path = home and instruments.spec.motion_path(home, item.path.stem)
            try:
                if path is not None and path.is_file():
                    field = load_npy(path, (None, 2, None, None))
                else:
                    field = motion_field(read_video(item.path), **instruments.motion_settings)
                fields[item.path.stem] = similarity.motion_cells(field)
            except UserError:
                pass  # a condition that cannot be read is not among the candidates
        return fields[item.path.stem]

    def distances(synthetic: View, index: int, real: View, chosen: np.ndarray) -> np.ndarray | None:
        own = synthetic[feature][index]
        found = [condition(real, int(position)) for position in chosen]
        if found[0] is None or found[0].shape != own.shape:
            return None
        others = [field for field in found if field is not None and field.shape == own.shape]
        return similarity.end_point_errors(own, np.stack(others)) if len(others) > 1 else None

    return distances


def _metric(name: str, title: str, feature: str, distances: Callable[[Run], Distances], unit: str) -> Metric:
    def compute(chosen: Selection) -> Row | None:
        if "real" not in chosen.run.sets:
            return None
        view = chosen.synthetic
        found = chosen.run.once(name, lambda: retrieve(chosen.run, distances(chosen.run)))
        found = {key: values[view.positions] for key, values in found.items()}
        known = np.isfinite(found["rank"])
        if not known.any():
            return None
        found = {key: values[known] for key, values in found.items()}
        patients = [patient for patient, good in zip(view.patients, known, strict=True) if good]
        ties = found["rank"] - 1  # retrieved counts a tie for the first rank as half
        retrieved = np.clip(1 - ties, 0, 1)
        return {
            "retrieved": float(retrieved.mean()),
            "interval": mean_interval(retrieved, patients, chosen.run.seed),
            "chance": float((1 / found["candidates"]).mean()),
            "candidates": int(found["candidates"].max()),
            "mean_rank": float(found["rank"].mean()),
            "nearer_than_another": float(found["nearer"].mean()),
            "own_distance": float(found["own"].mean()),
            "another_distance": float(found["others"].mean()),
            "count": int(known.sum()),
        }

    return register(
        Metric(
            name=name,
            title=title,
            compute=compute,
            heads=(
                "clips",
                "own retrieved, %",
                "95 % interval",
                "chance, %",
                "nearer than another's, %",
                f"distance to own, {unit}",
                "to another's",
            ),  # fmt: skip
            cells=_cells,
            needs=(("real",),),
            features=("thumbnails", feature),
            headline=lambda row: f"{title.lower()} {percent(row['retrieved'])} % of {row['candidates']}",
            note="A clip's own condition among those of its class. Nearer than another's: 50 % is chance.",
            steering=name,
        )
    )


def _cells(row: Row) -> Cells:
    bounds = row["interval"] and [100 * bound for bound in row["interval"]]
    return [
        (
            str(row["count"]),
            percent(row["retrieved"]),
            interval(bounds, 1),
            percent(row["chance"]),
            percent(row["nearer_than_another"]),
            number(row["own_distance"]),
            number(row["another_distance"]),
        )
    ]


_metric("image_prior", "Image prior retrieved", "thumbnails", lambda run: _first_frame, "grey values")
_metric("motion_field", "Motion field retrieved", "motion", lambda run: _movement(run, "motion"), "pixels")
_metric(
    "optical_flow", "Motion retrieved by optical flow", "flow", lambda run: _movement(run, "flow"), "pixels"
)
