"""How the predictions of several condition sets become the one that a sampling step follows.

The branches of a step differ in their conditions only. What they predict, noise or velocity, is linear in the noise of
the same latents, so they may be combined either way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctrlgenaug.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ctrlgenaug.conditions.clip import ClipConditionsBatch

CONTRASTS = ("mean", "nearest")
LAST_TIMESTEP = 999  # of the noise schedule that all models of the method have


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance, and contrast with the other classes as an addition to the method.

    A step follows ``u + s (o - u) + w (o - m)``: o is what is predicted from a sample's own conditions, u from none of
    them (but the same class, as published), m what is predicted from its conditions with other classes in place of its
    own: the mean of all of them, or the one that is nearest to o.

    Away from the mean a class that lies between the others, as a mild finding between none and a severe one, goes to
    neither side; away from the nearest it leaves the one that it would be taken for.

    The published guidance keeps the class in both branches and so never strengthens it. Contrast does, without another
    training; a step costs one branch more for each further class.

    Attributes:
        scale: s; 1 or less: no guidance, u is not computed.
        interval: (low, high) timesteps, both included, outside of which the conditional branch runs alone;
            None: guidance and contrast at every step.
        class_contrast: w; 0: no contrast, m is not computed. 1 is a good start, 6 overdoes it.
        contrast_with: one of `CONTRASTS`: ``mean`` or ``nearest``, for each sample and step.

    Raises:
        UserError: a number is not finite or negative, the interval is none, or the contrast is unknown.
    """

    scale: float = 7.5
    interval: tuple[float, float] | None = None
    class_contrast: float = 0.0
    contrast_with: str = "mean"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise UserError(f"guidance scale {self.scale:g} is none", "Give a finite number, e.g. 7.5")
        if not (math.isfinite(self.class_contrast) and self.class_contrast >= 0):
            raise UserError(f"class contrast {self.class_contrast:g} is none", "Give 0 or more, e.g. 1")
        if self.contrast_with not in CONTRASTS:
            raise UserError(
                f"{self.contrast_with!r} is nothing to contrast with", f"Give {' or '.join(CONTRASTS)}"
            )
        if self.contrast_with != "mean" and not self.class_contrast:
            raise UserError(
                f"contrast with the {self.contrast_with} class at weight 0 changes nothing",
                "Give --class_contrast 1 with it",
            )
        if self.interval is not None and not 0 <= self.interval[0] <= self.interval[1]:
            low, high = self.interval
            raise UserError(
                f"guidance interval {low:g} {high:g} is no interval", "Give the lower end first, e.g. 200 800"
            )
        if self.interval is not None and self.interval[0] > LAST_TIMESTEP:
            raise UserError(
                f"guidance interval {self.interval[0]:g} {self.interval[1]:g} begins after the last timestep, "
                f"{LAST_TIMESTEP}, so there would be no guidance",
                "Give e.g. 200 800, or --guidance_scale 1",
            )

    @property
    def is_free(self) -> bool:
        """Whether there is an unconditional branch: classifier-free guidance."""
        return self.scale > 1

    def is_on(self, timestep: float) -> bool:
        """Whether more than the conditional branch is needed at ``timestep``."""
        if not self.is_free and not self.class_contrast:
            return False
        return self.interval is None or self.interval[0] <= timestep <= self.interval[1]

    def require_classes(self, classes: int | None) -> None:
        """A `UserError` if there is to be contrast with other classes, and of ``classes`` there are no others."""
        if self.class_contrast and (classes is None or classes < 2):
            raise UserError(
                f"class contrast needs other classes, the model has {classes or 'none'}",
                "Leave --class_contrast out",
            )

    def branches(
        self, conditions: ClipConditionsBatch, classes: int | None
    ) -> tuple[ClipConditionsBatch, ...]:
        """The condition sets of a step: none of them, then other classes, then the samples' own.

        Args:
            conditions: of B samples.
            classes: how many the model knows, or None: it has no classes.

        Raises:
            UserError: contrast with the other classes, of which the model has none.
        """
        others: list[ClipConditionsBatch] = []
        self.require_classes(classes)
        if self.class_contrast and classes:
            # moved on by 1, 2, ... each sample meets every class but its own
            moved = [(conditions.classes + by) % classes for by in range(1, classes)]
            others = [replace(conditions, class_id=class_id) for class_id in moved]
        without = [conditions.unconditional()] if self.is_free else []
        return (*without, *others, conditions)

    def combine(self, predictions: Sequence[Tensor]) -> Tensor:
        """What the step follows, from the predictions of `branches` in their order."""
        *rest, own = predictions
        combined = own
        if self.is_free:
            without = rest.pop(0)
            combined = without + self.scale * (own - without)
        if rest:
            other = sum(rest) / len(rest) if self.contrast_with == "mean" else nearest(own, rest)
            combined = combined + self.class_contrast * (own - other)
        return combined


def nearest(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """For each sample of ``own`` (B, ...) that one of the ``others``, each (B, ...), which differs least from it."""

    def distance(other: Tensor) -> Tensor:  # (B, 1, ...)
        return (other - own).square().mean(list(range(1, own.dim())), keepdim=True)

    found, *rest = others
    for other in rest:
        found = other.where(distance(other) < distance(found), found)
    return found
