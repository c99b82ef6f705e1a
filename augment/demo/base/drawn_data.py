"""Drawn patients as training samples: no folders, no classes, and in place of a prior the frame that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from augment.demo.base.store import Motion
from cond2img.data import LabelledFrameData
from cond2img.data.frames import LATENT_SHAPE, DiffusionBatch, FrameData
from ctrlgenaug import datasets
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.conditions.trajectories import expand
from ctrlgenaug.datasets import Clip
from ctrlgenaug.training.config import DiffusionConfig, TrainingConfig
from ctrlgenaug.training.order import SampleKey


@dataclass(frozen=True)
class DrawnBatch(DiffusionBatch):
    """B samples without class, and in place of priors what the step makes them of, a batch at once.

    Attributes:
        prior_frame: (B, 256, 256) uint8.
        keeps_prior: (B,) bool; False: the prior is dropped.
    """

    prior_frame: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    keeps_prior: torch.Tensor = field(default_factory=lambda: torch.empty(0))


class DrawnPictures(FrameData):
    """For the VAE: patient by patient the eight frames of its clip.

    Args:
        config: of the run.
        drawn: (patients, 8, 256, 256) uint8.
        texts: of the patients.
    """

    def __init__(self, config: TrainingConfig, drawn: np.ndarray, texts: Sequence[str]) -> None:
        self.config, self.split, self.spec = config, "drawn", datasets.get(config.data_name)
        self.drawn = drawn
        self.rows = [
            Clip(name, name, "", text) for i, text in enumerate(texts) for name in self._names(f"patient{i}")
        ]

    def _names(self, patient: str) -> list[str]:
        return [f"{patient}_{number}" for number in range(self.drawn.shape[1])]

    def file(self, index: int) -> Path:
        return Path(self.rows[index].file_name)

    def frames(self, index: int) -> np.ndarray:
        patient, number = divmod(index, self.drawn.shape[1])
        return np.array(self.drawn[patient, number : number + 1])

    def check(self) -> None:
        """Nothing can be missing."""


class DrawnFrames(DrawnPictures, LabelledFrameData):
    """For the image UNet: a frame with its own prior and its patient's text.

    Args:
        config, drawn, texts: see `DrawnPictures`.
        moments: (patients, 8, 8, 32, 32), the VAE's, frame by frame.
    """

    config: DiffusionConfig

    def __init__(
        self, config: DiffusionConfig, drawn: np.ndarray, texts: Sequence[str], moments: np.ndarray
    ) -> None:
        super().__init__(config, drawn, texts)
        self.captions = sorted({"", *texts})
        self.moments = moments.reshape(len(self.rows), -1, *moments.shape[2:])

    def made_with(self) -> dict[str, str]:
        """Nothing: the conditions are drawn with the frames, and no folder's settings made them."""
        return {}

    def movement(self, key: SampleKey) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Motion field (1, F-1, 2, 256, 256) and trajectories (1, F*1024, F) of a sample; None for a frame."""
        return None, None

    def __getitem__(self, key: SampleKey) -> DrawnBatch:
        """A batch of one sample."""
        kept, index = self.kept(key), key.index
        shape = (1, self.num_frames, *LATENT_SHAPE)
        return DrawnBatch(
            names=(self.rows[index].file_name,),
            conditions=ClipConditionsBatch(None, (), None, *self.movement(key)),
            caption=torch.tensor([self.captions.index(self.rows[index].text if kept else "")]),
            timestep=self.timestep(key)[None],
            noise=torch.randn(shape, generator=self.generator(key, "noise")),
            posterior_noise=torch.randn(shape, generator=self.generator(key, "posterior")),
            moments=torch.from_numpy(np.array(self.moments[index]))[None],  # type: ignore[index]
            prior_frame=torch.from_numpy(self.frames(index)[:1]),
            keeps_prior=torch.tensor(["image_prior" in kept]),
        )


class DrawnClips(DrawnFrames):
    """For the sequence UNet: a clip, its first frame's prior, its motion.

    Args:
        config, drawn, texts, moments: see `DrawnFrames`.
        motion: of the clips.
    """

    condition_names = ("image_prior", "motion_field")

    def __init__(
        self,
        config: DiffusionConfig,
        drawn: np.ndarray,
        texts: Sequence[str],
        moments: np.ndarray,
        motion: Motion,
    ) -> None:
        super().__init__(config, drawn, texts, moments)
        self.motion = motion

    def _names(self, patient: str) -> list[str]:
        return [patient]

    @property
    def num_frames(self) -> int:
        return self.drawn.shape[1]

    def frames(self, index: int) -> np.ndarray:
        return np.array(self.drawn[index])

    def movement(self, key: SampleKey) -> tuple[torch.Tensor, torch.Tensor]:
        field = torch.from_numpy(self.motion.field(key.index))[None]
        kept = "motion_field" in self.kept(key)
        lines = torch.as_tensor(expand(self.motion.tracks[key.index]))[None]
        return field if kept else torch.zeros_like(field), lines
