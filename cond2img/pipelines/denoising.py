"""What the image and the sequence pipeline share: text, noise and the denoising loop."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import torch
from diffusers import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from cond2img.guidance import Guidance
from cond2img.latent_codec import LatentCodec, to_uint8
from cond2img.models.conditioning import Conditioning
from cond2img.pipelines.batch_norm import statistics_of_the_batch
from cond2img.pipelines.caching import DeepFeatures, fresh_steps
from cond2img.pipelines.finite import check_finite
from cond2img.pipelines.pictures import to_pictures
from cond2img.pipelines.windows import blend, context_windows
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.conditions.origins import nearest
from ctrlgenaug.errors import UserError

OUTPUT_TYPES = ("np", "pt", "pil", "latent")
Generators: TypeAlias = torch.Generator | Sequence[torch.Generator] | None
Callback = Callable[[Any, int, int, dict], dict | None]


@dataclass(frozen=True)
class Window:
    """Frames that the UNet sees together.

    Attributes:
        frames: which of the clip's.
        conditions: theirs, of all branches of guidance, B samples each, the conditional branch last.
        deep: what is kept of them between steps.
    """

    frames: slice
    conditions: Conditioning
    deep: DeepFeatures


def initial_noise(
    shape: tuple[int, ...],
    generators: Sequence[torch.Generator | None],
    correlation: float = 0.0,
    device: torch.device | None = None,
    origins: Tensor | None = None,
) -> Tensor:
    """Standard normal noise of ``shape`` (B, 4, F, h, w), each sample's from its own generator, whatever the batch.

    With a correlation c it is sqrt(c) common + sqrt(1 - c) own of each frame: still standard normal, and any two
    frames' is correlated by c (mixed noise, Ge et al., ICCV 2023). With ``origins`` (B, F, 2, H, W) the common noise
    goes with what moves, by whole places; what comes into view has its own.
    """

    def drawn(frames: int) -> Tensor:
        size = (1, shape[1], frames, *shape[3:])
        return torch.cat([randn_tensor(size, one, device, torch.float32) for one in generators])

    own = drawn(shape[2])
    if not correlation:
        return own
    common = drawn(1)
    mixed = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    if origins is None:
        return mixed
    moved, inside = nearest(common[:, :, 0], origins.to(common.device))  # (B, 4, F, h, w), (B, 1, F, h, w)
    mixed = correlation**0.5 * moved + (1 - correlation) ** 0.5 * own
    return torch.where(inside, mixed, own)


class GuidedPipeline(DiffusionPipeline):
    """Base of both pipelines.

    Args:
        vae: 1-channel AutoencoderKL.
        unet: the UNet of images or sequences.
        scheduler: any diffusers scheduler with the model's prediction type; see `make_scheduler`.
        text_encoder, tokenizer: CLIP's; without them the text embeddings must be given.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["text_encoder", "tokenizer"]

    def __init__(
        self, vae: Any, unet: Any, scheduler: Any, text_encoder: Any = None, tokenizer: Any = None
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    # ------------------------------------------------------------------------------------ conditions

    def encode_prompt(self, prompt: str | Sequence[str]) -> Tensor:
        """Text -> (len(prompt), 77, 768) embeddings; a text that is too long is cut.

        Raises:
            ValueError: the pipeline has no text encoder.
        """
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError(
                "this pipeline has no text encoder: give prompt_embeds and negative_prompt_embeds, "
                "or build it with text_encoder and tokenizer"
            )
        prompt = [prompt] if isinstance(prompt, str) else list(prompt)
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    def _text(
        self,
        texts: Sequence[str],
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        guidance: Guidance,
    ) -> tuple[Tensor, Tensor | None]:
        """Text tokens (B, T, D) of the conditional and, where there is one, the unconditional branch."""

        def of_batch(name: str, embeds: Tensor) -> Tensor:
            if embeds.ndim != 3 or embeds.shape[0] not in (1, len(texts)):
                shape = tuple(embeds.shape)
                raise ValueError(f"{name} has shape {shape}, expected (1 or {len(texts)}, T, D)")
            return embeds.expand(len(texts), -1, -1)

        if prompt_embeds is None:
            distinct = list(dict.fromkeys(texts))
            prompt_embeds = self.encode_prompt(distinct)[[distinct.index(text) for text in texts]]
        if guidance.is_free and negative_prompt_embeds is None:
            negative_prompt_embeds = self.encode_prompt("")
        text = of_batch("prompt_embeds", prompt_embeds)
        if not guidance.is_free:
            return text, None
        return text, of_batch("negative_prompt_embeds", negative_prompt_embeds)

    def _prompts(
        self, prompt: str | Sequence[str] | None, prompt_embeds: Tensor | None, batch: int
    ) -> tuple[str, ...]:
        """One text a sample.

        Raises:
            ValueError: both prompts and embeddings are given, or another number of prompts.
        """
        if prompt is not None and prompt_embeds is not None:
            raise ValueError("give prompt or prompt_embeds, not both")
        if prompt is None or isinstance(prompt, str):
            return (prompt or "",) * batch
        if len(prompt) not in (1, batch):
            raise ValueError(f"{len(prompt)} prompts for {batch} samples")
        return tuple(prompt) * (batch // len(prompt))

    def _labels(self, class_labels: Any) -> Tensor:
        """Class ids as a (B,) tensor.

        Raises:
            ValueError: an id is none of the model's classes.
        """
        labels = torch.as_tensor(class_labels, dtype=torch.long).reshape(-1)
        classes = self.unet.config.num_class_embeds
        if classes is not None and not all(0 <= label < classes for label in labels.tolist()):
            raise ValueError(
                f"class_labels are {labels.tolist()}, this model has the classes 0 to {classes - 1}"
            )
        return labels

    def _condition(
        self,
        conditions: ClipConditionsBatch,
        frames: int,
        guidance: Guidance,
        with_text: Tensor,
        without_text: Tensor | None,
        batch_norm: str = "running",
    ) -> Conditioning:
        """Encodes ``conditions`` for the UNet, behind those of guidance's other branches.

        Args:
            conditions: of B samples.
            frames: F.
            guidance: says which branches there are.
            with_text: (B, T, D) tokens of their texts.
            without_text: (B, T, D) tokens of the unconditional branch; None: no guidance.
            batch_norm: "running" or "published", see `Sampling`.
        """
        conditions = conditions.to(self._execution_device, self.unet.dtype)
        branches = guidance.branches(conditions, self.unet.config.num_class_embeds)
        texts = [with_text] * len(branches)
        if without_text is not None:
            texts[0] = without_text
        text = torch.cat(texts).to(self._execution_device, self.unet.dtype)
        everything = reduce(ClipConditionsBatch.followed_by, branches)
        with contextlib.ExitStack() as within:
            if batch_norm == "published" and conditions.prior is not None:
                within.enter_context(statistics_of_the_batch(self.unet.image_proj.bn, len(branches)))
            return self.unet.condition(text, everything, frames)

    # ------------------------------------------------------------------------------------ sampling

    def _initial_latents(
        self,
        shape: tuple[int, ...],
        generator: Generators,
        latents: Tensor | None,
        correlation: float = 0.0,
        origins: Tensor | None = None,
    ) -> Tensor:
        """See `initial_noise`; noise that is given stays as it is."""
        device = self._execution_device
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"latents have shape {tuple(latents.shape)}, expected {shape}")
        if isinstance(generator, (list, tuple)) and len(generator) != shape[0]:
            raise ValueError(f"{len(generator)} generators for {shape[0]} samples")
        if latents is None:
            if not isinstance(generator, (list, tuple)):
                generator = [generator] * shape[0]
            latents = initial_noise(shape, generator, correlation, device, origins)
        return latents.to(device, torch.float32) * self.scheduler.init_noise_sigma

    def _denoise(
        self,
        latents: Tensor,
        windows: Sequence[Window],
        guidance: Guidance,
        steps: int,
        generator: Generators,
        callback: Callback | None,
        fresh: frozenset[int],
    ) -> Tensor:
        """The sampling loop. Nothing in it waits for the device.

        Args:
            latents: noise, (B, F, 4, h, w) float32.
            windows: what is predicted by itself: the whole clip, or overlapping parts of a long one.
            guidance: how strong, and when.
            steps: number of steps.
            generator: for schedulers that add noise.
            callback: called after every step with (pipeline, step, timestep, {"latents": (B, 4, F, h, w)}).
            fresh: the steps at which the UNet's deep features are computed; in between they are kept.
        """
        # The scheduler's own timesteps stay on the CPU: looking a number up there must not wait for the GPU.
        self.scheduler.set_timesteps(steps, device="cpu")
        timesteps = self.scheduler.timesteps
        on_device = timesteps.to(latents.device)
        accepts = inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if "generator" in accepts else {}

        with self.progress_bar(total=len(timesteps)) as progress:
            for step, timestep in enumerate(timesteps):
                x = self.scheduler.scale_model_input(latents, timestep)
                parts = []
                for window in windows:
                    if step in fresh:
                        window.deep.forget()
                    branched = guidance.is_on(float(timestep))
                    parts.append(
                        self._guided(x[:, window.frames], on_device[step], window, guidance, branched)
                    )
                predicted = blend(parts, [window.frames for window in windows])
                latents = self.scheduler.step(predicted, timestep, latents, **extra).prev_sample
                if callback is not None:
                    shown = {"latents": latents.transpose(1, 2)}
                    changed = callback(self, step, int(timestep), shown) or {}
                    latents = changed.get("latents", shown["latents"]).transpose(1, 2)
                progress.update()
        return latents

    def _guided(
        self, x: Tensor, timestep: Tensor, window: Window, guidance: Guidance, branched: bool
    ) -> Tensor:
        """What a step follows within a window, (B, L, 4, h, w): of all branches, or of the conditional one alone."""
        conditions, batch = window.conditions, len(x)
        branches = conditions.batch // batch
        if not branched:
            return self._predict(
                x, timestep, conditions.last(batch) if branches > 1 else conditions, window.deep
            )
        predicted = self._predict(torch.cat([x] * branches), timestep, conditions, window.deep)
        return guidance.combine(predicted.chunk(branches))

    def _predict(
        self, latents: Tensor, timestep: Tensor, conditions: Conditioning, deep: DeepFeatures
    ) -> Tensor:
        """The UNet's prediction for (B, F, 4, h, w) latents, in the same shape, float32."""
        x = latents.flatten(0, 1)
        result = self.unet(x, timestep, conditions=conditions, deep=deep.of_last(len(x)))
        deep.keep(result.deep)
        return result.sample.float().unflatten(0, latents.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, 4, h, w) -> pixels (N, 1, 8h, 8w) in [0, 1], float32 on the CPU."""
        return LatentCodec(self.vae).decode(latents)

    def decode_clips(self, latents: Tensor) -> tuple[Tensor, list[UserError | None]]:
        """Latents (B, F, 4, h, w) -> pixels (B, F, 1, 8h, 8w), and why each sample is not finite, or None."""
        pixels = self.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return pixels, check_finite(self.unet, self.vae, latents, pixels)

    @torch.no_grad()
    def sample(
        self,
        conditions: ClipConditionsBatch,
        size: tuple[int, int, int],
        *,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        num_inference_steps: int = 200,
        guidance: Guidance | None = None,
        generator: Generators = None,
        latents: Tensor | None = None,
        noise_correlation: float = 0.0,
        output_type: str = "np",
        callback: Callback | None = None,
        cache_interval: int = 1,
        cache_center: float | None = None,
        context_length: int | None = None,
        context_stride: int | None = None,
        batch_norm: str = "running",
    ) -> Any:
        """Encodes the conditions of both branches, draws the noise, denoises and decodes it.

        Args:
            conditions: of B samples.
            size: (frames, height, width), in pixels.
            prompt_embeds: (1 or B, T, D) in place of the conditions' texts.
            negative_prompt_embeds: (1 or B, T, D) of the unconditional branch; None: of "".
            num_inference_steps: denoising steps.
            guidance: None: the method's, scale 7.5 at every step.
            generator: one for all samples, drawn from in order, or B of them.
            latents: (B, 4, F, height / 8, width / 8) standard normal noise in place of the generators'.
            output_type: "np", "pt", "pil" or "latent".
            callback: called with (pipeline, step, timestep, {"latents": (B, 4, F, h, w)}); may return new latents.
            noise_correlation, cache_interval, cache_center, context_length, context_stride, batch_norm: see `Sampling`.

        Returns:
            "np": (B, F, H, W) float32 in [0, 1]; "pt": (B, 1, F, H, W); "pil": B lists of F grey pictures; "latent":
            (B, 4, F, h, w).

        Raises:
            ValueError: a condition has the wrong shape, or text is needed and there is no text encoder.
            UserError: a decoded sample is not finite.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"output_type is {output_type!r}, must be one of {', '.join(OUTPUT_TYPES)}")
        guidance = guidance or Guidance()
        frames, height, width = size
        small = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        shape = (len(conditions), self.unet.config.in_channels, frames, *small)
        with_text, without_text = self._text(conditions.text, prompt_embeds, negative_prompt_embeds, guidance)
        self.unet.to(memory_format=torch.channels_last)  # does nothing if it is so already
        windows = []
        for part in context_windows(frames, context_length, context_stride):
            within, length = conditions.within(part, frames), part.stop - part.start
            encoded = self._condition(within, length, guidance, with_text, without_text, batch_norm)
            windows.append(Window(part, encoded, DeepFeatures()))
        follows = self.unet.config.get("prior_follows_motion") and noise_correlation and frames > 1
        places = conditions.all_origins() if follows else None
        noise = self._initial_latents(shape, generator, latents, noise_correlation, places)
        noise = noise.transpose(1, 2)  # (B, F, 4, h, w)
        fresh = fresh_steps(num_inference_steps, cache_interval, cache_center)
        result = self._denoise(noise, windows, guidance, num_inference_steps, generator, callback, fresh)
        result = result.transpose(1, 2) if output_type == "latent" else self._pictures(result, output_type)
        self.maybe_free_model_hooks()
        return result

    def _pictures(self, latents: Tensor, output_type: str) -> Any:
        """Latents (B, F, 4, h, w) decoded, as ``output_type`` says."""
        pixels, errors = self.decode_clips(latents)
        for error in filter(None, errors):
            raise error
        if output_type == "pt":
            return pixels.transpose(1, 2)
        grey = pixels[:, :, 0].numpy()
        return grey if output_type == "np" else to_pictures(to_uint8(grey))
