"""Which conditions a training sample keeps (docs/method.md, section 6)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ctrlgenaug.training.config import ConditionDropping
from ctrlgenaug.training.order import generator


def kept_conditions(
    names: Sequence[str], probabilities: ConditionDropping, *, seed: int, epoch: int, index: int
) -> set[str]:
    """The conditions among ``names`` that sample ``index`` keeps in ``epoch``.

    With probability ``keep_all`` all of them, with ``drop_all`` none, else each is dropped by itself with its own
    probability. A pure function: the same whatever the workers and processes.
    """
    # one number for the case and one for each condition, all drawn always
    numbers = torch.rand(1 + len(names), generator=generator(seed, epoch, index, "conditions")).tolist()
    case, own = numbers[0], numbers[1:]
    if case < probabilities.keep_all:
        return set(names)
    if case < probabilities.keep_all + probabilities.drop_all:
        return set()
    numbered = zip(names, own, strict=True)
    return {name for name, number in numbered if number >= probabilities.drop_probability(name)}
