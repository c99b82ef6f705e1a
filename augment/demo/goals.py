"""What a demo run is wanted to show, and whether it does: read from its evaluation.json and its steering.csv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augment.report.page import Notice, Section, Table
from augment.report.steering_section import read_steering
from cond2img.training.steering import JUDGED_TIMESTEP
from ctrlgenaug.number_format import percent
from ctrlgenaug.plain_data import read_json

IN_ORDER = 0.9  # of the real clips' order of slices
# Between the slices of a volume nothing moves, so that another clip's field says the same.
STILL = ("MosMed", "MRNet")


@dataclass(frozen=True)
class Goal:
    """One figure of a run.

    Attributes:
        what: is measured.
        wanted: in words.
        found: in words.
        reached: whether it is as wanted.
    """

    what: str
    wanted: str
    found: str
    reached: bool


def _control(metrics: dict[str, Any]) -> Iterator[Goal]:
    rows = metrics.get("class_control") or {}
    if not rows:
        return
    total = rows["all"]["accuracy"]
    found = f"{percent(total)} % of {rows['all']['count']} clips"
    yield Goal("class asked for is found", "at least 80 %", found, total >= 0.8)
    classes = {cls: row["accuracy"] for cls, row in rows.items() if cls != "all"}
    worst = min(classes, key=lambda cls: classes[cls])
    yield Goal(
        "in every class",
        "at least 60 %",
        f"{percent(classes[worst])} % of {worst}",
        classes[worst] >= 0.6,
    )


def _conditions(metrics: dict[str, Any], moves: bool) -> Iterator[Goal]:
    prior = (metrics.get("image_prior") or {}).get("all")
    if prior:
        share = prior["retrieved"]
        found = f"{percent(share)} % among {prior['candidates']} of the class"
        yield Goal("own image prior retrieved", "at least 90 %", found, share >= 0.9)
    for name, how in (("motion_field", "extracted again"), ("optical_flow", "by optical flow")):
        motion = (metrics.get(name) or {}).get("all")
        if motion and moves:
            share = motion["nearer_than_another"]
            found = f"{percent(share)} % (50 % is chance)"
            what = f"motion, {how}, nearer to its own field than to another's"
            yield Goal(what, "at least 80 %", found, share >= 0.8)
    order = (metrics.get("slice_order") or {}).get("all") or {}
    if {"synthetic", "real"} <= order.keys():
        own, real = order["synthetic"]["mean"], order["real"]["mean"]
        wanted = f"{IN_ORDER:.0%} of real clips' order".replace("%", " %")
        yield Goal("slices in order", wanted, f"{own:.2f}, real clips {real:.2f}", own >= IN_ORDER * real)


def _errors(runs: Path) -> Iterator[Goal]:
    for run, title in (("ldm", "image model"), ("sequence_ldm", "sequence model")):
        measured = read_steering(runs / run)
        rows = measured[max(measured)] if measured else []
        for row in rows:
            if (row.timestep, row.condition) == (JUDGED_TIMESTEP, "image prior"):
                found = f"{row.ratio:.2f} ({row.own:.3f} own, {row.another:.3f} another's)"
                what = f"{title}: error with the own prior over another's, test patients"
                yield Goal(what, "at most 0.30", found, row.ratio <= 0.3)


def goals(run: Path) -> list[Goal]:
    """The goals of the run in folder ``run``; those that were not measured are left out.

    Motion is judged where things move.
    """
    path = run / "evaluation.json"
    found = read_json(path) if path.is_file() else {}
    metrics, moves = found.get("metrics", {}), found.get("data_name") not in STILL
    return [*_control(metrics), *_conditions(metrics, moves), *_errors(run / "runs")]


def goals_section(run: Path) -> Section:
    """A table of the goals, and in words what is missing."""
    found = goals(run)
    rows = [(goal.what, goal.wanted, goal.found, "yes" if goal.reached else "NO") for goal in found]
    section = Section("Wanted and found", [Table(("figure", "wanted", "found", "reached"), rows)])
    missing = [goal.what for goal in found if not goal.reached]
    if missing:
        section.blocks.append(Notice(f"Not reached in this run: {'; '.join(missing)}."))
    reached = len(found) - len(missing)
    section.facts = [("goals reached", f"{reached} of {len(found)}")]
    return section
