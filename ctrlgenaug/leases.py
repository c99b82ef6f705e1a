"""Items lent to workers: retries, smaller leases when memory runs out, and the culprit found when a worker dies.

A worker gets some items at a time. If it dies or fails with them, each is tried once more by itself, so that one bad
item costs itself alone and is named.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctrlgenaug.executor import Executor, Finished

MOST_ATTEMPTS = 2


@dataclass
class LeaseResult:
    """What a worker's tool says of a lease, a list of (number, item).

    Attributes:
        done: value by number.
        refused: the error by number of items that are at fault themselves: another try would not help.
        error: what kept it from the other items, if anything.
        out_of_memory: whether that was a lack of memory, so that fewer items at once may do.
    """

    done: dict[int, Any] = field(default_factory=dict)
    refused: dict[int, Any] = field(default_factory=dict)
    error: str = ""
    out_of_memory: bool = False


@dataclass
class Backlog:
    """Which items wait, and how often each was tried. One tried before is lent alone, to find the culprit."""

    items: Sequence[Any]
    waiting: deque[int] = field(init=False)
    again: deque[int] = field(default_factory=deque)
    attempts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.items)))

    def lease(self, most: int) -> list[int]:
        """Up to ``most`` waiting items, by number."""
        if self.again:
            return [self.again.popleft()]
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def give_back(self, numbers: Sequence[int]) -> None:
        """Puts items back that were not at fault."""
        self.waiting.extendleft(reversed(numbers))

    def failed(self, numbers: Sequence[int]) -> list[int]:
        """Counts a failed attempt of each; returns those that are given up now, the others wait for another try."""
        given_up: list[int] = []
        for number in numbers:
            self.attempts[number] = self.attempts.get(number, 0) + 1
            (given_up if self.attempts[number] >= MOST_ATTEMPTS else self.again).append(number)
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
    """What the caller wants to hear.

    Attributes:
        done: called as ``done(item, value, device)``.
        failed: called as ``failed(item, why)`` when an item is given up; why is an exception or a line of text.
        note: called with a line worth showing: a lease was halved.
    """

    done: Callable[[Any, Any, str], None]
    failed: Callable[[Any, Any], None]
    note: Callable[[str], None]


@dataclass(frozen=True)
class Settled:
    """What became of an item.

    Attributes:
        number: of the item.
        value: what the tool made of it.
        error: why it is given up, an exception or a line of text; None where it is not.
        device: of the worker that made the value.
    """

    number: int
    value: Any = None
    error: Any = None
    device: str = ""


def settle(
    executor: Executor, items: Sequence[Any], note: Callable[[str], None], lease_size: int = 1
) -> Generator[Settled, None, None]:
    """Has every item worked on once, or given up; each is told once, as it comes. Closes the executor in the end.

    Args:
        executor: its tools take a list of (number, item) and return a `LeaseResult`.
        items: what there is to do, lent in this order.
        note: called with a line worth showing: a lease was halved.
        lease_size: items a worker gets at a time, at first.

    Raises:
        UserError: the workers' factory refuses.
    """
    backlog, leases = Backlog(items), dict[int, list[int]]()
    sizes = [max(1, lease_size)] * len(executor.devices)
    try:
        while backlog or leases:
            for worker in executor.idle():
                if lease := backlog.lease(sizes[worker]):
                    leases[worker] = lease
                    executor.submit(worker, [(number, items[number]) for number in lease])
            if not executor.alive:
                break
            finished = executor.wait()
            if finished is not None:
                yield from _settle(finished, leases.pop(finished.worker), backlog, executor, sizes, note)
        reasons = "; ".join(dict.fromkeys(executor.reasons)) or "they died"
        for number in [*(number for lease in leases.values() for number in lease), *backlog.drain()]:
            yield Settled(number, error=f"no worker could be started ({reasons})")
    finally:
        executor.close()


def work_through(executor: Executor, items: Sequence[Any], reports: Reports, lease_size: int = 1) -> None:
    """`settle`, with everything reported to ``reports``."""
    with contextlib.closing(settle(executor, items, reports.note, lease_size)) as settled:
        for one in settled:
            if one.error is None:
                reports.done(items[one.number], one.value, one.device)
            else:
                reports.failed(items[one.number], one.error)


def _settle(
    finished: Finished,
    lease: list[int],
    backlog: Backlog,
    executor: Executor,
    sizes: list[int],
    note: Callable[[str], None],
) -> Iterator[Settled]:
    """Tells what a lease brought, and puts back what is to be tried again."""
    worker = finished.worker
    if finished.death and not finished.at_fault:
        backlog.give_back(lease)
        return
    result = LeaseResult(error=finished.death) if finished.death else finished.value
    for number, value in result.done.items():
        yield Settled(number, value, device=executor.devices[worker])
    for number, error in result.refused.items():
        yield Settled(number, error=error)
    rest = [number for number in lease if number not in result.done and number not in result.refused]
    if result.out_of_memory and len(rest) > 1:
        sizes[worker] = max(1, len(rest) // 2)
        note(f"{executor.devices[worker]} is out of memory: going on with batches of {sizes[worker]}")
        backlog.give_back(rest)
        return
    for number in backlog.failed(rest):
        yield Settled(number, error=f"{result.error} (tried {MOST_ATTEMPTS} times)")
