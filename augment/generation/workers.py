"""Processes that synthesise side by side: leases, replacement of dead workers, retries, smaller batches.

The parent never touches a model. It lends samples to workers and takes reports; each worker has a pipe of its own, so
that one killed at any moment cannot jam the others.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from augment.generation.plan import Sample
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import is_disk_full
from ctrlgenaug.processes import start_worker
from ctrlgenaug.steps import describe, is_out_of_memory
from ctrlgenaug.video import write_mp4

MOST_ATTEMPTS = 2
MOST_FAILED_STARTS = 2
SECONDS_TO_LEAVE = 10


class Synthesiser(Protocol):
    """What a factory gives: a model on one device.

    A factory is a class or function of a module's top level (workers import it by its name) that is called as
    ``factory(device=..., **arguments)`` in the worker.
    """

    def load(self, sample: Sample) -> Any:
        """The sample's conditions; a `UserError` if they are missing or damaged."""

    def synthesise(
        self, samples: Sequence[Sample], conditions: Sequence[Any]
    ) -> Iterator[np.ndarray | UserError]:
        """Frames (F, H, W) uint8 of each sample, in order, or why they are none."""

    def release(self) -> None:
        """Frees cached device memory after an out-of-memory error."""


Factory = Callable[..., Synthesiser]


@dataclass
class Backlog:
    """Which samples wait, and how often each was tried. A sample tried before is lent alone, to find the culprit."""

    samples: Sequence[Sample]
    waiting: deque[int] = field(init=False)
    again: deque[int] = field(default_factory=deque)
    attempts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.samples)))

    def lease(self, most: int) -> list[int]:
        """Up to ``most`` waiting samples, by index."""
        if self.again:
            return [self.again.popleft()]
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def give_back(self, indices: Sequence[int]) -> None:
        """Puts samples back that were not at fault."""
        self.waiting.extendleft(reversed(indices))

    def failed(self, indices: Sequence[int]) -> list[int]:
        """Counts a failed attempt of each; returns those that are given up now, the others wait for another try."""
        given_up = []
        for index in indices:
            self.attempts[index] = self.attempts.get(index, 0) + 1
            (given_up if self.attempts[index] >= MOST_ATTEMPTS else self.again).append(index)
        return given_up

    def __bool__(self) -> bool:
        return bool(self.waiting or self.again)

    def drain(self) -> list[int]:
        """Everything that still waits."""
        rest = [*self.again, *self.waiting]
        self.again.clear()
        self.waiting.clear()
        return rest


@dataclass
class Reports:
    """What the parent wants to hear.

    Attributes:
        done: called as ``done(sample, device, seconds)`` once the sample's file is in place.
        failed: called as ``failed(sample, reason)`` when a sample is given up.
        note: called with a line worth showing (a worker died, a batch was halved).
    """

    done: Callable[[Sample, str, float], None]
    failed: Callable[[Sample, str], None]
    note: Callable[[str], None]


@dataclass
class _Worker:
    """One place for a process on a device; the process in it may change."""

    device: str
    batch: int
    process: Any = None
    pipe: Connection | None = None
    lease: list[int] = field(default_factory=list)
    ready: bool = False
    failed_starts: int = 0
    closed: bool = False
    last_words: str = ""


