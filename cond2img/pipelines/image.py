"""Images from class, text and image prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cond2img.guidance import Guidance
from cond2img.pipelines.denoising import Callback, Generators, GuidedPipeline
from cond2img.pipelines.pictures import PictureOutput
from ctrlgenaug.conditions.clip import ClipConditionsBatch


class GenImagePipeline(GuidedPipeline):
    """Generates grey images with a `UNet2DMultiConditionModel`."""

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Tensor | Sequence[int] | int,
        image_cond: Tensor | np.ndarray | None = None,
        prompt: str | Sequence[str] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
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
    ) -> PictureOutput | tuple[Any]:
        """Generates one image a class label.

        Args:
            class_labels: B class ids.
            image_cond: (B, 256, 64, 64) image priors; None leaves the image branch out of both guidance branches.
            prompt: one text for all samples, or B texts; None: "".
            prompt_embeds: (1 or B, T, D) in place of ``prompt``.
            negative_prompt_embeds: (1 or B, T, D) of the unconditional branch; None: of "".
            height, width: in pixels.
            num_inference_steps: denoising steps.
            guidance_scale: 1 or less: no guidance.
            generator: one for all samples, drawn from in order, or B of them.
            latents: (B, 4, height / 8, width / 8) standard normal noise in place of the generators'.
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
        prior = None if image_cond is None else torch.as_tensor(image_cond)
        images = self.sample(  # sequences of one frame
            ClipConditionsBatch(labels, texts, prior),
            (1, height, width),
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            num_inference_steps=num_inference_steps,
            guidance=Guidance(guidance_scale, guidance_interval, class_contrast, contrast_with),
            generator=generator,
            latents=None if latents is None else latents.unsqueeze(2),
            callback=_without_frames(callback_on_step_end),
            output_type=output_type,
        )
        if output_type == "pil":
            images = [frames[0] for frames in images]
        else:
            images = images[:, 0] if output_type == "np" else images.squeeze(2)
        return PictureOutput(images=images) if return_dict else (images,)


def _without_frames(callback: Callback | None) -> Callback | None:
    """``callback`` for latents (B, 4, h, w), as one for those of one-frame sequences (B, 4, 1, h, w)."""
    if callback is None:
        return None

    def call(pipeline: Any, step: int, timestep: int, values: dict) -> dict:
        changed = callback(pipeline, step, timestep, {"latents": values["latents"].squeeze(2)}) or {}
        return {name: value.unsqueeze(2) for name, value in changed.items()}

    return call
