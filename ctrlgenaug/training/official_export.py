"""An exported folder as the published code loads it: ``.bin`` weights, its config fields, its VAE's loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.tensor_files import DIFFUSERS, read_folder, weight_files

# Fields without which the published UNets cannot be built.
UNET_FIELDS = {"image_condition": True, "image_encode": "MedSAM"}
IMAGE_FIELDS = {"insert_strategy": None}
SEQUENCE_FIELDS = {"insert_strategy": "concat", "self_attn_mode": "SAM", "motion_condition": True}

# What a sequence UNet may be trained to beyond the published one, by a config field alone: no weight tells of it.
SEQUENCE_ADDITIONS = {
    "frame_positions": "knows the frames' places",
    "prior_follows_motion": "takes the image prior along the motion field",
}

OURS = {"prediction_type", *SEQUENCE_ADDITIONS}  # fields that the published UNets do not have


def write_officially(folder: str | Path) -> list[Path]:
    """Rewrites the VAE and the UNets in ``folder``, an exported model folder or one model's, in place.

    Weights become ``diffusion_pytorch_model.bin``, the only kind that the published code reads, and config.json gets
    the fields that it asks for. The VAE's weights get ``vae_loss.logvar``, which its strict load wants; the perceptual
    loss, whose VGG16 it looks for as well, is not this project's to copy. All of it loads here as before.

    Returns:
        The model folders rewritten.

    Raises:
        UserError: no model there, a damaged one, or one that does what the published code does not.
    """
    folder = Path(folder)
    models = [path.parent for path in sorted(folder.glob("**/config.json")) if weight_files(path.parent)]
    if not models:
        raise UserError("holds no model", "Export one first", folder)
    configs = {model: read_json(model / "config.json") for model in models}
    for model, config in configs.items():  # all of them before one is touched
        if not isinstance(config, dict):
            raise UserError("is not a model's config", "Export it again", model / "config.json")
        for name, does in SEQUENCE_ADDITIONS.items():
            if config.get(name):
                what = f"{does} ({name}), which the published code does not"
                raise UserError(what, "Train one without to use it there", model)
    for model in models:
        config, weights = _as_published(configs[model], read_folder(model))
        with atomic_path(model / f"{DIFFUSERS[0]}.bin") as temporary:
            torch.save(weights, temporary)
        write_json(model / "config.json", config)
        for file in weight_files(model):  # safetensors would be found first from now on
            if file.suffix == ".safetensors":
                file.unlink()
    return models


def _as_published(
    config: dict[str, Any], weights: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if "quant_conv.weight" in weights:
        return config, {"vae_loss.logvar": torch.zeros(())} | weights
    sequence = any("motion_encoder" in name or "attn_temp" in name for name in weights)
    config = {name: value for name, value in config.items() if name not in OURS}
    fields = UNET_FIELDS | (SEQUENCE_FIELDS if sequence else IMAGE_FIELDS)
    if not sequence:  # the sequence stage's lines, which its users add to the image model's config by hand
        config = {name: value for name, value in config.items() if name not in SEQUENCE_FIELDS}
    if sequence and not any("motion_encoder" in name for name in weights):
        fields = fields | {"motion_condition": False}
    return config | fields, weights
