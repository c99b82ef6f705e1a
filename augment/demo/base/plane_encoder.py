"""A VAE encoder with chosen weights: the latents of a block of 8 x 8 pixels are the plane that fits it best.

Four numbers a block: its mean, its slopes to the right and downwards, and its twist. The encoder's layers are
Stable Diffusion's; their residual branches start at zero, and the convolutions between them compute the numbers of
2 x 2, 4 x 4 and 8 x 8 blocks from each other. Training may go on from here; the latents mean something from the start,
which random weights take hours to reach on a CPU.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from torch import Tensor

LEVELS = 3  # downsamplings
NUMBERS = 4  # mean, slope to the right, slope downwards, twist
# Mean of the first and deviations of all over the blocks of phantom patients, grey values being in [-1, 1], so that
# latents are near 0 and 1. (The twist has rare large values; its own deviation is 0.004.)
MEAN = -0.45
DEVIATIONS = (0.5, 0.042, 0.033, 0.006)
OFFSET = 8.0  # the output's SiLU leaves alone what lies this far above zero
ANCHOR = 8.0  # what the output's norm divides by, nearly whatever the picture
LOG_VARIANCE = -8.0  # of the posterior


def _axis_step(half: int) -> Tensor:
    """(2, 2, 2): mean and slope of two neighbouring runs of ``half`` pixels become those of both together.

    Indexed [new, old, which run]; the slope is the sum of position times value over sum of position squared.
    """
    positions = torch.arange(2 * half) - (2 * half - 1) / 2
    local = torch.arange(half) - (half - 1) / 2
    total, own = positions.square().sum(), local.square().sum()
    step = torch.zeros(2, 2, 2)
    step[0, 0] = 0.5
    step[1, 0] = torch.tensor([-1.0, 1.0]) * half * half / 2 / total
    step[1, 1] = own / total
    return step


@torch.no_grad()
def set_plane_encoder(vae: AutoencoderKL) -> None:
    """Sets the encoder's weights, in place; the decoder's stay.

    Args:
        vae: grey, three downsamplings, one layer a level, 4 latent channels, groups of 4 channels at the end.
    """
    encoder = vae.encoder
    for name, module in encoder.named_modules():
        if hasattr(module, "conv_shortcut"):  # a residual block: its branch starts at zero
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
            if module.conv_shortcut is not None:
                module.conv_shortcut.weight.zero_()
                module.conv_shortcut.bias.zero_()
                module.conv_shortcut.weight[:NUMBERS, :NUMBERS, 0, 0] = torch.eye(NUMBERS)
        elif name.endswith("to_out.0"):
            module.weight.zero_()
            module.bias.zero_()
    encoder.conv_in.weight.zero_()
    encoder.conv_in.bias.zero_()
    encoder.conv_in.weight[0, 0, 1, 1] = 1.0  # the pixel; its slopes and twist are zero
    for level in range(LEVELS):
        conv = (
            encoder.down_blocks[level].downsamplers[0].conv
        )  # 3 x 3 of stride 2; its last row and column stay zero
        conv.weight.zero_()
        conv.bias.zero_()
        step = _axis_step(2**level)
        # [new y, new x, old y, old x, row, column]
        both = torch.einsum("abr,cds->acbdrs", step, step).reshape(NUMBERS, NUMBERS, 2, 2)
        conv.weight[:NUMBERS, :NUMBERS, :2, :2] = both
    _set_output(vae)
    vae.register_to_config(scaling_factor=1.0)  # the latents' deviation is 1 as it is


def _set_output(vae: AutoencoderKL) -> None:
    """The encoder's end: a norm and a SiLU that change nothing, and the numbers at unit deviation."""
    encoder = vae.encoder
    groups, channels = encoder.conv_norm_out.num_groups, encoder.conv_norm_out.num_channels
    width = channels // groups
    # Each number goes to its own group, beside its negative and two constants, so that the group's mean is zero and its
    # deviation nearly the constants'. In (y, x) order the numbers are mean, slope right, slope down, twist.
    last = encoder.down_blocks[LEVELS - 1].downsamplers[0].conv
    spread = torch.zeros(channels, last.in_channels, 3, 3)
    constants = torch.zeros(channels)
    for number in range(NUMBERS):
        group, row = number, last.weight[number] / DEVIATIONS[number] / 2
        spread[group * width], spread[group * width + width - 1] = row, -row
        constants[group * width + 1], constants[group * width + 2] = ANCHOR, -ANCHOR
    for group in range(NUMBERS, groups):
        constants[group * width + 1], constants[group * width + 2] = ANCHOR, -ANCHOR
    last.weight.copy_(spread)
    last.bias.copy_(constants)
    deviation = ANCHOR * math.sqrt(2 / width)
    encoder.conv_norm_out.weight.fill_(deviation)
    encoder.conv_norm_out.bias.fill_(OFFSET)
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    encoder.conv_out.bias[:NUMBERS] = -2 * OFFSET / (1 + math.exp(-OFFSET))
    encoder.conv_out.bias[0] -= MEAN / DEVIATIONS[0]
    for group in range(NUMBERS):
        encoder.conv_out.weight[group, group * width, 1, 1] = 2.0
    vae.quant_conv.weight.zero_()
    vae.quant_conv.bias.zero_()
    vae.quant_conv.weight[:NUMBERS, :NUMBERS, 0, 0] = torch.eye(NUMBERS)
    vae.quant_conv.bias[NUMBERS:] = LOG_VARIANCE
