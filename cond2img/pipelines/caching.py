"""Feature caching: what is deep inside the UNet is computed at some steps only (DeepCache, Ma et al., CVPR 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def fresh_steps(steps: int, interval: int, center: float | None = None) -> frozenset[int]:
    """The steps at which everything is computed, the first always among them.

    Args:
        steps: denoising steps, the one with most noise being step 0.
        interval: one in so many steps is fresh.
        center: where the deep features change most, as a share of the run (0: its start, 1: its end). Fresh steps then
            lie close together there, and their distance grows linearly, so their positions quadratically, towards the
            ends. Elsewhere the same number of steps, ceil(steps / interval), is spread evenly.
    """
    count = -(-steps // interval)
    if center is None or count == steps:
        return frozenset(range(0, steps, interval))
    middle = center * (steps - 1)
    # middle + x|x| is step 0 at the first x and would be the last step at the one after the last
    roots = np.linspace(-(middle**0.5), (steps - 1 - middle) ** 0.5, count, endpoint=False)
    wanted = np.rint(middle + roots * np.abs(roots)).astype(int)
    chosen: list[int] = []
    for number, step in enumerate(wanted.tolist()):
        # where two round to one step, the later one moves on; room is left for those that follow
        latest = steps - count + number
        chosen.append(min(max(step, chosen[-1] + 1 if chosen else 0), latest))
    return frozenset(chosen)


class DeepFeatures:
    """What a step computed below the UNet's outermost layer, for the next steps.

    The deep features change slowly from step to step. Kept, a step runs the first convolution and the last layer of
    the way up alone, whose skip connection stays fresh.
    """

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def forget(self) -> None:
        """The next step computes everything."""
        self._kept = None

    def keep(self, features: Tensor) -> None:
        """Keeps ``features`` (B*F, C, H, W) for the next steps."""
        self._kept = features

    def of_last(self, count: int) -> Tensor | None:
        """Those of the last ``count`` frames; None if there are none, or fewer, so that all must be computed."""
        return None if self._kept is None or len(self._kept) < count else self._kept[-count:]
