"""Sequences from class, text, image prior, motion field and trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor

from cond2img.guidance import Guidance
from cond2img.models.conditioning import number_points
from cond2img.pipelines.denoising import Callback, Generators, GuidedPipeline
from ctrlgenaug.conditions.clip import ClipConditionsBatch


@dataclass
class SequenceOutput(BaseOutput):
    """Result of the sequence pipeline.

    Args:
        frames: "np": (B, F, H, W) float32 in [0, 1]; "pt": (B, 1, F, H, W); "pil": B lists of F grey pictures;
            "latent": (B, 4, F, h, w).
    """

    frames: np.ndarray | Tensor | list[list[Image.Image]]


class GenVideoPipeline(GuidedPipeline):
    """Generates grey sequences with a `UNet3DMultiConditionModel`."""

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Tensor | Sequence[int] | int,
        image_cond: Tensor | np.ndarray | None = None,
        motion_cond: Tensor | np.ndarray | None = None,
        traj: Tensor | np.ndarray | None = None,
        traj_mask: Tensor | np.ndarray | None = None,
        prompt: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_frames: int = 8,
        height: int = 256,
        width: int = 256,
        num_inference_steps: int = 200,
        guidance_scale: float = 7.5,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "np",
        callback_on_step_end: Callback | None = None,
        guidance_interval: tuple[float, float] | None = None,
        class_contrast: float = 0.0,
        contrast_with: str = "mean",
        return_dict: bool = True,
    ) -> SequenceOutput | tuple[Any]:
        """Generates one sequence a class label.

        Args:
            class_labels: B class ids.
            image_cond: (B, 256, 64, 64) image priors; None leaves the image branch out of both guidance branches.
            motion_cond: (B, 2, F - 1, height, width) motion fields in pixels; None: no motion in either branch.
            traj: (B, F * 32 * 32, L, 3) trajectories, integers; None: no motion field attention.
            traj_mask: (B, F * 32 * 32, L) bool.
            prompt: one text for all samples, or B texts; None: "".
            prompt_embeds: (1 or B, T, D) in place of ``prompt``.
            negative_prompt_embeds: (1 or B, T, D) of the unconditional branch; None: of "".
            num_frames: F.
            height, width: in pixels.
            num_inference_steps: denoising steps.
            guidance_scale: 1 or less: no guidance.
            generator: one for all samples, drawn from in order, or B of them.
            latents: (B, 4, F, height / 8, width / 8) standard normal noise in place of the generators'.
            output_type: "np", "pt", "pil" or "latent".
            callback_on_step_end: called with (pipeline, step, timestep, {"latents": ...}); may return new latents.
            guidance_interval: (low, high) timesteps with guidance, of 0 to 999; None: all.
            class_contrast: guidance away from the other classes; 0: none. See `Guidance`.
            contrast_with: "mean" or "nearest" of them.
            return_dict: False returns a tuple.

        Raises:
            ValueError: a condition has the wrong shape, or text is needed and there is no text encoder.
        """
        labels = self._labels(class_labels)
        texts = self._prompts(prompt, prompt_embeds, len(labels))
        prior, motion, points, mask = (
            None if value is None else torch.as_tensor(value)
            for value in (image_cond, motion_cond, traj, traj_mask)
        )
        if motion is not None:
            motion = motion.transpose(1, 2)  # (B, F-1, 2, H, W)
        numbers = None if points is None else number_points(points, mask, num_frames)
        frames = self.sample(
            ClipConditionsBatch(labels, texts, prior, motion, numbers),
            (num_frames, height, width),
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            num_inference_steps=num_inference_steps,
            guidance=Guidance(guidance_scale, guidance_interval, class_contrast, contrast_with),
            generator=generator,
            latents=latents,
            callback=callback_on_step_end,
            output_type=output_type,
        )
        return SequenceOutput(frames=frames) if return_dict else (frames,)
