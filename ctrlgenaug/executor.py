"""Workers that take one task at a time, wherever they run: one small interface, and processes of this machine.

A worker is made by a factory and keeps what that loaded, a model on a GPU, say, for all its tasks. `LocalExecutor`
starts a process a worker; `ctrlgenaug.cluster` has the same on a Ray cluster. What is done about failures is decided
one floor up, in `ctrlgenaug.leases`, and so is the same whatever runs the tasks.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from ctrlgenaug.errors import UserError
from ctrlgenaug.processes import start_worker

MOST_FAILED_STARTS = 2
SECONDS_TO_LEAVE = 10

Tool = Callable[[Any], Any]
Factory = Callable[..., Tool]
"""Called in the worker as ``factory(device=..., **arguments)``; the tool that it returns is called with each task.

A class or function of a module's top level, because workers import it by its name. A `UserError` from it ends the whole
run: every other worker would be refused likewise.
"""


@dataclass(frozen=True)
class Finished:
    """What became of a task.

    Attributes:
        worker: the number of the worker that had it.
        value: what the tool returned, if the worker lives.
        death: how the worker died, if it did.
        at_fault: whether the task may be why; not if a whole machine went.
    """

    worker: int
    value: Any = None
    death: str = ""
    at_fault: bool = True


class Executor(Protocol):
    """Workers, numbered from 0.

    Attributes:
        devices: the device of each worker.
        reasons: why workers could not be started.
    """

    devices: list[str]
    reasons: list[str]

    def idle(self) -> list[int]:
        """The workers that are ready for a task."""

    def submit(self, worker: int, task: Any) -> None:
        """Gives an idle worker a task."""

    def wait(self) -> Finished | None:
        """Waits for a task that ends, or None for another change: a worker is ready, or one could not be started.

        Raises:
            UserError: the factory refused.
        """

    @property
    def alive(self) -> bool:
        """Whether there are workers, or will be."""

    def close(self) -> None:
        """Ends all workers, in the middle of a task if need be."""


@dataclass(eq=False)
class _Seat:
    """One place for a process; the process in it may change."""

    device: str
    process: Any
    pipe: Connection
    ready: bool = False
    busy: bool = False
    failed_starts: int = 0
    reason: str = ""


class LocalExecutor:
    """A process of this machine for each worker, replaced when it dies.

    Each process has a pipe of its own, so that one killed at any moment cannot jam the others.

    Args:
        factory: makes a worker's tool.
        arguments: its keyword arguments besides ``device``; they must be picklable.
        devices: one entry a worker; a device may be named several times.
        note: called with a line worth showing: a worker died, or could not be started.
    """

    def __init__(
        self,
        factory: Factory,
        arguments: dict[str, Any],
        devices: Sequence[str],
        note: Callable[[str], None] = print,
    ) -> None:
        # spawn: CUDA does not survive a fork, and a forked child can hang on the locks of OpenCV's and torch's threads
        self._context = multiprocessing.get_context("spawn")
        self._arguments, self._note = (factory, arguments), note
        self.devices = list(devices)
        self.reasons: list[str] = []
        self._seats = [_Seat(device, *self._process(device)) for device in devices]

    def idle(self) -> list[int]:
        return [number for number, seat in enumerate(self._seats) if seat.ready and not seat.busy]

    def submit(self, worker: int, task: Any) -> None:
        seat = self._seats[worker]
        seat.busy = True
        with contextlib.suppress(OSError):  # dead already: `wait` will notice
            seat.pipe.send(task)

    def wait(self) -> Finished | None:
        running = [seat for seat in self._seats if seat.process]
        spoken = wait([seat.pipe for seat in running])
        seat = next(seat for seat in running if seat.pipe in spoken)
        number = self._seats.index(seat)
        try:
            kind, value = seat.pipe.recv()
        except (EOFError, OSError):
            return self._bury(number, seat)
        if kind == "refused":
            raise UserError(*value)
        if kind == "result":
            seat.busy = False
            return Finished(number, value)
        if kind == "ready":
            seat.ready, seat.failed_starts = True, 0
        else:
            seat.reason = value
        return None

    @property
    def alive(self) -> bool:
        return any(seat.process for seat in self._seats)

    def _process(self, device: str) -> tuple[Any, Connection]:
        """Starts a process; returns it and our end of its pipe."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, device, *self._arguments), daemon=True)
        process.start()
        theirs.close()  # so that the worker's death ends the pipe
        return process, ours

    def _bury(self, number: int, seat: _Seat) -> Finished | None:
        seat.process.join()
        seat.pipe.close()
        code, seat.process = seat.process.exitcode, None
        how = f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
        busy, started = seat.busy, seat.ready
        if started:
            self._note(f"a worker on {seat.device} died ({how}); starting another")
        else:
            seat.failed_starts += 1
            self.reasons.append(seat.reason or how)
            last = seat.failed_starts >= MOST_FAILED_STARTS
            what = "going on without it" if last else "trying once more"
            self._note(f"a worker on {seat.device} could not start ({seat.reason or how}); {what}")
            if last:
                return None
        seat.process, seat.pipe = self._process(seat.device)
        seat.ready, seat.busy = False, False
        return Finished(number, death=f"its worker died ({how})") if busy else None

    def close(self) -> None:
        running = [seat for seat in self._seats if seat.process]
        for seat in running:
            seat.pipe.close()  # an idle worker leaves by itself at this
            if seat.busy or not seat.ready:
                seat.process.terminate()
        for seat in running:
            seat.process.join(SECONDS_TO_LEAVE)
            if seat.process.is_alive():
                seat.process.kill()
                seat.process.join()
            seat.process = None


def _work(pipe: Connection, device: str, factory: Factory, arguments: dict[str, Any]) -> None:
    """A worker's process."""
    start_worker()
    try:
        tool = factory(device=device, **arguments)
    except UserError as error:
        pipe.send(("refused", (error.problem, error.remedy, error.path)))
        return
    except Exception as error:
        pipe.send(("unstarted", f"{type(error).__name__}: {error}"))
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has gone
        pipe.send(("ready", None))
        while True:
            pipe.send(("result", tool(pipe.recv())))
