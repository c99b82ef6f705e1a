"""What a large synthesis will cost, from clips that were made on the same kind of machine."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augment.generation.synthesis_folder import SynthesisFolder
from ctrlgenaug.errors import UserError


@dataclass(frozen=True)
class Cost:
    """What is to be paid for a number of clips.

    Attributes:
        clips: how many.
        workers: how many work side by side.
        seconds_a_clip: of one worker, the median of those measured.
        spread: (a tenth, nine tenths) of the measured seconds.
        bytes_a_clip: of MP4 and manifest row, the mean of those measured.
        measured: how many clips these figures are from.
        devices: on which.
        host_bytes: most memory that a worker held; None if no clip tells.
        gpu_bytes: most that it had in use on its GPU; None if no clip tells.
    """

    clips: int
    workers: int
    seconds_a_clip: float
    spread: tuple[float, float]
    bytes_a_clip: float
    measured: int
    devices: tuple[str, ...]
    host_bytes: int | None = None
    gpu_bytes: int | None = None

    @property
    def hours(self) -> float:
        """Wall-clock hours, with all workers busy to the end."""
        return math.ceil(self.clips / self.workers) * self.seconds_a_clip / 3600

    @property
    def worker_hours(self) -> float:
        """Hours of one worker: GPU hours, with one worker a GPU."""
        return self.clips * self.seconds_a_clip / 3600

    @property
    def gigabytes(self) -> float:
        """Of the folder."""
        return self.clips * self.bytes_a_clip / 1e9

    def lines(self) -> list[str]:
        """What a user reads before paying, and what these figures do not know."""
        low, high = (self.hours * seconds / self.seconds_a_clip for seconds in self.spread)
        return [
            f"{self.clips} clips with {self.workers} workers: {self.hours:.1f} hours ({low:.1f} to {high:.1f}), "
            f"{self.worker_hours:.0f} hours of one worker, {self.gigabytes:.2f} GB on disk",
            f"measured: {self.measured} clips on {', '.join(self.devices)}, {self.seconds_a_clip:.2f} s and "
            f"{self.bytes_a_clip / 1e3:.0f} kB a clip",
            self._memory(),
            "not known: other devices, settings or batches than those measured, loading the model (once a worker), "
            "waiting in a queue, a shared disk at its limit, clips of other lengths; of memory, what CUDA itself takes "
            "(its context, workspaces, gaps between tensors) and what workers of one machine share",
        ]

    def _memory(self) -> str:
        if self.host_bytes is None:
            return "memory: not measured, because an older version made these clips"
        gpu = "" if self.gpu_bytes is None else f" and {self.gpu_bytes / 1e9:.2f} GB of its GPU"
        return (
            f"memory: a worker held up to {self.host_bytes / 1e9:.2f} GB{gpu}; {self.workers} on one machine "
            f"{self.workers * self.host_bytes / 1e9:.1f} GB"
        )


def estimate(folder: str | Path, clips: int, workers: int) -> Cost:
    """The cost of ``clips`` more clips like those in a synthesis folder, made by ``workers`` workers.

    Raises:
        UserError: the folder's manifest has no clip that was timed.
    """
    synthesis = SynthesisFolder(folder)
    rows = {
        name: row for name, row in synthesis.rows().items() if isinstance(row.get("seconds"), int | float)
    }
    sizes = [
        (synthesis.path / name).stat().st_size + len(json.dumps(row)) + 1
        for name, row in rows.items()
        if (synthesis.path / name).is_file()
    ]
    if not sizes:
        raise UserError(
            "holds no clip whose time was taken",
            "Make a few first, with the settings you want: python generate.py ... --predifined_sampled_num 4",
            folder,
        )
    seconds = sorted(float(row["seconds"]) for row in rows.values())
    tenth = len(seconds) // 10
    return Cost(
        clips,
        workers,
        max(1e-6, statistics.median(seconds)),
        (seconds[tenth], seconds[-1 - tenth]),
        statistics.mean(sizes),
        len(seconds),
        tuple(sorted({str(row.get("device")) for row in rows.values()})),
        _largest(rows.values(), "host_bytes"),
        _largest(rows.values(), "gpu_bytes"),
    )


def _largest(rows: Iterable[Mapping[str, Any]], key: str) -> int | None:
    return max((int(row[key]) for row in rows if isinstance(row.get(key), int | float)), default=None)
