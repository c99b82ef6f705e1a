"""The golden vectors: weights and inputs drawn from names, and small models (docs/method.md, section 8)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch

from cond2img.models import AutoencoderKL, UNet2DMultiConditionModel
from cond2img.models.vae import to_official_spelling
from cond2video.models import UNet3DMultiConditionModel

FOLDER = Path(__file__).resolve().parent.parent / "golden"
SMALL_UNET = {
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
    "num_class_embeds": 3,
}
SMALL_VAE = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 32, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}


def keys(name):
    """Names and shapes of an official state dict: "unet2d", "unet3d", "vae", or a full-size list's file name."""
    full_size = FOLDER / "state_dict_keys" / f"{name}.json"
    if full_size.exists():
        return json.loads(full_size.read_text())
    return json.loads((FOLDER / "A_keys.json").read_text())[name]


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def arr(name, shape):
    return torch.from_numpy(generator(name).standard_normal(shape).astype(np.float32))


def drawn(name, shape):
    a = generator(name).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        a = 1 + 0.1 * np.abs(a)
    elif len(shape) >= 2:
        a = a / np.sqrt(np.float32(np.prod(shape[1:])))
    elif name.endswith("weight"):
        a = 1 + 0.1 * a
    else:
        a = 0.1 * a
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


def official_weights(name):
    """The whole state dict under the official names."""
    return {
        key: torch.zeros((), dtype=torch.long) if key.endswith("num_batches_tracked") else drawn(key, shape)
        for key, shape in keys(name).items()
    }


def unet2d():
    model = UNet2DMultiConditionModel(**SMALL_UNET)
    model.load_state_dict(official_weights("unet2d"))
    return model.eval()


def unet3d():
    model = UNet3DMultiConditionModel(**SMALL_UNET)
    model.load_state_dict(official_weights("unet3d"))
    return model.eval()


def vae():
    model = AutoencoderKL(**SMALL_VAE)
    names = {to_official_spelling(key): key for key in model.state_dict()}
    model.load_state_dict({names[key]: value for key, value in official_weights("vae").items()})
    return model.eval()


def difference(ours, theirs):
    """|ours - theirs| / |theirs|"""
    theirs = torch.as_tensor(theirs).double()
    return ((ours.double() - theirs).norm() / theirs.norm()).item()
