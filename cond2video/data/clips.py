"""The sampled clips as training samples: a labelled frame's, and what moves."""

from __future__ import annotations

import numpy as np

from cond2img.data import LabelledFrameData
from cond2video.config import SequenceConfig
from ctrlgenaug.conditions.clip import ConditionReader
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video


class LabelledClipData(LabelledFrameData):
    """Clips with conditions, noise and timestep: what the sequence diffusion model trains on."""

    config: SequenceConfig
    condition_names = ("image_prior", "motion_field")

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

    def case(self, index: int) -> str:
        return self.spec.parse_clip(self.rows[index].name)[0]

    def make_reader(self, used: set[str]) -> ConditionReader:
        return ConditionReader(
            self.spec,
            self.home,
            num_frames=self.num_frames,
            used={*self.used_conditions, *used},
            prior_dir=self.config.image_prior_dir,
            motion_dir=self.config.motion_field_dir,
            trajectory_dir=self.config.trajectory_dir,
        )
