"""Steps that ask a model about item after item: in this process, or by workers that each load it once.

What asks is an `Answers`: a function from items to one answer each, in their order, as they come. In this process it
gets all items; a worker, a process of this machine or an actor of a cluster, gets as many as go through the model
together. So the same ones do, and the answers are the same, whatever gave them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug import cluster
from ctrlgenaug.arguments import positive_int
from ctrlgenaug.devices import pick_device
from ctrlgenaug.errors import UserError
from ctrlgenaug.leases import LeaseResult, settle
from ctrlgenaug.steps import is_out_of_memory, note, portable

Answers = Callable[[Sequence[Any]], Iterator[Any]]
"""Items to answers, one each and in order; a `UserError` is the answer for an item that is at fault itself."""
Opener = Callable[..., Answers]
"""Loads the model, called as ``opener(device=..., **arguments)``; of a module's top level, so that workers find it."""


@dataclass(frozen=True)
class Workers:
    """Who asks the model.

    Attributes:
        device: ``cpu``, ``cuda:N`` or ``auto``: the first GPU, or with several workers all of them in turn.
        num_workers: how many; None: this process alone, and on a cluster one a GPU, or a processor if it has none.
    """

    device: str = "auto"
    num_workers: int | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether others ask than this process."""
        return cluster.chosen() is not None or (self.num_workers or 1) > 1

    @property
    def own_device(self) -> str:
        """The device of this process; ``cpu`` where a cluster has the GPUs."""
        return "cpu" if cluster.chosen() is not None else pick_device(self.device)

    def ask(
        self,
        opener: Opener,
        arguments: dict[str, Any],
        items: Sequence[Any],
        *,
        batch_size: int = 1,
        folders: Sequence[str | Path] = (),
    ) -> Iterator[Any]:
        """An answer for each item, in order, as they come.

        An item that ends its worker, or that it fails at, is tried once more by itself; then the reason is its answer.

        Args:
            opener: loads the model where it is needed.
            arguments: its keyword arguments besides ``device``; picklable if others ask.
            items: what is asked about.
            batch_size: how many a worker gets at a time: those that go through the model together, or a multiple.
            folders: what every machine of a cluster must see.

        Raises:
            UserError: the model cannot be loaded, or see `ctrlgenaug.cluster.executor`.
            OSError: a full disk: no later answer could be written either.
        """
        if not items:
            return
        if not self.elsewhere:
            yield from opener(device=self.own_device, **arguments)(items)
            return
        devices = self._devices(-(-len(items) // batch_size))
        tool = {"opener": opener, "arguments": arguments}
        executor = cluster.executor(_Asker, tool, devices, note, folders)
        early: dict[int, Any] = {}  # answers whose turn has not come
        due = 0
        with contextlib.closing(settle(executor, items, note, batch_size)) as settled:
            for one in settled:
                early[one.number] = one.value if one.error is None else _as_answer(one.error)
                while due in early:
                    yield early.pop(due)
                    due += 1

    def _devices(self, most: int) -> list[str]:
        if cluster.chosen() is not None:
            return cluster.places(self.device, self.num_workers, most)
        device, count = pick_device(self.device), 1
        if device != "cpu" and self.device == "auto":
            import torch

            count = torch.cuda.device_count()
        names = [device if count == 1 else f"cuda:{index}" for index in range(count)]
        return [names[index % count] for index in range(min(most, self.num_workers or 1))]


def add_options(group: Any) -> None:
    """Adds ``--num_workers`` and ``--cluster`` to a parser or a group of one that has ``--device``."""
    group.add_argument(
        "--num_workers",
        type=positive_int,
        help="workers that load the networks, each on a GPU where there are several (default: 1; on a cluster one a "
        "GPU, or a processor if it has none); the output does not depend on it",
    )
    cluster.add_option(group)


def chosen(options: argparse.Namespace) -> Workers:
    """The workers that the flags ask for."""
    return Workers(options.device, options.num_workers)


def _as_answer(error: Any) -> UserError:
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError):
        raise error
    return UserError(str(error).rstrip("."))


class _Asker:
    """A worker's tool: asks about the items of a lease."""

    def __init__(self, device: str, opener: Opener, arguments: dict[str, Any]) -> None:
        self.answers = opener(device=device, **arguments)

    def __call__(self, lease: Sequence[tuple[int, Any]]) -> LeaseResult:
        result = LeaseResult()
        try:
            given = self.answers([item for _, item in lease])
            for (number, _), answer in zip(lease, given, strict=True):
                (result.refused if isinstance(answer, UserError) else result.done)[number] = answer
        except Exception as error:
            sent = portable(error)
            if isinstance(sent, str):
                result.error, result.out_of_memory = sent, is_out_of_memory(error)
            else:
                rest = [number for number, _ in lease if number not in result.done]
                result.refused |= dict.fromkeys(rest, sent)
        if result.out_of_memory:  # only here is the traceback gone, which held on to the tensors
            gc.collect()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()
        return result
