"""The method's three training stages, on drawn patients and without classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from augment.demo.base.drawn_data import DrawnBatch, DrawnClips, DrawnFrames, DrawnPictures
from augment.demo.base.patients import KINDS
from augment.demo.base.plane_encoder import set_plane_encoder
from augment.demo.base.projection import project
from augment.demo.encoder import features
from augment.demo.weights import TEXT_WIDTH, small_vae
from cond2img.config import LDMConfig, VAEConfig
from cond2img.models import UNet2DMultiConditionModel, VAELoss
from cond2img.training.diffusion import DiffusionStage, DiffusionStep
from cond2img.training.ldm import LDMStage
from cond2img.training.steering import clean_latents
from cond2img.training.vae import VAEStage, VAEStep, freeze_encoder
from cond2video.config import SequenceConfig
from cond2video.models import UNet3DMultiConditionModel, mark_finetuned
from cond2video.training.sequence import SequenceStage
from ctrlgenaug.training.official_export import SEQUENCE_ADDITIONS
from ctrlgenaug.training.order import SampleKey
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.stage import Stage

LEVELS = (500, 700, 850, 950)  # timesteps at which steering is measured
MEASURED_AT_ONCE = 8  # samples

UNET = {
    "sample_size": 32,
    # one attention at 32 x 32, where trajectories are followed; the rest further down, where it is cheap
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64, 96, 96),
    "layers_per_block": 1,
    "attention_head_dim": 1,
    "norm_num_groups": 16,
    "cross_attention_dim": TEXT_WIDTH,
    "condition_insert_block": (False, True, True),
}


class BaseVAEStage(VAEStage):
    """Trains the decoder, and leaves the chosen encoder as it is: what its latents mean is settled from the start."""

    def __init__(self, config: VAEConfig, train: DrawnPictures, test: DrawnPictures) -> None:
        torch.manual_seed(config.seed)
        model = small_vae()
        set_plane_encoder(model)
        freeze_encoder(model)
        Stage.__init__(self, config, train, VAEStep(model, VAELoss(None, kl_weight=config.kl_weight)))
        self.test_data = test


class BaseStep(DiffusionStep):
    """Predicts frames or clips from text, image prior and, for clips, motion."""

    def predict(self, noisy: torch.Tensor, batch: DrawnBatch) -> torch.Tensor:  # type: ignore[override]
        found = features(batch.prior_frame.numpy()) * batch.keeps_prior.view(-1, 1, 1, 1)
        texts = self.texts[batch.caption]
        encoded = self.model.condition(texts, batch.conditions, frames=noisy.shape[1], precompute=False)
        encoded = replace(encoded, image=project(self.model.image_proj, found))
        output = self.model(noisy.flatten(0, 1), batch.timestep, conditions=encoded).sample
        return output.unflatten(0, noisy.shape[:2])


class _Unlabelled:
    """What differs from the published stages: no classes, steering in place of pictures."""

    test_data: Any
    step_module: Any

    def validate(self, step: int, records: Records) -> None:
        """No pictures."""

    def measure(self) -> dict[str, float]:
        """Errors of unseen patients' clean latents at four noise levels, by whose prior (motion) the model is given.

        1 would be the error of the latents' mean. Another's is another patient's of the same kind of data set.
        """
        sums: dict[str, float] = {}
        for first in range(0, len(self.test_data), MEASURED_AT_ONCE):
            indices = range(first, min(first + MEASURED_AT_ONCE, len(self.test_data)))
            batch = DrawnBatch.join([self.test_data[SampleKey(0, index)] for index in indices])
            batch = replace(batch, keeps_prior=torch.ones(len(indices), dtype=torch.bool))
            for level in LEVELS:
                for name, error in self._errors(batch, level).items():
                    key = f"test_{name}_{level}"
                    sums[key] = sums.get(key, 0.0) + error * len(indices) / len(self.test_data)
        return sums

    def _errors(self, batch: DrawnBatch, level: int) -> dict[str, float]:
        step, moved = self.step_module, torch.arange(len(batch)).roll(len(KINDS))
        batch = replace(batch, timestep=torch.full((len(batch),), level))
        variants = {
            "own": batch,
            "other": replace(batch, prior_frame=batch.prior_frame[moved]),
            "none": replace(batch, keeps_prior=torch.zeros_like(batch.keeps_prior)),
        }
        own = batch.conditions
        if own.motion is not None and own.trajectories is not None:
            other = replace(own, motion=own.motion[moved], trajectories=own.trajectories[moved])
            variants["other_motion"] = replace(batch, conditions=other)
            still = replace(own, motion=torch.zeros_like(own.motion))
            variants["no_motion"] = replace(batch, conditions=still)
        latents = step.latents(batch)
        noisy = step.schedule.add_noise(latents, batch.noise, batch.timestep)
        alpha_bar, kind = float(step.schedule.alphas_cumprod[level]), step.schedule.config.prediction_type
        errors = {}
        for name, changed in variants.items():
            clean = clean_latents(noisy, step.predict(noisy, changed).float(), alpha_bar, kind)
            errors[name] = float((clean - latents).square().mean())
        return errors


class BaseLDMStage(_Unlabelled, LDMStage):
    """Trains the image UNet from random weights."""

    def __init__(self, config: LDMConfig, train: DrawnFrames, test: DrawnFrames) -> None:
        torch.manual_seed(config.seed)
        model = UNet2DMultiConditionModel(**UNET, prediction_type=config.prediction_type)
        DiffusionStage.__init__(self, config, train, BaseStep(model))
        self.test_data = test


class BaseSequenceStage(_Unlabelled, SequenceStage):
    """Trains what the sequence stage trains, from the image UNet."""

    def __init__(self, config: SequenceConfig, train: DrawnClips, test: DrawnClips) -> None:
        torch.manual_seed(config.seed)
        model = UNet3DMultiConditionModel.from_pretrained_2d(config.pretrained_model_path, subfolder="unet")
        model.register_to_config(**{name: getattr(config, name) for name in SEQUENCE_ADDITIONS})
        mark_finetuned(model, config.trainable_modules)
        DiffusionStage.__init__(self, config, train, BaseStep(model))
        self.test_data = test
