"""A metric is one entry of `METRICS`: what it needs, how it is computed of the clips of a class, how it is shown.

`evaluate.py` offers every entry under its name, and JSON, Markdown and the report show it, so a new metric is one
`register` call in a module of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from augment.quality.clip_sets import ClipSet, View
from augment.quality.instruments import Instruments
from augment.quality.resampling import mean_interval
from ctrlgenaug.number_format import NONE, interval, number, spread

Row = dict[str, Any]  # plain values for JSON
Cells = list[tuple[str, ...]]
Value = TypeVar("Value")


@dataclass
class Run:
    """One evaluation: its sets of clips, and what metrics share.

    Attributes:
        sets: by name, see `clip_sets.SETS`.
        instruments: with the settings and the data set.
    """

    sets: dict[str, ClipSet]
    instruments: Instruments
    _once: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of all that is drawn at random."""
        return self.instruments.settings.seed

    def once(self, name: str, compute: Callable[[], Value]) -> Value:
        """``compute()``, kept under ``name`` for the other classes and metrics of this run."""
        if name not in self._once:
            self._once[name] = compute()
        return self._once[name]


@dataclass(frozen=True)
class Selection:
    """The clips of one class, or all, in every set of a run.

    Attributes:
        run: whose clips.
        label: class id; None: all classes.
    """

    run: Run
    label: int | None

    def view(self, name: str) -> View:
        """The chosen clips of a set; none where the run has no such set."""
        return self.run.sets.get(name, ClipSet(name, [])).view(self.label)

    @property
    def synthetic(self) -> View:
        """The synthetic clips."""
        return self.view("synthetic")

    @property
    def real(self) -> View:
        """The real clips of the split that the generator learned from."""
        return self.view("real")


@dataclass(frozen=True)
class Metric:
    """One figure, or a few that belong together.

    Attributes:
        name: in ``--metrics``, and the key in evaluation.json.
        title: its heading.
        compute: plain values of the clips of one class; None where they say nothing.
        heads: the columns of its table, after the class.
        cells: a row's lines of the table.
        needs: flags without which it cannot be computed; of each inner tuple one must be given.
        features: of `clip_sets.FEATURES`, computed where their own needs are met.
        headline: the totals in a few words.
        note: what its table means, in a sentence.
        sets: of which it needs clips.
        steering: its name under ``steering`` in evaluation.json, if it says how the generator follows its conditions.
        on_request: only where ``--metrics`` names it, because it takes long or needs further packages.
    """

    name: str
    title: str
    compute: Callable[[Selection], Row | None]
    heads: tuple[str, ...]
    cells: Callable[[Row], Cells]
    needs: tuple[tuple[str, ...], ...] = ()
    features: tuple[str, ...] = ()
    headline: Callable[[Row], str] = lambda row: ""
    note: str = ""
    sets: tuple[str, ...] = ("synthetic", "real")
    steering: str = ""
    on_request: bool = False

    def table(self, rows: dict[str, Row | None]) -> tuple[list[str], list[tuple[str, ...]]]:
        """(heads, lines) of its table from its rows by class; a class without figures has dashes."""
        lines: list[tuple[str, ...]] = []
        for cls, row in rows.items():
            found = self.cells(row) if row else [(NONE,) * len(self.heads)]
            lines += [(cls, *cells) for cells in found]
        return ["class", *self.heads], lines


METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Adds a metric, so that evaluate.py, its records and the report know it."""
    METRICS[metric.name] = metric
    return metric


# --- clips' own figures ----------------------------------------------------------------------------------------------


def mean_of(view: View, values: np.ndarray, seed: int) -> Row | None:
    """Mean, deviation, count and interval over patients of clips' ``values``; NaN is left out; None if none is left."""
    known = np.isfinite(values)
    if not known.any():
        return None
    patients = [patient for patient, good in zip(view.patients, known, strict=True) if good]
    return {
        "mean": float(values[known].mean()),
        "deviation": float(values[known].std()),
        "count": int(known.sum()),
        "interval": mean_interval(values[known], patients, seed),
    }


def clip_figure(
    name: str,
    title: str,
    feature: str,
    *,
    unit: str = "%",
    digits: int = 2,
    needs: Sequence[tuple[str, ...]] = (),
    note: str = "",
) -> Metric:
    """A metric that is the mean of a feature with one number a clip; the real clips' own mean stands beside it."""

    def compute(chosen: Selection) -> Row | None:
        row = {}
        for view in (chosen.synthetic, chosen.real):
            found = mean_of(view, view[feature], chosen.run.seed) if view.has(feature) and len(view) else None
            if found:
                row[view.clips.name] = found
        return row or None

    def cells(row: Row) -> Cells:
        line: list[str] = []
        for group in ("synthetic", "real"):
            found = row.get(group)
            line.append(spread(found["mean"], found["deviation"], digits) if found else NONE)
            line.append(interval(found.get("interval"), digits) if found else NONE)
        return [tuple(line)]

    def headline(row: Row) -> str:
        found = row.get("synthetic")
        return f"{title} {number(found['mean'], digits)} {unit}".rstrip() if found else ""

    shown = f", {unit}" if unit else ""
    heads = (f"synthetic{shown}", "95 % interval", f"real{shown}", "95 % interval")
    return Metric(name, title, compute, heads, cells, tuple(needs), (feature,), headline, note)
