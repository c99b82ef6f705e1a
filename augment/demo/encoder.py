"""The stand-in for MedSAM: a SAM vision encoder with chosen weights, whose output keeps what it sees where it is.

A token sees 16 x 16 of the encoder's 1024 x 1024 pixels, which is 4 x 4 pixels of the frame. Its features are these 16
pixels and 16 sine waves of its position; the transformer block passes them on, and the neck mixes them into 256
channels. It recognises nothing. A small network reads its output within minutes, where that of random weights, which
blur what is where, takes several times as long (docs/steering.md).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctrlgenaug.conditions.medsam import PRIOR_SHAPE

GRID = 64  # tokens along each side
PIXELS = 4  # pixels of the frame along each side of a token
FREQUENCIES = (1.5, 3.0, 6.0, 12.0)  # radians from the middle of the frame to its edge
FEATURES = PIXELS**2 + 4 * len(FREQUENCIES)


def position_waves() -> Tensor:
    """Sine and cosine of a token's row and column at four frequencies, (16, 64, 64) in [-1, 1]."""
    line = torch.linspace(-1, 1, GRID, dtype=torch.float64)
    rows_columns = torch.stack(torch.meshgrid(line, line, indexing="ij"))  # (2, 64, 64)
    waves = [wave(frequency * rows_columns) for wave in (torch.sin, torch.cos) for frequency in FREQUENCIES]
    return torch.cat(waves).float()


def mixing() -> Tensor:
    """How the features become channels, (256, 32): the slowest cosines over the channels but the constant one.

    They are at right angles to each other and have no mean, which the neck's norms would take away.
    """
    channels = PRIOR_SHAPE[0]
    angle = math.pi / channels * (torch.arange(channels, dtype=torch.float64) + 0.5)
    return torch.cos(angle[:, None] * torch.arange(1, FEATURES + 1)).float()


def medsam_encoder(seed: int = 0) -> torch.nn.Module:
    """The stand-in as a Hugging Face SAM vision encoder: images (B, 3, 1024, 1024) in [0, 1] to (B, 256, 64, 64).

    Another seed than 0 puts the channels into another order: another encoder, for tests.
    """
    from transformers import SamVisionConfig, SamVisionModel

    config = SamVisionConfig(
        hidden_size=FEATURES,
        num_hidden_layers=1,
        num_attention_heads=1,
        mlp_dim=FEATURES,
        window_size=4,
        global_attn_indexes=[],
    )
    model = SamVisionModel(config)
    encoder = model.vision_encoder
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # the block's branches add nothing to what they are given
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
        side = 16 // PIXELS  # of the encoder's pixels, for each of the frame's
        pooling = torch.eye(PIXELS**2).view(PIXELS**2, 1, PIXELS, PIXELS)
        pooling = pooling.repeat_interleave(side, 2).repeat_interleave(side, 3) / side**2
        projection = encoder.patch_embed.projection
        projection.weight[: PIXELS**2] = 2 * pooling.expand(-1, 3, -1, -1) / 3
        projection.bias[: PIXELS**2] = -1.0  # grey values [0, 1] become [-1, 1]
        encoder.pos_embed[..., PIXELS**2 :] = position_waves().permute(1, 2, 0)
        order = torch.arange(PRIOR_SHAPE[0])
        if seed:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))
        encoder.neck.conv1.weight.copy_(mixing()[order][..., None, None])
        encoder.neck.conv2.weight[..., 1, 1] = torch.eye(PRIOR_SHAPE[0])
    return model.eval()


@functools.cache
def _pooled_enlargement() -> Tensor:
    """(256, 256): MedSAM's enlargement along one axis, followed by the means that the patch embedding takes."""
    from ctrlgenaug.conditions.medsam import _enlarging_matrix

    return _enlarging_matrix().float().unflatten(0, (-1, PIXELS)).mean(1)


def features(frames: np.ndarray) -> Tensor:
    """What the neck mixes, for frames (B, 256, 256) uint8: (B, 32, 64, 64), each token scaled as the neck's norm does.

    ``mixing() @ features`` is the prior, because the neck's norms take no mean away and their scale is one number a
    token.
    """
    matrix = _pooled_enlargement()
    grey = matrix @ torch.from_numpy(np.ascontiguousarray(frames)).float() @ matrix.T
    low, high = (
        torch.from_numpy(bound(frames, axis=(1, 2))).float()[:, None, None] for bound in (np.min, np.max)
    )
    pixels = 2 * (grey - low) / (high - low).clamp(min=1e-8) - 1
    found = functional.pixel_unshuffle(pixels[:, None], PIXELS)  # (B, 16, 64, 64)
    found = torch.cat([found, position_waves().expand(len(found), -1, -1, -1)], 1)
    power = mixing().square().mean(0)[:, None, None]  # of a feature in the mean over the channels
    return found / (found.square() * power).sum(1, keepdim=True).add(1e-6).sqrt()


def priors(frames: np.ndarray) -> Tensor:
    """What the encoder makes of frames (B, 256, 256) uint8, (B, 256, 64, 64), without its convolutions: a few ms each.

    Equal to ``medsam_encoder()(prepare(frames))`` but for the grey levels that the preparation cuts off.
    """
    tokens = features(frames).flatten(2).transpose(1, 2) @ mixing().T  # (B, 4096, 256)
    return tokens.transpose(1, 2).unflatten(2, (GRID, GRID))  # channels last in memory
