"""Residual blocks and the levels of the UNet, for images and sequences alike: tensors stay (B*F, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cond2img.models.attention import SpatialTransformer
from cond2img.models.conditioning import Conditioning

TransformerFactory = Callable[[int], SpatialTransformer]
"""Makes the transformer of a level from its channels."""


class FramesGroupNorm(nn.GroupNorm):
    """Group norm whose statistics run over all frames of a sample together (method, section 5)."""

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        if frames == 1:
            return super().forward(x)
        # In channels-last memory the frames of a sample lie below one another as one tall picture: no copy.
        count, channels, height, width = x.shape
        tall = x.permute(0, 2, 3, 1).reshape(count // frames, frames * height, width, channels)
        tall = super().forward(tall.permute(0, 3, 1, 2))  # (B, C, F*H, W)
        return tall.permute(0, 2, 3, 1).reshape(count, height, width, channels).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3 conv, plus time and class; norm, SiLU, 3x3 conv; plus the input."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FramesGroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = FramesGroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, conditions: Conditioning) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C', H, W)."""
        y = self.conv1(F.silu(self.norm1(x, conditions.frames)))
        time = self.time_emb_proj(conditions.time)  # (B, C')
        y = y + time.repeat_interleave(conditions.frames, dim=0)[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y, conditions.frames)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Level(nn.Module):
    """What the levels share: residual blocks, their transformers, and gradient checkpointing."""

    def __init__(self, resnets: list[ResidualBlock], transformers: list[SpatialTransformer]) -> None:
        super().__init__()
        self.gradient_checkpointing = False  # diffusers' enable_gradient_checkpointing sets it
        if transformers:
            self.attentions = nn.ModuleList(transformers)
        self.resnets = nn.ModuleList(resnets)

    def run(self, layer: nn.Module, x: Tensor, conditions: Conditioning) -> Tensor:
        """``layer(x, conditions)``; with gradient checkpointing its inside is computed again on the way back."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(layer, x, conditions)
        return layer(x, conditions)

    def run_pair(self, number: int, x: Tensor, conditions: Conditioning) -> Tensor:
        """Residual block ``number`` and, where the level has them, its transformer."""
        x = self.run(self.resnets[number], x, conditions)
        return self.run(self.attentions[number], x, conditions) if hasattr(self, "attentions") else x


class DownLevel(_Level):
    """Residual blocks with or without transformers, then half the size (except at the lowest level)."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        transformer: TransformerFactory | None,
        downsample: bool,
        **norm: Any,
    ) -> None:
        widths = [in_channels] + [channels] * (layers - 1)
        super().__init__(
            [ResidualBlock(width, channels, **norm) for width in widths],
            [transformer(channels) for _ in widths] if transformer else [],
        )
        if downsample:
            self.downsamplers = nn.ModuleList([Downsample(channels)])

    def forward(self, x: Tensor, conditions: Conditioning) -> tuple[Tensor, list[Tensor]]:
        """Returns the result and every map that a skip connection carries over to the other side."""
        skips = []
        for number in range(len(self.resnets)):
            x = self.run_pair(number, x, conditions)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class UpLevel(_Level):
    """Residual blocks on [x, skip], with or without transformers, then double the size (except at the top)."""

    def __init__(
        self,
        below: int,
        channels: int,
        above: int,
        layers: int,
        transformer: TransformerFactory | None,
        upsample: bool,
        **norm: Any,
    ) -> None:
        widths = [below] + [channels] * (layers - 1)
        skips = [channels] * (layers - 1) + [above]
        super().__init__(
            [ResidualBlock(a + b, channels, **norm) for a, b in zip(widths, skips, strict=True)],
            [transformer(channels) for _ in widths] if transformer else [],
        )
        if upsample:
            self.upsamplers = nn.ModuleList([Upsample(channels)])

    def forward(self, x: Tensor, skips: list[Tensor], conditions: Conditioning) -> Tensor:
        """Takes its maps from the end of ``skips``, as many as there are; a pair without one is left out."""
        for number in range(min(len(self.resnets), len(skips))):
            x = self.run_pair(number, torch.cat([x, skips.pop()], dim=1), conditions)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x

    def last_pair(self, x: Tensor, skip: Tensor, conditions: Conditioning) -> Tensor:
        """The last residual block and its transformer alone."""
        return self.run_pair(len(self.resnets) - 1, torch.cat([x, skip], dim=1), conditions)


class MidLevel(_Level):
    """Residual block, transformer, residual block at the smallest size."""

    def __init__(self, channels: int, transformer: TransformerFactory, **norm: Any) -> None:
        super().__init__(
            [ResidualBlock(channels, channels, **norm) for _ in range(2)], [transformer(channels)]
        )

    def forward(self, x: Tensor, conditions: Conditioning) -> Tensor:
        """(B*F, C, H, W) -> (B*F, C, H, W)."""
        x = self.run_pair(0, x, conditions)
        return self.run(self.resnets[1], x, conditions)
