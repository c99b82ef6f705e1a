"""The sampled clips as training samples: a labelled frame's, and what moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cond2img.data import LabelledFrameData
from cond2video.config import SequenceConfig
from ctrlgenaug.conditions.trajectories import load_trajectories
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import load_npy
from ctrlgenaug.training.order import Draw
from ctrlgenaug.video import read_video


class LabelledClipData(LabelledFrameData):
    """Clips with conditions, noise and timestep: what the sequence diffusion model trains on."""

    config: SequenceConfig
    condition_names = ("image_prior", "motion_field")

    def __init__(self, config: SequenceConfig, split: str) -> None:
        super().__init__(config, split)
        self.motion_dir = Path(config.motion_field_dir or self.home / self.spec.motion_dir)
        self.trajectory_dir = Path(config.trajectory_dir or self.home / self.spec.trajectories_dir)

    def own_folder(self) -> str:
        return self.spec.clips_dir

    @property
    def num_frames(self) -> int:
        return self.config.num_frames

    def frames(self, index: int) -> np.ndarray:
        frames = read_video(self.file(index), self.num_frames)
        if frames.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise UserError(
                f"has frames of {frames.shape[1:]}, expected {IMAGE_SIZE} x {IMAGE_SIZE}",
                "Run the sampling step for this case again",
                self.file(index),
            )
        return frames

    def prior_path(self, index: int) -> Path:
        """A clip's prior is its first frame's."""
        return self.prior_dir / f"{self.spec.first_frame(self.rows[index].name)}.npy"

    def motion(self, index: int, *, mmap: bool = False) -> np.ndarray:
        """The clip's motion field, (F - 1, 2, 256, 256): pixels from the frame before, x then y."""
        path = self.motion_dir / f"{self.rows[index].name}.npy"
        shape = (self.num_frames - 1, 2, IMAGE_SIZE, IMAGE_SIZE)
        return load_npy(path, shape, mmap=mmap, remedy="Run extract_motion_field_trajs.py for this split")

    def trajectories(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The clip's trajectories, (F * 1024, F, 3) int64, and their mask, (F * 1024, F) bool."""
        path = self.trajectory_dir / f"{self.rows[index].name}.npy"
        points, mask = load_trajectories(path, self.num_frames)
        return torch.as_tensor(points, dtype=torch.int64), torch.as_tensor(mask, dtype=torch.bool)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """`LabelledFrameData`'s sample with ``motion_field`` (2, F - 1, 256, 256), ``traj`` and ``traj_mask``.

        The trajectories stay where the field is dropped, as in generation's unconditional branch.
        """
        item = super().__getitem__(draw)
        shape = (2, self.num_frames - 1, IMAGE_SIZE, IMAGE_SIZE)
        if "motion_field" in self.kept(draw):
            field = np.ascontiguousarray(self.motion(draw.index).transpose(1, 0, 2, 3), dtype=np.float32)
            item["motion_field"] = torch.from_numpy(field)
        else:
            item["motion_field"] = torch.zeros(shape)
        item["traj"], item["traj_mask"] = self.trajectories(draw.index)
        return item

    def check_sample(self, index: int) -> None:
        super().check_sample(index)
        self.motion(index, mmap=True)
        self.trajectories(index)
