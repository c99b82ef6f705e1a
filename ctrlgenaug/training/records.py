"""The run folder's story: log.txt, stats.jsonl, train_loss.txt, the test figures and the curves."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import write_text
from ctrlgenaug.plain_data import read_json, read_jsonl, write_json, write_jsonl

STEERING = "steering.csv"  # whether the conditions are followed, by step
VALIDATED = "validated.json"  # the step of the last finished validation


class Records:
    """Writes a run's records, flushed line by line; only the main process has one that writes.

    Args:
        folder: the run folder.
        active: False on the other processes, where every call does nothing.
    """

    def __init__(self, folder: str | Path, active: bool = True) -> None:
        self.folder, self.active = Path(folder), active
        if active:
            self.folder.mkdir(parents=True, exist_ok=True)

    def _append(self, name: str, line: str) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")

    def log(self, text: str) -> None:
        """A line for the user and for log.txt."""
        if self.active:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
            self._append("log.txt", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def stats(self, step: int, values: dict[str, float]) -> None:
        """One row of stats.jsonl."""
        if self.active:
            rounded = {key: float(f"{value:.7g}") for key, value in values.items()}
            self._append("stats.jsonl", json.dumps({"step": step, **rounded}))

    def published(self, name: str, step: int, epoch: int, value: float) -> None:
        """A line of a text file in the published form, e.g. train_loss.txt: ``Iter3-Epo0:   0.25``."""
        if self.active:
            self._append(name, f"Iter{step}-Epo{epoch}:   {value:.7g}")

    def append_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Rows of a CSV table with the columns of its first row, ``step`` among them."""
        if not self.active or not rows:
            return
        path = self.folder / name
        new = not path.is_file()
        with path.open("a", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV table of `append_rows`; empty if there is none, torn last lines are left out."""
        path = self.folder / name
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as handle:
            return [
                row for row in csv.DictReader(handle) if None not in row.values() and row["step"].isdigit()
            ]

    def note_validated(self, step: int) -> None:
        """Notes that all figures and pictures of ``step`` are written."""
        if self.active:
            write_json(self.folder / VALIDATED, {"step": step})

    def validated_step(self) -> int | None:
        """The step that `note_validated` noted last; None: none, or a note that cannot be read."""
        try:
            noted = read_json(self.folder / VALIDATED)
        except (OSError, UserError):
            return None
        step = noted.get("step") if isinstance(noted, dict) else None
        return step if isinstance(step, int) else None

    def rewind(self, step: int) -> None:
        """Drops the rows after ``step``: a killed run may have written beyond the checkpoint it resumes from.

        Of ``step`` itself the figures of a validation that was not finished go as well: it is made again.
        """
        if not self.active:
            return
        noted = self.validated_step()
        finished = noted is not None and noted >= step
        last_measured = step if finished else step - 1
        lasts = dict.fromkeys(self.folder.glob("test_*.txt"), last_measured)
        for path, last in {self.folder / "train_loss.txt": step, **lasts}.items():
            if path.is_file():
                lines = path.read_text(encoding="utf-8").split("\n")
                kept = [line for line in lines if _step_in(line) <= last]
                write_text(path, "".join(line + "\n" for line in kept))
        measured = [row for row in self.table(STEERING) if int(row["step"]) <= last_measured]
        (self.folder / STEERING).unlink(missing_ok=True)
        if measured:
            self.append_rows(STEERING, measured)
        if finished:
            self.note_validated(step)
        else:
            (self.folder / VALIDATED).unlink(missing_ok=True)
        write_jsonl(self.folder / "stats.jsonl", [row for row in self.rows() if row["step"] <= step])

    def rows(self) -> list[dict[str, Any]]:
        """The rows of stats.jsonl so far; a torn last line is left out."""
        path = self.folder / "stats.jsonl"
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            write_text(path, text[: text.rfind("\n") + 1])
        return read_jsonl(path, ("step",))

    def curves(self) -> Path | None:
        """Draws every recorded loss, test figure and the learning rate over the steps into loss_curve.png."""
        rows = self.rows() if self.active else []
        return draw_curves([*rows, *self.test_rows()], self.folder / "loss_curve.png") if rows else None

    def test_rows(self) -> list[dict[str, Any]]:
        """The test figures so far, ``{"step": ..., "test_loss": ...}``; torn lines are left out."""
        rows = []
        for path in sorted(self.folder.glob("test_*.txt")):
            for line in path.read_text(encoding="utf-8").split("\n"):
                match = _PUBLISHED.fullmatch(line)
                with contextlib.suppress(ValueError):
                    if match:
                        rows.append({"step": int(match[1]), path.stem: float(match[2])})
        return rows


# "Iter3-Epo0:   0.25", and "step 3: 0.25" as earlier versions wrote
_PUBLISHED = re.compile(r"(?:Iter|step )(\d+)(?:-Epo\d+)?: +(\S+)")


def _step_in(line: str) -> int:
    match = _PUBLISHED.fullmatch(line)
    return int(match[1]) if match else sys.maxsize  # a torn line goes too


def draw_curves(rows: list[dict[str, Any]], path: Path) -> Path:
    """Draws the losses and the learning rate of ``rows`` (as in stats.jsonl, in any order) into a PNG."""
    from matplotlib.figure import Figure  # imported late: a run pays for it only when it draws

    from ctrlgenaug.files import atomic_path

    known = ("loss", "rec", "kl", "test_rec_loss", "test_l1", "test_loss")
    losses = [key for key in known if any(key in row for row in rows)]
    figure = Figure(figsize=(4 * (len(losses) + 1), 3), layout="constrained")
    for axis, key in zip(figure.subplots(1, len(losses) + 1), [*losses, "lr"], strict=True):
        points = [(row["step"], row[key]) for row in rows if key in row]
        marker = "o" if key.startswith("test") else ""  # few points
        axis.plot(*zip(*points, strict=True), linewidth=1, marker=marker, color="#1f5fa8")
        axis.set(title=key, xlabel="step")
        if key != "lr" and all(value > 0 for _, value in points):
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
    return path
