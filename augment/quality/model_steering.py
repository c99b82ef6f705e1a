"""Whether a trained model follows its conditions, measured on a folder of ours or of the published code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cond2img.config import LDMConfig
from cond2img.data import LabelledFrameData
from cond2img.latent_codec import LatentCodec
from cond2img.models import UNet2DMultiConditionModel, load_vae
from cond2img.models.text import load_text
from cond2img.pipelines.solvers import make_scheduler
from cond2img.training.steering import TIMESTEPS, SteeringRow, collect_samples, conditioned, measure_steering
from cond2video.config import SequenceConfig
from cond2video.data import LabelledClipData
from cond2video.model_folder import find_model_folder, trained_with_text
from cond2video.models import UNet3DMultiConditionModel
from ctrlgenaug.conditions.motion_extraction import require_followed
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.vae_folders import find_vae


@dataclass(frozen=True)
class ModelChoice:
    """Which model is measured.

    Attributes:
        sequence: the sequence model's folder; None: the image model is measured.
        image: ``pretrained_2d_model_[data]``, with VAE, text encoder, tokenizer, scheduler and the image UNet; None:
            all of them but the image UNet are in ``sequence``.
        vae: another VAE's folder.
    """

    sequence: str | None = None
    image: str | None = None
    vae: str | None = None

    def __post_init__(self) -> None:
        if not (self.sequence or self.image):
            raise UserError("no model is named", "Give --sequence_model_path or --image_model_path")


def measure_model(
    choice: ModelChoice,
    spec: DatasetSpec,
    *,
    split: str = "test",
    count: int = 24,
    data_root: str = ".",
    device: str = "cpu",
    timesteps: Sequence[int] = TIMESTEPS,
    batch_size: int = 4,
) -> list[SteeringRow]:
    """Errors of the clean latents with own, another's and no condition, of real samples that a data set's folders hold.

    Raises:
        UserError: a folder is not such a model's, has another number of classes, or a sample's files are missing; there
            is nothing to compare; or the model's answers are no numbers.
    """
    unet, companions, vae_path = _find_and_load(choice, spec)
    unet = unet.eval().requires_grad_(False).to(device)
    codec = LatentCodec(load_vae(vae_path).eval().requires_grad_(False).to(device))
    tokenizer, encoder = load_text(companions, unet.config.cross_attention_dim)
    encoder = encoder.eval().to(device)

    def encode(pixels: Tensor) -> Tensor:
        return codec.latents(codec.moments(pixels), torch.zeros(()))

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        ).input_ids
        return encoder(tokens.to(device))[0]

    fields: dict[str, Any] = {
        "data_name": spec.data_name,
        "data_root": data_root,
        "pretrained_model_path": str(companions),
        "output_dir": "",
        "caption_column": "text"
        if spec.has_text and trained_with_text(choice.sequence or companions)
        else None,
    }
    data = (
        LabelledClipData(SequenceConfig(**fields), split)
        if choice.sequence
        else LabelledFrameData(LDMConfig(**fields), split)
    )
    if choice.sequence and unet.config.prior_follows_motion:
        require_followed(data.home / spec.motion_dir)
    schedule = make_scheduler("ddim", NoiseSchedule.of_folder(companions, unet.config.prediction_type))
    samples = collect_samples(data, count, encode, device)
    rows = measure_steering(
        samples,
        conditioned(unet, embed),
        schedule,
        num_classes=len(spec.classes),
        timesteps=timesteps,
        batch_size=batch_size,
    )
    if not rows:
        raise UserError(
            f"the {split} samples are of one case and one class: there is no other's condition to compare with",
            "Take more of them (--samples), or another --split",
            data.folder,
        )
    if not all(row.finite for row in rows):
        raise UserError(
            "gives answers that are no numbers", "Train it again, or take an earlier checkpoint", companions
        )
    if not samples.partners():
        print("note: all samples are of one case, so only classes and texts are compared", file=sys.stderr)
    return rows


def _find_and_load(choice: ModelChoice, spec: DatasetSpec) -> tuple[UNet2DMultiConditionModel, Path, Path]:
    """The UNet, the folder of its text encoder, tokenizer and scheduler, and the VAE's folder."""
    if choice.sequence:
        folder = find_model_folder(choice.sequence, spec.data_name, choice.vae, choice.image)
        unet = UNet3DMultiConditionModel.from_trained_3d(folder.unet)
        unet.require_classes(spec, folder.unet)
        return unet, folder.companions, folder.vae
    companions = Path(choice.image or "")
    unet = UNet2DMultiConditionModel.from_pretrained_2d(companions, subfolder="unet", load_trained=True)
    unet.require_classes(spec, companions)
    return unet, companions, find_vae(choice.vae or companions, data_name=spec.data_name)
