"""A batch: samples as tensors with one row each, as a dataclass whose fields say what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B samples. A stage adds its fields: tensors (B, ...), tuples of B things, dataclasses of such fields, or None.

    A data set gives batches of one sample, which the loader joins.

    Attributes:
        names: the samples' files, for messages.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Several batches as one, in their order."""
        return _joined(batches)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with ``function`` of every tensor."""
        return _mapped(self, function)

    def to(self, device: torch.device) -> Self:
        """The same on ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """In page-locked memory, which a GPU copies from without waiting; the loader calls it."""
        return self.map(Tensor.pin_memory)

    def repeated(self, size: int) -> Self:
        """``size`` times the one sample in this batch, without copying its tensors."""
        once = self.map(lambda tensor: tensor.expand(size, *tensor.shape[1:]))
        return dataclasses.replace(once, names=self.names * size)

    def tensors(self) -> list[Tensor]:
        """Every tensor in it."""
        return list(_tensors(self))

    def bytes(self) -> int:
        """What its tensors take in memory."""
        return sum(tensor.nbytes for tensor in self.tensors())


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {name: _mapped(part, function) for name, part in _fields(value).items()}
        return dataclasses.replace(value, **changed)
    return value


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, tuple):
        return tuple(part for value in values for part in value)
    if first is None:
        return None
    return type(first)(
        **{name: _joined([getattr(value, name) for value in values]) for name in _fields(first)}
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for part in _fields(value).values():
            yield from _tensors(part)
