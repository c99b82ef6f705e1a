"""Whether the diffusion models follow their conditions: curves over training, and the last figures as a table."""

from __future__ import annotations

import tempfile
from pathlib import Path

from augment.report.page import Block, Notice, Table, picture
from cond2img.training.steering import JUDGED_TIMESTEP, SteeringRow
from ctrlgenaug.files import atomic_path
from ctrlgenaug.number_format import scientific
from ctrlgenaug.training.records import STEERING, Records

Measured = dict[int, list[SteeringRow]]
KINDS = {"own": "#1f5fa8", "another": "#b5482a", "none": "#7a7a7a"}


def read_steering(folder: Path, split: str = "test") -> Measured:
    """The rows of a run's steering.csv by step; rows that are torn or damaged are passed over."""
    found: Measured = {}
    for row in Records(folder, active=False).table(STEERING):
        try:
            errors = [float(row[kind]) if row[kind] else None for kind in KINDS]
            measured = SteeringRow(int(row["timestep"]), row["condition"], errors[0], errors[1], errors[2])  # type: ignore
        except (KeyError, ValueError):
            continue
        if row.get("split") == split and measured.own is not None and measured.another is not None:
            found.setdefault(int(row["step"]), []).append(measured)
    return found


def steering_blocks(folder: Path, title: str) -> list[Block]:
    """Curves and table of one stage's run folder; nothing for a run that did not measure."""
    measured = read_steering(folder)
    if not measured:
        return []
    blocks: list[Block] = []
    if len(measured) > 1:
        with tempfile.TemporaryDirectory() as temporary:
            drawn = draw_steering(measured, Path(temporary) / "steering.png")
            blocks.append(
                picture(drawn, f"{title}: error of the clean latents at timestep {JUDGED_TIMESTEP}")
            )
    last = measured[max(measured)]
    rows = [
        (
            row.condition,
            row.timestep,
            scientific(row.own),
            scientific(row.another),
            scientific(row.none),
            row.verdict,
        )
        for row in sorted(last, key=lambda row: (row.condition, row.timestep))
    ]
    caption = (
        f"{title}, step {max(measured)}: error with the own condition, with another sample's and with none"
    )
    blocks.append(
        Table(
            ("condition", "timestep", "own", "another's", "none", "verdict"),
            rows,
            numeric=range(1, 5),
            caption=caption,
        )
    )
    ignored = [row.condition for row in last if row.timestep == JUDGED_TIMESTEP and row.verdict == "ignored"]
    if ignored:
        blocks.append(Notice(f"{title}: {' and '.join(ignored)} ignored so far. See docs/steering.md."))
    return blocks


def draw_steering(measured: Measured, path: Path) -> Path:
    """Draws own, another's and no condition's errors at `JUDGED_TIMESTEP` over the steps, a panel a condition."""
    from matplotlib.figure import Figure

    judged = {
        step: {row.condition: row for row in rows if row.timestep == JUDGED_TIMESTEP}
        for step, rows in sorted(measured.items())
    }
    conditions = list(dict.fromkeys(name for rows in judged.values() for name in rows))
    figure = Figure(figsize=(4 * len(conditions), 3), layout="constrained")
    panels = figure.subplots(1, len(conditions), squeeze=False)[0]
    for panel, condition in zip(panels, conditions, strict=True):
        for kind, colour in KINDS.items():
            values = {
                step: getattr(rows[condition], kind) for step, rows in judged.items() if condition in rows
            }
            points = [(step, value) for step, value in values.items() if value is not None]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", linewidth=1, color=colour, label=kind)
        panel.set(title=condition, xlabel="step", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path
