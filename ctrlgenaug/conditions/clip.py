"""What one sample is conditioned on, from the data set's folders to the model: the method's central noun.

Five conditions: class, text, image prior, motion field, trajectories. Their shapes and units stand here and nowhere
else. A clip has F frames of H x W = 256 x 256 pixels; an image is the case F = 1, which has no motion field and no
trajectories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ctrlgenaug.conditions.motion_field import load_field
from ctrlgenaug.conditions.origins import origins
from ctrlgenaug.conditions.trajectories import load_trajectories, replay, still, there_and_back
from ctrlgenaug.datasets import IMAGE_SIZE, Clip, DatasetSpec
from ctrlgenaug.plain_data import load_npy

PRIOR_SHAPE = (256, 64, 64)

# Conditions that can be left out, and the fields that hold them. The class is always used, and trajectories without
# their motion field are what the unconditional branch of guidance has, too.
OPTIONAL = {"image_prior": "prior", "motion_field": "motion", "text": "text"}


def _nothing(value: Any) -> Any:
    """What stands for a dropped condition, in its shape: zeros, and for a text the empty one."""
    if isinstance(value, Tensor):
        return torch.zeros_like(value)
    if isinstance(value, tuple):
        return tuple("" for _ in value)
    return None if value is None else ""  # what an image never had cannot be dropped


class _Droppable:
    """What a sample's conditions and a batch's share."""

    def without(self, names: Iterable[str]) -> Self:
        """The same with the conditions ``names`` dropped, as the model saw it in training.

        Args:
            names: keys of `OPTIONAL`. A dropped prior or motion field is zeros, a dropped text "". The trajectories
                stay.

        Raises:
            ValueError: a name is none of them.
        """
        unknown = set(names) - OPTIONAL.keys()
        if unknown:
            raise ValueError(f"{sorted(unknown)} cannot be dropped, only {', '.join(OPTIONAL)}")
        fields = [OPTIONAL[name] for name in names]
        fields += ["origins"] if "motion" in fields else []
        return replace(self, **{field: _nothing(getattr(self, field)) for field in fields})  # type: ignore


@dataclass(frozen=True)
class ClipConditions(_Droppable):
    """What one clip or image is conditioned on.

    Attributes:
        class_id: its class, an index into `DatasetSpec.classes`.
        text: its description, "" where there is none.
        prior: (256, 64, 64) float32, the image encoder's output for the first frame.
        motion: (F-1, 2, 256, 256) float32, pixels moved since the reference frame, channel 0 = x (to the right),
            1 = y (down), for frames 1 to F-1; None for an image.
        trajectories: (F*1024, F) int32, for each point of the 32 x 32 grids, in the order of frame, row, column, the
            numbers of the points of its trajectory, itself first, -1 where there is none; None for an image.
        frame_numbers: (F,) int64, which frame of the real clip each one stands for; None: each for itself.
        origins: (F, 2, 64, 64) float32, where each place was in the clip's first frame (`origins.origins`); None: as
            the motion field has it.
    """

    class_id: int
    text: str
    prior: Tensor
    motion: Tensor | None = None
    trajectories: Tensor | None = None
    frame_numbers: Tensor | None = None
    origins: Tensor | None = None

    @property
    def num_frames(self) -> int:
        """F."""
        return 1 if self.motion is None else len(self.motion) + 1

    def of_length(self, frames: int) -> ClipConditions:
        """The same for a clip of ``frames`` frames: its movement goes to its end, back to its start, and so on.

        On the way back a motion field is that of the way there with its sign changed, and trajectories are the same.
        """
        if self.motion is None or self.trajectories is None or frames == self.num_frames:
            return self
        order = there_and_back(self.num_frames, frames)
        fields = torch.as_tensor(np.minimum(order[:-1], order[1:]))
        sign = torch.as_tensor(np.diff(order)).to(self.motion.dtype)[:, None, None, None]
        lines = torch.as_tensor(replay(self.trajectories.numpy(), order))
        return replace(
            self,
            motion=sign * self.motion[fields],
            trajectories=lines,
            frame_numbers=torch.as_tensor(order).long(),
            origins=origins(self.motion[None])[0, order],
        )

    def of_class(self, class_id: int) -> ClipConditions:
        """The same with another class."""
        return replace(self, class_id=class_id)


TENSORS = ("class_id", "prior", "motion", "trajectories", "frame_numbers", "origins")


@dataclass(frozen=True)
class ClipConditionsBatch(_Droppable):
    """The conditions of B samples with as many frames each. A tensor that is None is not shown to the model at all.

    Attributes:
        class_id: (B,) int64; None: for a model without classes.
        text: B texts; empty where their tokens are kept elsewhere.
        prior: (B, 256, 64, 64).
        motion: (B, F-1, 2, 256, 256).
        trajectories: (B, F*1024, F) int32.
        frame_numbers: (B, F) int64; None: 0 to F-1.
        origins: (B, F, 2, 64, 64); None: as the motion field has it.
    """

    class_id: Tensor | None
    text: tuple[str, ...]
    prior: Tensor | None = None
    motion: Tensor | None = None
    trajectories: Tensor | None = None
    frame_numbers: Tensor | None = None
    origins: Tensor | None = None

    @classmethod
    def stack(cls, samples: Sequence[ClipConditions]) -> ClipConditionsBatch:
        """The conditions of several samples as one batch."""

        def stacked(name: str) -> Tensor | None:
            values = [getattr(sample, name) for sample in samples]
            return None if values[0] is None else torch.stack(values)

        return cls(
            torch.tensor([sample.class_id for sample in samples]),
            tuple(sample.text for sample in samples),
            stacked("prior"),
            stacked("motion"),
            stacked("trajectories"),
            stacked("frame_numbers"),
            stacked("origins"),
        )

    def __len__(self) -> int:
        return len(self.text if self.class_id is None else self.class_id)

    @property
    def classes(self) -> Tensor:
        """(B,) int64: `class_id` of samples that have one.

        Raises:
            ValueError: they have none.
        """
        if self.class_id is None:
            raise ValueError("these samples have no class")
        return self.class_id

    def _map(self, function: Any) -> ClipConditionsBatch:
        tensors = {name: getattr(self, name) for name in TENSORS}
        return replace(self, **{name: function(t) for name, t in tensors.items() if t is not None})

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
    ) -> ClipConditionsBatch:
        """On ``device``, with prior and motion field in ``dtype``."""

        def moved(tensor: Tensor) -> Tensor:
            wanted = dtype if tensor.is_floating_point() else None
            return tensor.to(device=device, dtype=wanted, non_blocking=non_blocking)

        return self._map(moved)

    def pin_memory(self) -> ClipConditionsBatch:
        """In page-locked memory, which a GPU copies from without waiting."""
        return self._map(Tensor.pin_memory)

    def all_origins(self) -> Tensor | None:
        """(B, F, 2, 64, 64): ``origins``, or what the motion field says of them; None without one."""
        if self.origins is None and self.motion is not None:
            return origins(self.motion)
        return self.origins

    def unconditional(self) -> ClipConditionsBatch:
        """Its twin for guidance: neither prior nor motion field nor text, the same classes and trajectories."""
        return self.without(OPTIONAL)

    def part(self, which: slice) -> ClipConditionsBatch:
        """The samples ``which`` of the batch."""
        return replace(self._map(lambda tensor: tensor[which]), text=self.text[which])

    def within(self, window: slice, frames: int) -> ClipConditionsBatch:
        """The conditions of some frames of the samples, as of clips of their own.

        The window's first frame has no motion field. A trajectory keeps its points in the window. The prior stays that
        of the clip's first frame, and the frames keep their numbers and the places where they were in it.

        Args:
            window: of frames, start and stop given.
            frames: F of the samples.
        """
        start, stop = window.start, window.stop
        if (start, stop) == (0, frames):
            return self
        motion = None if self.motion is None else self.motion[:, start : stop - 1]
        lines = self.trajectories
        if lines is not None:
            cells = lines.shape[1] // frames
            lines = lines[:, start * cells : stop * cells] - start * cells
            lines = lines.masked_fill((lines < 0) | (lines >= (stop - start) * cells), -1)
            # as in a short clip's: the points there are come first, in their order
            first = (lines < 0).to(torch.uint8).argsort(dim=-1, stable=True)[..., : stop - start]
            lines = lines.gather(-1, first)
        numbers = self.frame_numbers
        if numbers is None:
            numbers = torch.arange(frames).expand(len(self), -1)
        places = self.all_origins()
        return replace(
            self,
            motion=motion,
            trajectories=lines,
            frame_numbers=numbers[:, start:stop],
            origins=None if places is None else places[:, start:stop],
        )

    def followed_by(self, other: ClipConditionsBatch) -> ClipConditionsBatch:
        """This batch's samples, then those of ``other``, as one batch."""

        def joined(name: str) -> Tensor | None:
            first, second = getattr(self, name), getattr(other, name)
            return None if first is None else torch.cat([first, second])

        tensors = {name: joined(name) for name in TENSORS}
        return replace(self, text=self.text + other.text, **tensors)  # type: ignore[arg-type]