class Pool:
    """Synthesises samples on several devices at once.

    Args:
        factory: makes a `Synthesiser` in the worker.
        arguments: its keyword arguments besides ``device``; they must be picklable.
        devices: one entry a worker process; a device may be named several times.
        batch_size: samples a worker gets at a time.
        folder: where the MP4 files appear.
        scratch: where unfinished ones lie, on the same file system.
        lossless: see `ctrlgenaug.video.write_mp4`.
    """

    def __init__(
        self,
        factory: Factory,
        arguments: dict[str, Any],
        devices: Sequence[str],
        batch_size: int,
        folder: Path,
        scratch: Path,
        *,
        lossless: bool = False,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._arguments = (factory, arguments, str(folder), str(scratch), lossless)
        self._workers = [_Worker(device, max(1, batch_size)) for device in devices]

    def run(self, samples: Sequence[Sample], reports: Reports) -> None:
        """Makes every sample once, or reports why not.

        Raises:
            UserError: the factory refuses (a wrong model folder, say), or the disk is full.
        """
        backlog = Backlog(samples)
        try:
            for worker in self._workers[: len(samples)]:
                self._start(worker)
            while True:
                self._lend(backlog)
                active = [worker for worker in self._workers if worker.process is not None]
                if not backlog and not any(worker.lease for worker in active):
                    return
                if not active:
                    reasons = "; ".join({worker.last_words for worker in self._workers if worker.last_words})
                    for index in backlog.drain():
                        reports.failed(
                            samples[index], f"no worker could be started ({reasons or 'they died'})"
                        )
                    return
                ready = wait([worker.pipe for worker in active])
                for worker in active:
                    if worker.pipe in ready:
                        self._listen(worker, backlog, reports)
        finally:
            self._stop()

    def _start(self, worker: _Worker) -> None:
        worker.pipe, theirs = self._context.Pipe()
        worker.ready = False
        worker.process = self._context.Process(
            target=_work, args=(theirs, worker.device, *self._arguments), daemon=True
        )
        worker.process.start()
        theirs.close()  # so that the worker's death ends the pipe

    def _lend(self, backlog: Backlog) -> None:
        for worker in self._workers:
            if worker.process is None or not worker.ready or worker.lease:
                continue
            worker.lease = backlog.lease(worker.batch)
            if worker.lease:
                with contextlib.suppress(OSError):  # dead already: `_listen` will notice
                    worker.pipe.send([(index, backlog.samples[index]) for index in worker.lease])

    def _listen(self, worker: _Worker, backlog: Backlog, reports: Reports) -> None:
        try:
            kind, payload = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker, backlog, reports)
            return
        if kind == "ready":
            worker.ready, worker.failed_starts = True, 0
        elif kind == "done":
            index, seconds = payload
            worker.lease.remove(index)
            reports.done(backlog.samples[index], worker.device, seconds)
        elif kind == "refused":  # the sample's own conditions are at fault: another try would not help
            index, reason = payload
            worker.lease.remove(index)
            reports.failed(backlog.samples[index], reason)
        elif kind == "error":
            self._settle(worker, backlog, reports, payload)
        elif kind == "memory":
            if len(worker.lease) > 1:
                worker.batch = max(1, len(worker.lease) // 2)
                reports.note(f"{worker.device} is out of memory: going on with batches of {worker.batch}")
                backlog.give_back(worker.lease)
                worker.lease = []
            else:
                self._settle(worker, backlog, reports, "out of memory with a single sample")
        elif kind == "unstarted":
            worker.last_words = payload
        elif kind == "fatal":
            raise UserError(*payload)

    def _settle(self, worker: _Worker, backlog: Backlog, reports: Reports, reason: str) -> None:
        lease, worker.lease = worker.lease, []
        for index in backlog.failed(lease):
            reports.failed(backlog.samples[index], f"{reason} (tried {MOST_ATTEMPTS} times)")

    def _bury(self, worker: _Worker, backlog: Backlog, reports: Reports) -> None:
        worker.process.join()
        worker.pipe.close()
        code, worker.process = worker.process.exitcode, None
        how = f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
        if worker.ready:
            reports.note(f"a worker on {worker.device} died ({how}); starting another")
            self._settle(worker, backlog, reports, f"its worker died ({how})")
        else:
            worker.failed_starts += 1
            worker.last_words = worker.last_words or how
            worker.closed = worker.failed_starts >= MOST_FAILED_STARTS
            what = "going on without it" if worker.closed else "trying once more"
            reports.note(f"a worker on {worker.device} could not start ({worker.last_words}); {what}")
        if backlog and not worker.closed:
            self._start(worker)

    def _stop(self) -> None:
        running = [worker for worker in self._workers if worker.process is not None]
        for worker in running:
            worker.pipe.close()  # an idle worker leaves by itself at this
            if worker.lease or not worker.ready:
                worker.process.terminate()
        for worker in running:
            worker.process.join(SECONDS_TO_LEAVE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process = None


# --- in the worker ---


def _work(
    pipe: Connection,
    device: str,
    factory: Factory,
    arguments: dict[str, Any],
    folder: str,
    scratch: str,
    lossless: bool,
) -> None:
    start_worker()
    try:
        synthesiser = factory(device=device, **arguments)
    except UserError as error:
        pipe.send(("fatal", (error.problem, error.remedy, error.path)))
        return
    except Exception as error:
        pipe.send(("unstarted", describe(error)))
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        pipe.send(("ready", None))
        while True:
            _serve(pipe, synthesiser, pipe.recv(), Path(folder), Path(scratch), lossless)


def _serve(
    pipe: Connection,
    synthesiser: Synthesiser,
    lease: list[tuple[int, Sample]],
    folder: Path,
    scratch: Path,
    lossless: bool,
) -> None:
    """Makes the samples of one lease and reports on each."""
    ready: list[tuple[int, Sample, Any]] = []
    for index, sample in lease:
        try:
            ready.append((index, sample, synthesiser.load(sample)))
        except Exception as error:
            pipe.send(("refused", (index, describe(error))))
    if not ready:
        return
    trouble: tuple[str, Any] | None = None
    try:
        frames_of = synthesiser.synthesise(
            [sample for _, sample, _ in ready], [conditions for *_, conditions in ready]
        )
        before = time.perf_counter()
        for index, sample, _ in ready:
            unfinished = scratch / f"{index}-{os.getpid()}.mp4"
            frames = next(frames_of)
            if isinstance(frames, UserError):
                pipe.send(("refused", (index, str(frames))))
                continue
            write_mp4(unfinished, frames, lossless=lossless)
            unfinished.replace(folder / sample.file_name)
            now = time.perf_counter()
            pipe.send(("done", (index, now - before)))
            before = now
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        if is_disk_full(error):
            trouble = "fatal", ("the disk is full", "Free some space and run the same command again", folder)
        elif is_out_of_memory(error):
            trouble = "memory", None
        else:
            trouble = "error", describe(error)
    if trouble is not None:  # only here is the traceback gone, which held on to the tensors
        if trouble[0] == "memory":
            frames_of = None
            gc.collect()
            synthesiser.release()
        pipe.send(trouble)
