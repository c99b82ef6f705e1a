"""Stage 1: the VAE, from Stable Diffusion's (docs/method.md, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL

from cond2img.config import VAEConfig
from cond2img.data import FrameBatch, FrameData
from cond2img.latent_codec import sample_posterior, to_uint8, to_unit
from cond2img.models import VAELoss, load_vae
from cond2img.models.vae_loss import VGG_FILE
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.training.config import CONFIGS, default_config
from ctrlgenaug.training.inputs import start_of
from ctrlgenaug.training.order import SampleKey
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.stage import Stage, TrainingStep

SCALING_FRAMES = 64  # training frames that the scaling factor is measured on


def find_lpips_weights(given: str | None) -> Path:
    """The file of VGG16's weights: ``given``, or where torchvision and this project's pages keep it.

    Raises:
        UserError: it is in none of these folders.
    """
    if given:
        return Path(given)
    folders = (Path("weights"), CONFIGS.parent / "weights", Path(torch.hub.get_dir()) / "checkpoints")
    for folder in folders:
        if (folder / VGG_FILE).is_file():
            return folder / VGG_FILE
    raise UserError(
        f"the perceptual loss needs {VGG_FILE} (torchvision's VGG16), which is not in weights/ nor in {folders[-1]}",
        "Put it there, give its path as lpips_weights, or train without it (perceptual_loss=false)",
    )


class VAEStep(TrainingStep):
    """Encode, sample the posterior with the sample's own noise, decode, compare.

    With ``latent_noise`` the decoder learns to make whole pictures of latents that are not quite right, as a diffusion
    model's are (noise-augmented decoding; Zheng et al., "Diffusion Transformers with Representation Autoencoders",
    2025).
    """

    def __init__(self, model: AutoencoderKL, criterion: VAELoss) -> None:
        super().__init__()
        self.model, self.criterion = model, criterion

    def forward(self, batch: FrameBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        pixels = batch.pixels  # (B, 1, 256, 256) in [-1, 1]
        posterior = self.model.encode(pixels).latent_dist
        latents = sample_posterior(posterior.parameters, batch.posterior_noise)  # (B, 4, 32, 32)
        if batch.latent_noise is not None:
            latents = latents + latents.std(dim=(1, 2, 3), keepdim=True) * batch.latent_noise
        reconstruction = self.model.decode(latents.to(pixels.dtype)).sample
        return self.criterion(pixels, reconstruction, posterior)


def freeze_encoder(model: AutoencoderKL) -> None:
    """Leaves the encoder as it is, so that latents go on meaning what they mean."""
    model.encoder.requires_grad_(False)
    model.quant_conv.requires_grad_(False)


class VAEStage(Stage):
    """Trains every weight of the VAE, or, with ``latent_noise``, the decoder's.

    An encoder that learned with noise behind it would make its latents larger.
    """

    folder = "vae"
    config: VAEConfig
    data: FrameData

    def __init__(self, config: VAEConfig) -> None:
        model = load_vae(config.pretrained_model_path, grey="random" if config.grey == "random" else "fold")
        if config.latent_noise:
            freeze_encoder(model)
        if config.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        lpips_weights = find_lpips_weights(config.lpips_weights) if config.perceptual_loss else None
        criterion = VAELoss(lpips_weights, kl_weight=config.kl_weight)
        super().__init__(config, FrameData(config, config.train_split), VAEStep(model, criterion))
        self.test_data = FrameData(config, config.test_split)
        self.next_step = f"Next: sh LDM_train.sh{default_config(config.data_name, 'LDM')}"

    def inputs(self) -> dict[str, str]:
        start = start_of(self.config.pretrained_model_path, self.config.export_dir)
        return {self.data.own_folder(): self.data.content(), "starting VAE": start}

    def prepare(self, accelerator: Accelerator, records: Records) -> None:
        super().prepare(accelerator, records)
        if not self.config.perceptual_loss:
            records.log(
                "WARNING: perceptual_loss=false, so the loss is |x - x'| and KL alone; this is not the method's loss"
            )

    @torch.no_grad()
    def before_save(self) -> None:
        """With ``fit_scaling_factor``, notes in the model's config what brings its latents to unit deviation."""
        if not self.config.fit_scaling_factor:
            return
        spread = np.linspace(0, len(self.data) - 1, min(SCALING_FRAMES, len(self.data))).round()
        moments = torch.cat(
            [
                self.model.encode(self.data.pixels(int(i)).to(self.device)).latent_dist.parameters
                for i in spread
            ]
        )
        mean, logvar = moments.double().chunk(2, dim=1)
        deviation = (mean.var() + logvar.clamp(-30, 20).exp().mean()).sqrt().item()
        self.model.register_to_config(scaling_factor=1 / deviation)

    def read_weights(self, folder: Path) -> dict[str, torch.Tensor]:
        return load_vae(folder).state_dict()

    def _reconstruct(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Originals and reconstructions from the posterior's mode, (N, 256, 256) in [-1, 1]."""
        originals, results = [], []
        for index in indices:
            pixels = self.test_data.pixels(index).to(self.device)
            latents = self.model.encode(pixels).latent_dist.mode()
            originals.append(pixels[:, 0].cpu())
            results.append(self.model.decode(latents).sample[:, 0].float().cpu())
        return torch.cat(originals).numpy(), torch.cat(results).numpy()

    def measure(self) -> dict[str, float]:
        """Means over test frames with latents sampled from the posterior, the same noise each time.

        ``test_rec_loss`` is the published figure, |x - x'| + LPIPS; ``test_l1`` its first part alone. Both are of the
        latents as they are; ``test_l1_noisy``, with ``latent_noise``, of latents with it.
        """
        data, frames = self.test_data, self.config.validation_max_frames or len(self.test_data)
        totals: dict[str, float] = {}
        indices = data.spread(frames)
        for start in range(0, len(indices), self.config.train_batch_size):
            part = indices[start : start + self.config.train_batch_size]
            samples: list[Any] = [data[SampleKey(0, index)] for index in part]
            batch = FrameBatch.join(samples).to(self.device)
            _, clean = self.step_module(replace(batch, latent_noise=None))
            found = {"test_rec_loss": clean["rec"]} if self.config.perceptual_loss else {}
            found["test_l1"] = clean["l1"]
            if batch.latent_noise is not None:
                found["test_l1_noisy"] = self.step_module(batch)[1]["l1"]
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(samples)
        return {name: total / len(indices) for name, total in totals.items()}

    def validate(self, step: int, records: Records) -> None:
        """Test frames over their reconstructions."""
        config, data = self.config, self.test_data
        chosen = data.pick(config.validation_names) or data.spread(config.validation_images)
        real, made = (to_uint8(to_unit(torch.from_numpy(part)).numpy()) for part in self._reconstruct(chosen))
        names = ", ".join(f"{data.rows[index].name} ({data.rows[index].cls})" for index in chosen)
        rows = [(f"test frames: {names}", real), (f"step {step}", made)]
        path = records.folder / "inter_test_results" / f"iter_{step}.png"
        save_picture(path, contact_sheet(rows, IMAGE_SIZE))
        records.log(f"step {step}: test reconstructions in {path}")
