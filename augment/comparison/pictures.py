"""The comparison as pictures: gains as a forest plot, arms by class, diversity against class agreement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.comparison.arms import BASELINE, GROUPS
from augment.comparison.statistics import PRIMARY
from ctrlgenaug.files import atomic_path

COLOURS = {"helps": "#1a7f4b", "hurts": "#b3341f", "cannot be told apart": "#6b7280"}


def draw_gains(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
    """A forest plot of gains in balanced accuracy and in the rare class's sensitivity; False if there is none."""
    from matplotlib.figure import Figure

    compared = [row for row in rows if row["gains"]]
    if not compared:
        return False
    many = len({row["classifier"] for row in rows}) > 1
    ordered = [row for group in GROUPS for row in compared if row["group"] == group]
    figure = Figure(figsize=(10, 1.3 + 0.28 * len(ordered)), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), (PRIMARY, "rare"), strict=True):
        for index, row in enumerate(ordered):
            rare = row["classes"].index(row["rare_class"])
            found = row["gains"][f"sensitivity/{rare}" if key == "rare" else key]
            if found["value"] is None:
                continue
            low, value, high = (100 * (found[name] or 0.0) for name in ("low", "value", "high"))
            colour = COLOURS["helps" if low > 0 else "hurts" if high < 0 else "cannot be told apart"]
            axes.plot([low, high], [index, index], color=colour, linewidth=2)
            axes.plot(value, index, "o", color=colour, markersize=6)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        title = f"sensitivity of {ordered[0]['rare_class']}" if key == "rare" else "balanced accuracy"
        axes.set(xlabel="points", title=f"gain in {title}")
        names = [f"{row['classifier']}, {row['title']}" if many else row["title"] for row in ordered]
        axes.set_yticks(range(len(ordered)), names)
    axes.invert_yaxis()  # shared: both
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return True


def draw_classes(path: Path, rows: Sequence[Mapping[str, Any]], classifier: str) -> None:
    """Sensitivity of each class in each arm of ``classifier``, a row an arm."""
    from matplotlib.figure import Figure

    ours = [
        row for group in GROUPS for row in rows if row["group"] == group and row["classifier"] == classifier
    ]
    classes = ours[0]["classes"]
    figure = Figure(figsize=(7, 1.2 + 0.28 * len(ours)), layout="constrained")
    axes = figure.subplots()
    for index, cls in enumerate(classes):
        known = [row["levels"][f"sensitivity/{index}"]["value"] for row in ours]
        values = [np.nan if value is None else 100 * value for value in known]  # no test patient: no point
        axes.plot(values, range(len(ours)), "o", label=cls, alpha=0.8)
    axes.set_yticks(range(len(ours)), [row["title"] for row in ours])
    axes.set(xlabel="sensitivity, %", xlim=(-2, 102), title=classifier)
    axes.grid(alpha=0.3)
    axes.invert_yaxis()
    axes.legend(loc="lower left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def draw_agreement(path: Path, rows: Sequence[Mapping[str, Any]], classifier: str) -> bool:
    """Diversity against class agreement, a point a class and filter level; False if they were not measured."""
    from matplotlib.figure import Figure

    agreement: Any = next(
        (row["agreement"] for row in rows if row["arm"] == BASELINE and row["classifier"] == classifier), {}
    )
    points = [(level, cls, row) for level, classes in agreement.items() for cls, row in classes.items()]
    points = [point for point in points if point[2]["diversity"] is not None]
    if not points:
        return False
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(sorted({level for level, _, _ in points}, reverse=True), "os^D", strict=False))
    colours = {cls: f"C{index}" for index, cls in enumerate(dict.fromkeys(cls for _, cls, _ in points))}
    for level, cls, row in points:
        axes.plot(
            100 * row["found"],
            100 * row["diversity"],
            markers[level],
            color=colours[cls],
            label=f"{cls}, {level}",
        )
    axes.axhline(100, color="black", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="class found by a classifier of real clips, %", ylabel="diversity, % of the real clips' own"
    )
    axes.set(xlim=(-3, 103), ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    return True
