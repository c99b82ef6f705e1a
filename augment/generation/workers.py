"""The synthesising worker: from leased samples to MP4 files in the folder."""

from __future__ import annotations

import errno
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from augment.generation.plan import Sample
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import is_disk_full
from ctrlgenaug.leases import LeaseResult
from ctrlgenaug.processes import peak_memory
from ctrlgenaug.steps import describe, is_out_of_memory
from ctrlgenaug.video import write_mp4


class Synthesiser(Protocol):
    """A model on one device."""

    def load(self, sample: Sample) -> Any:
        """The sample's conditions; a `UserError` if they are missing or damaged."""

    def synthesise(
        self, samples: Sequence[Sample], conditions: Sequence[Any]
    ) -> Iterator[np.ndarray | UserError]:
        """Frames (F, H, W) uint8 of each sample, in order, or why they are none."""

    def release(self) -> None:
        """Frees cached device memory after an out-of-memory error."""


@dataclass(frozen=True)
class Effort:
    """What a clip took.

    Attributes:
        seconds: of its own.
        host_bytes: most memory that its worker has held so far, loading the model included.
        gpu_bytes: most that PyTorch has had in use on its GPU so far; None without one.
    """

    seconds: float
    host_bytes: int | None = None
    gpu_bytes: int | None = None


class ClipMaker:
    """A worker's tool: makes the clips of a lease and puts each into the folder once it is whole.

    Args:
        device: where the model runs.
        synthesiser: makes a `Synthesiser`, called as ``synthesiser(device=..., **arguments)``.
        arguments: its other keyword arguments.
        folder: where the MP4 files appear.
        scratch: where unfinished ones lie, on the same file system.
        lossless: see `ctrlgenaug.video.write_mp4`.
    """

    def __init__(
        self,
        device: str,
        synthesiser: Callable[..., Synthesiser],
        arguments: dict[str, Any],
        folder: str,
        scratch: str,
        lossless: bool = False,
    ) -> None:
        self.device = device
        self.folder, self.scratch, self.lossless = Path(folder), Path(scratch), lossless
        self.synthesiser = synthesiser(device=device, **arguments)

    def __call__(self, lease: Sequence[tuple[int, Sample]]) -> LeaseResult:
        """What became of the samples; the value is the `Effort` of those that were made, None if they were there."""
        result = LeaseResult()
        ready: list[tuple[int, Sample, Any]] = []
        for number, sample in lease:
            if _is_there(self.folder / sample.file_name):  # by a worker that died with the rest of its lease
                result.done[number] = None
                continue
            try:
                ready.append((number, sample, self.synthesiser.load(sample)))
            except Exception as error:
                result.refused[number] = describe(error)
        if not ready:
            return result
        try:
            self._make(ready, result)
        except Exception as error:
            result.error, result.out_of_memory = describe(error), is_out_of_memory(error)
            if result.out_of_memory:
                result.error = "out of memory with a single sample"
            if is_disk_full(error):
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
                result.refused = {number: full for number, *_ in ready if number not in result.done}
        if result.out_of_memory:  # only here is the traceback gone, which held on to the tensors
            gc.collect()
            self.synthesiser.release()
        return result

    def _make(self, ready: Sequence[tuple[int, Sample, Any]], result: LeaseResult) -> None:
        frames_of = self.synthesiser.synthesise(
            [sample for _, sample, _ in ready], [conditions for *_, conditions in ready]
        )
        before = time.perf_counter()
        for (number, sample, _), frames in zip(ready, frames_of, strict=True):
            if isinstance(frames, UserError):
                result.refused[number] = str(frames)
                continue
            unfinished = self.scratch / f"{number}-{os.uname().nodename}-{os.getpid()}.mp4"
            write_mp4(unfinished, frames, lossless=self.lossless)
            unfinished.replace(self.folder / sample.file_name)
            now = time.perf_counter()
            result.done[number] = Effort(now - before, peak_memory(), self._gpu_peak())
            before = now

    def _gpu_peak(self) -> int | None:
        torch = sys.modules.get("torch")
        if torch is None or not self.device.startswith("cuda"):
            return None
        return int(torch.cuda.max_memory_allocated(self.device))


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
