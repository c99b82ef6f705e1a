"""Data order and random numbers as pure functions of (seed, epoch, index).

The training samples of a run form one endless line: epoch after epoch, each a permutation of the data set. Step and
micro-batch are cut from that line, so no sample is left out or repeated at an epoch's end, whatever the batch size and
the number of processes, and a resumed run goes on at the number it had reached. Whatever is random about a sample is
drawn from a generator of its own.

With balanced classes an epoch has as many places for each class as the largest has samples. A class fills its places
from an endless line of its own, so the samples of a rare one come as often as each other, and never twice alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch


@dataclass(frozen=True)
class SampleKey:
    """Names one sample of the line: the ``index``-th of the data set, as seen for the ``epoch``-th time (from 0)."""

    epoch: int
    index: int


def generator(seed: int, epoch: int, index: int, purpose: str = "") -> torch.Generator:
    """A CPU generator that depends on its arguments alone; different purposes give independent streams."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of ``size`` samples in ``epoch``, (size,) int64."""
    return torch.randperm(size, generator=generator(seed, epoch, -1, "order")).numpy()


def class_groups(classes: Sequence[Hashable]) -> list[np.ndarray]:
    """The indices of each class's samples, in ascending order; the classes in the order in which they come up."""
    numbered = list(dict.fromkeys(classes))
    ids = np.array([numbered.index(cls) for cls in classes])
    return [np.flatnonzero(ids == number) for number in range(len(numbered))]


def epoch_size(size: int, groups: Sequence[np.ndarray] = ()) -> int:
    """Places in an epoch: ``size`` samples, or as many for each of ``groups`` as the largest has."""
    return len(groups) * max(map(len, groups)) if groups else size


def key_at(seed: int, position: int, size: int, groups: Sequence[np.ndarray] = ()) -> SampleKey:
    """The sample at ``position`` (from 0) of the line over a data set of ``size`` samples.

    Args:
        seed: the run's.
        position: samples before it.
        size: of the data set.
        groups: the classes' samples (see `class_groups`), to have each class equally often; none: every sample is.
    """
    places = epoch_size(size, groups)
    epoch, offset = divmod(position, places)
    place = int(permutation(seed, epoch, places)[offset])
    if not groups:
        return SampleKey(epoch, place)
    group, number = divmod(place, places // len(groups))
    members = groups[group]
    times, member = divmod(epoch * (places // len(groups)) + number, len(members))
    return SampleKey(times, int(members[member]))


class MicroBatches:
    """A batch sampler that deals the line out to the processes.

    Micro-batch m of the run covers positions [m * P * b, (m + 1) * P * b); process r of P takes the r-th part of b.

    Args:
        seed: the run's seed.
        size: samples in the data set.
        batch_size: b, samples a process.
        rank: r.
        world_size: P.
        start: the first position, i.e. the samples that the run has seen already.
        micro_batches: how many micro-batches to deal.
        groups: see `key_at`.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        micro_batches: int,
        groups: Sequence[np.ndarray] = (),
    ) -> None:
        self.seed, self.size, self.batch_size = seed, size, batch_size
        self.rank, self.world_size = rank, world_size
        self.start, self.micro_batches, self.groups = start, micro_batches, groups

    def __len__(self) -> int:
        return self.micro_batches

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for number in range(self.micro_batches):
            first = self.start + (number * self.world_size + self.rank) * self.batch_size
            positions = range(first, first + self.batch_size)
            yield [key_at(self.seed, position, self.size, self.groups) for position in positions]
