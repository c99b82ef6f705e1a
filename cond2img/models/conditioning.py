"""Everything that steers the UNet, as one object that travels from its front door to the layer that needs it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Trajectories:
    """Where each point of a clip goes, on a square grid (method, section 4).

    Args:
        index: (B, P, L) int64, P = F * side * side points ordered by frame, row, column; for each the numbers of the
            L points it attends to, itself among them. Masked entries hold the point itself.
        bias: (B, P, 1, L), 0 for a point of the trajectory and -inf for padding.
        side: cells along one side of the grid.
    """

    index: Tensor
    bias: Tensor
    side: int

    @classmethod
    def from_numbers(cls, numbers: Tensor, frames: int, dtype: torch.dtype) -> Trajectories:
        """Splits the numbers of a clip's points into what is gathered and what is masked.

        Args:
            numbers: (B, P, L) integers, P = frames * side * side; the points of each point's trajectory, -1 where there
                is none (`ClipConditions.trajectories`).
            frames: F.
            dtype: of the bias.

        Raises:
            ValueError: the shape does not fit a square grid of F frames.
        """
        points = numbers.shape[1] if numbers.ndim == 3 else 0
        side = round((points / frames) ** 0.5)
        if not points or frames * side * side != points:
            raise ValueError(
                f"trajectories have shape {tuple(numbers.shape)}, expected (B, {frames} * side * side, L) "
                f"for {frames} frames on a square grid"
            )
        there = numbers >= 0
        itself = torch.arange(points, device=numbers.device)[None, :, None]
        index = torch.where(there, numbers, itself)
        bias = torch.zeros(numbers.shape, dtype=dtype, device=numbers.device).masked_fill(~there, -torch.inf)
        return cls(index, bias.unsqueeze(2), side)


def number_points(traj: Tensor, mask: Tensor | None, frames: int) -> Tensor:
    """The official spelling of trajectories as the numbers that `Trajectories.from_numbers` takes.

    Args:
        traj: (B, P, L, 3) integers (frame, row, column) on a square grid, P = frames * side * side.
        mask: (B, P, L) bool, True where the entry counts; None: all count.
        frames: F.

    Returns:
        (B, P, L) int64, -1 where an entry does not count, whatever it holds.

    Raises:
        ValueError: the shapes do not fit.
    """
    points = traj.shape[1]
    side = round((points / frames) ** 0.5)
    if traj.ndim != 4 or traj.shape[-1] != 3 or frames * side * side != points:
        raise ValueError(
            f"traj has shape {tuple(traj.shape)}, expected (B, {frames} * side * side, L, 3) "
            f"for {frames} frames on a square grid"
        )
    frame, row, column = traj.long().unbind(-1)
    numbers = (frame * side + row) * side + column  # (B, P, L)
    if mask is None:
        return numbers
    if mask.shape != numbers.shape:
        raise ValueError(f"traj_mask has shape {tuple(mask.shape)}, expected {tuple(numbers.shape)}")
    return torch.where(mask.bool(), numbers, -1)


@dataclass(frozen=True)
class Conditioning:
    """The conditions of a batch of B samples with F frames each (F = 1 for images).

    Nothing here but `time` depends on the noise level, so a sampler computes the rest once for a sequence.

    Args:
        frames: F.
        text: (B, T, D) text tokens.
        image: (B, M, D) tokens of the image prior, or None: the image branch is left out.
        classes: (B, E) class embedding, or None for a model without classes.
        time: (B, E) activated sum of time and class embedding; set by the UNet at each step.
        motion: (B * F, C, H, W) what the motion field adds to the UNet's first feature map, or None.
        trajectories: for motion field attention, or None.
        frame_numbers: (B, F) places in the clip, for a model that knows them; None: it does not, as published.
        origins: (B * F, 2, H, W) where each place was in the first frame, for a model whose image prior follows the
            motion field (`ctrlgenaug.conditions.origins`); None: the prior stays where it is, as published.
        cache: keys and values of text and image for each multimodal attention of the UNet, in its order; None:
            each attention projects the tokens itself.
    """

    frames: int
    text: Tensor
    image: Tensor | None = None
    classes: Tensor | None = None
    time: Tensor | None = None
    motion: Tensor | None = None
    trajectories: Trajectories | None = None
    frame_numbers: Tensor | None = None
    origins: Tensor | None = None
    cache: tuple[tuple[KeysValues, KeysValues | None], ...] | None = None

    @property
    def batch(self) -> int:
        """B, the number of samples."""
        return self.text.shape[0]

    def last(self, count: int) -> Conditioning:
        """The conditions of the last ``count`` samples: a guided batch without its unconditional half."""

        def cut(tensor: Tensor | None, each: int = 1) -> Tensor | None:
            return None if tensor is None else tensor[-count * each :]

        def cut_pair(pair: KeysValues) -> KeysValues:
            return pair[0][-count:], pair[1][-count:]

        lines = self.trajectories
        if lines is not None:
            lines = Trajectories(cut(lines.index), cut(lines.bias), lines.side)
        return replace(
            self,
            text=cut(self.text),
            image=cut(self.image),
            classes=cut(self.classes),
            time=cut(self.time),
            motion=cut(self.motion, self.frames),
            trajectories=lines,
            frame_numbers=cut(self.frame_numbers),
            origins=cut(self.origins, self.frames),
            cache=self.cache
            and tuple((cut_pair(text), image and cut_pair(image)) for text, image in self.cache),
        )