# --- from the data set's folders ---------------------------------------------------------------------------------


class ConditionReader:
    """Reads the conditions of a data set's frames or clips, and checks them.

    Args:
        spec: the data set.
        home: its home folder.
        num_frames: F that every clip has; 1: images; None: what a clip's motion field says, and the data set's own
            number where none is read.
        used: the optional conditions that are wanted at all. Files of others are never looked at: they are dropped,
            and without a motion field nothing moves, so each point's trajectory stays where it is.
        prior_dir: folder of the image priors, if not the data set's.
        motion_dir: folder of the motion fields, likewise.
        trajectory_dir: folder of the trajectories, likewise.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        home: str | Path,
        *,
        num_frames: int | None = None,
        used: Iterable[str] = OPTIONAL,
        prior_dir: str | Path | None = None,
        motion_dir: str | Path | None = None,
        trajectory_dir: str | Path | None = None,
    ) -> None:
        home = Path(home)
        self.spec, self.num_frames, self.used = spec, num_frames, frozenset(used)
        self.prior_dir = Path(prior_dir or home / spec.priors_dir)
        self.motion_dir = Path(motion_dir or home / spec.motion_dir)
        self.trajectory_dir = Path(trajectory_dir or home / spec.trajectories_dir)

    def prior_path(self, name: str) -> Path:
        """The image prior of the frame, or of the first frame of the clip, called ``name``."""
        frame = name if self.num_frames == 1 else self.spec.first_frame(name)
        return self.prior_dir / f"{frame}.npy"

    def prior(self, name: str, *, mmap: bool = False) -> np.ndarray:
        """(256, 64, 64), in the precision it is stored in."""
        return load_npy(self.prior_path(name), PRIOR_SHAPE, mmap=mmap, remedy=self._remedy("image_priors"))

    def motion(self, name: str, *, mmap: bool = False) -> np.ndarray:
        """(F-1, 2, 256, 256) float32."""
        path = self.motion_dir / f"{name}.npy"
        return load_field(path, self.num_frames, mmap=mmap, remedy=self._remedy("motion_field_trajs"))

    def trajectories(self, name: str, num_frames: int) -> np.ndarray:
        """(F*1024, F) int32."""
        path = self.trajectory_dir / f"{name}.npy"
        return load_trajectories(path, num_frames, remedy=self._remedy("motion_field_trajs"))

    def read(self, clip: Clip, dropped: Iterable[str] = ()) -> ClipConditions:
        """The conditions of ``clip``, a row of the metadata, without those ``dropped``: their files are not read.

        Raises:
            UserError: a file is missing or damaged, or does not fit the others.
        """
        unread = set(dropped) | (OPTIONAL.keys() - self.used)
        motion = trajectories = None
        if self.num_frames != 1:
            motion, trajectories = self._movement(clip.name, "motion_field" in unread)
        prior = torch.empty(PRIOR_SHAPE)
        if "image_prior" not in unread:
            prior = torch.as_tensor(self.prior(clip.name)).float()
        conditions = ClipConditions(self.spec.class_id(clip.cls), clip.text, prior, motion, trajectories)
        return conditions.without(unread)

    def _movement(self, name: str, unread: bool) -> tuple[Tensor, Tensor]:
        """Motion field and trajectories; an ``unread`` field has no contents yet."""
        frames = self.num_frames or self.spec.required_clip_num
        motion = torch.empty(frames - 1, 2, IMAGE_SIZE, IMAGE_SIZE)
        if not unread:
            motion = torch.as_tensor(self.motion(name)).float()
            frames = len(motion) + 1
        index = self.trajectories(name, frames) if "motion_field" in self.used else still(frames)
        return motion, torch.as_tensor(index)

    def check(self, clip: Clip) -> None:
        """Raises a `UserError` if a file that `read` needs is missing or damaged; reads no more than it must."""
        if "image_prior" in self.used:
            self.prior(clip.name, mmap=True)
        if self.num_frames != 1 and "motion_field" in self.used:
            self.trajectories(clip.name, len(self.motion(clip.name, mmap=True)) + 1)

    def _remedy(self, script: str) -> str:
        return f"Run extract_{script}.py for this split, or leave the condition out"
