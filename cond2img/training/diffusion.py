"""What the image and the sequence diffusion model's training share: latents, text, noise, target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import nn
from torch.nn import functional

from cond2img.data import DiffusionBatch, LabelledFrameData
from cond2img.latent_codec import LatentCodec
from cond2img.models import load_vae
from cond2img.models.text import load_text
from cond2img.training import steering
from cond2img.training.batch_norm import synchronise_batch_norm
from cond2img.training.validation import ValidationPair, validation_pairs
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import fingerprint_folder
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.training.config import DiffusionConfig
from ctrlgenaug.training.inputs import companion_models, content_of, start_of
from ctrlgenaug.training.latents import cached_moments
from ctrlgenaug.training.order import SampleKey
from ctrlgenaug.training.records import STEERING, Records
from ctrlgenaug.training.stage import Stage, TrainingStep
from ctrlgenaug.training.timesteps import TRAIN_TIMESTEPS
from ctrlgenaug.vae_folders import find_trained_vae


class DiffusionStep(TrainingStep):
    """The mean squared error of the predicted noise or velocity, for frames and clips alike.

    The VAE and the table of texts are set by the stage and are no parameters of this module.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.snr_gamma: float | None = None
        self.set_schedule(NoiseSchedule())
        self.texts = torch.empty(0)  # (texts, 77, 768), one row a distinct caption

    def set_schedule(self, schedule: NoiseSchedule) -> None:
        """Says what the model predicts, and how noise grows with the timestep."""
        self.schedule = DDPMScheduler(**schedule.fields())

    def attach(self, vae: nn.Module) -> None:
        """Keeps the frozen VAE out of the parameters and of data parallelism."""
        object.__setattr__(self, "codec", LatentCodec(vae, frames_at_once=64))

    def latents(self, batch: DiffusionBatch) -> torch.Tensor:
        """(B, F, 4, 32, 32), drawn from the posterior with the samples' own noise."""
        moments, frames = batch.moments, batch.pixels  # (B, F, 8, 32, 32) or (B, F, 1, 256, 256)
        if frames is not None:
            moments = self.codec.moments(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.codec.latents(moments, batch.posterior_noise)

    def predict(self, noisy: torch.Tensor, batch: DiffusionBatch) -> torch.Tensor:
        """The model's output for (B, F, 4, 32, 32) noisy latents, in the same shape."""
        texts = self.texts[batch.caption]  # (B, 77, 768)
        encoded = self.model.condition(texts, batch.conditions, frames=noisy.shape[1], precompute=False)
        output = self.model(noisy.flatten(0, 1), batch.timestep, conditions=encoded).sample
        return output.unflatten(0, noisy.shape[:2])

    def forward(self, batch: DiffusionBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        latents, noise = self.latents(batch), batch.noise
        noisy = self.schedule.add_noise(latents, noise, batch.timestep)
        predicted = self.predict(noisy, batch)
        target = self.target(latents, noise, batch.timestep)
        if self.snr_gamma is None:
            return functional.mse_loss(predicted.float(), target), {}
        errors = (predicted.float() - target).square().flatten(1).mean(1)  # (B,)
        return (self.snr_weights(batch.timestep) * errors).mean(), {}

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the model is to predict, in the shape of ``latents`` (B, F, 4, 32, 32)."""
        if self.schedule.config.prediction_type == "epsilon":
            return noise
        return self.schedule.get_velocity(latents, noise, timesteps)

    def snr_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """Min-SNR weights (B,): the clean latents' error counts min(SNR, gamma) times, whatever the target."""
        snr = compute_snr(self.schedule, timesteps)
        weight = snr.clamp(max=self.snr_gamma)
        return weight / (snr if self.schedule.config.prediction_type == "epsilon" else snr + 1)


class DiffusionStage(Stage):
    """A diffusion model on the trained VAE's latents."""

    config: DiffusionConfig
    data: LabelledFrameData
    test_data: LabelledFrameData
    step_module: DiffusionStep

    def __init__(self, config: DiffusionConfig, data: LabelledFrameData, step_module: DiffusionStep) -> None:
        super().__init__(config, data, step_module)
        self.vae_path = find_trained_vae(
            config.data_name, config.vae_path, config.pretrained_model_path, config.export_dir
        )
        self.schedule = self._settle_schedule()
        step_module.set_schedule(self.schedule)
        step_module.snr_gamma = config.snr_gamma
        if config.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()

    def _settle_schedule(self) -> NoiseSchedule:
        """The noise schedule of the run: the config's where it says something, else that of the weights it starts from.

        It is noted in the config that the run keeps, and in the model's own.
        """
        config = self.config
        found = NoiseSchedule.of_folder(config.pretrained_model_path, self.model.config.prediction_type)
        zero_snr = config.rescale_betas_zero_snr
        try:
            schedule = NoiseSchedule(
                config.prediction_type or found.prediction_type,
                found.rescale_betas_zero_snr if zero_snr is None else zero_snr,
            )
        except ValueError as error:
            raise UserError(str(error), "Mend the config") from None
        self.relearns = f"{found} was learned before, {schedule} from here on" if schedule != found else ""
        config.prediction_type = schedule.prediction_type
        config.rescale_betas_zero_snr = schedule.rescale_betas_zero_snr
        self.model.register_to_config(prediction_type=schedule.prediction_type)
        return schedule

    def inputs(self) -> dict[str, str]:
        start = Path(self.config.pretrained_model_path)
        return {
            self.data.own_folder(): self.data.content(),
            **self.data.made_with(),
            **{what: content_of(path) for what, path in companion_models(self.vae_path, start).items()},
            "starting UNet": start_of(start / "unet", self.config.export_dir),
        }

    def load_companions(self, device: torch.device) -> None:
        """The VAE, and the table of texts that the text encoder leaves."""
        self.vae = load_vae(self.vae_path).requires_grad_(False).eval().to(device)
        self.companions = (self.vae,)
        self.step_module.attach(self.vae)
        captions = sorted({*self.data.captions, *self.test_data.captions})
        self.data.captions = self.test_data.captions = captions
        self.step_module.texts = self._encode_texts().to(device)

    def example(self) -> DiffusionBatch:
        batch: DiffusionBatch = super().example()
        if self.config.cache_latents and batch.moments is None:  # the cache is not made yet
            moments = torch.cat([batch.noise, batch.noise], dim=2)  # their shape
            batch = replace(batch, pixels=None, moments=moments)
        return batch

    def prepare(self, accelerator: Accelerator, records: Records) -> None:
        super().prepare(accelerator, records)
        config = self.config
        if config.enable_sync_batch_norm and accelerator.num_processes > 1:
            synchronise_batch_norm(self.step_module)
        if config.enable_xformers_memory_efficient_attention:
            records.log(
                "note: attention already goes through torch's memory-efficient kernels; xformers is not used"
            )
        if config.cache_latents:
            self.data.moments = cached_moments(
                config.latent_cache_dir or Path(config.output_dir) / "latent_cache",
                self.data,
                self.step_module.codec.moments,
                fingerprint_folder(self.vae_path),
                accelerator,
                records,
            )

        self._report_latents(records)
        pairs, missing = validation_pairs(config.validation_data, (self.test_data, self.data))
        self.pairs: list[ValidationPair] = pairs
        if missing:
            shown = ", ".join(pair.row.name for pair in pairs)
            records.log(
                f"note: validation_data names what no split holds: {', '.join(missing)}; using {shown}"
            )
        if self.relearns:
            records.log(f"note: {self.relearns}")

    @torch.no_grad()
    def _report_latents(self, records: Records) -> None:
        """The latents' deviation: far from 1 means that the scaling factor does not belong to this VAE."""
        moments = [
            torch.as_tensor(np.array(self.data.moments[index]))
            if self.data.moments is not None
            else self.step_module.codec.moments(self.data.pixels(index).to(self.device)).cpu()
            for index in range(min(8, len(self.data)))
        ]
        codec = self.step_module.codec
        latents = codec.latents(torch.stack(moments), torch.zeros(()))
        deviation = latents.std().item()
        records.log(f"latents: deviation {deviation:.2f} after scaling by {codec.scale:.5g}")
        if not 0.3 < deviation < 3:
            records.log(
                "WARNING: the noise schedule expects a deviation of about 1. Check vae_path, or train the VAE with "
                "fit_scaling_factor=true"
            )

    @torch.no_grad()
    def _encode_texts(self) -> torch.Tensor:
        """The text encoder's output for every distinct caption, (texts, 77, 768); computed once."""
        width = self.model.config.cross_attention_dim
        tokenizer, encoder = load_text(self.config.pretrained_model_path, width)
        tokens = tokenizer(
            self.data.captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        encoder = encoder.eval().to(self.device)
        return torch.cat([encoder(row.to(self.device))[0].cpu() for row in tokens.split(64)])

    def measure(self) -> dict[str, float]:
        """The loss of test samples, conditions dropped as in training, their timesteps spread over the schedule."""
        indices = self.test_data.spread(self.config.validation_samples)
        place = torch.randperm(len(indices), generator=torch.Generator().manual_seed(self.config.seed))
        timesteps = ((place + 0.5) * TRAIN_TIMESTEPS / max(1, len(indices))).long()
        losses = []
        for index, timestep in zip(indices, timesteps, strict=True):
            batch = replace(self.test_data[SampleKey(0, index)], timestep=timestep[None])
            losses.append(float(self.step_module(batch.to(self.device))[0]))
        return {"test_loss": sum(losses) / len(losses)} if losses else {}

    def measure_steering(self, step: int, samples_seen: int, records: Records) -> None:
        """Whether the model follows its conditions: rows of steering.csv, and a line for the user."""
        count = self.config.steering_samples
        if not count:
            return
        captions = self.data.captions

        def encode(pixels: torch.Tensor) -> torch.Tensor:  # the posterior's mean: nothing random
            codec = self.step_module.codec
            return codec.latents(codec.moments(pixels), torch.zeros(()))

        def embed(texts: Sequence[str]) -> torch.Tensor:
            return self.step_module.texts[[captions.index(text) for text in texts]]

        def measure(data: LabelledFrameData, timesteps: Sequence[int]) -> list[steering.SteeringRow]:
            samples = steering.collect_samples(data, count, encode, self.device)
            under = steering.conditioned(self.model, embed)
            classes = len(data.spec.classes)
            return steering.measure_steering(
                samples, under, self.step_module.schedule, num_classes=classes, timesteps=timesteps
            )

        test = measure(self.test_data, steering.TIMESTEPS)
        train = measure(self.data, [steering.JUDGED_TIMESTEP])
        for split, rows in (("test", test), ("train", train)):
            columns = {"step": step, "samples": samples_seen, "split": split}
            records.append_rows(STEERING, steering.as_table(rows, **columns))
        if test:
            records.log(f"step {step}: {steering.judge(test)}")
        if advice := steering.hint(test, train, samples_seen):
            records.log(f"hint: {advice}")
