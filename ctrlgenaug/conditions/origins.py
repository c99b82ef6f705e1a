"""Where in a clip's first frame the tissue of each later frame was, by its motion field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 4  # pixels: the side of the smallest block of a video encoder that has a motion vector of its own


def origins(motion: Tensor) -> Tensor:
    """Follows each place of each frame back to frame 0.

    What is at p in frame f was at p - motion_f(p) in frame f - 1, and so on back. Beyond the picture's edge the field
    is the edge's.

    Args:
        motion: (B, F-1, 2, H, W) pixels moved since the frame before, channel 0 = x; H and W multiples of 4.

    Returns:
        (B, F, 2, H / 4, W / 4) float32: pixels by which the middle of each cell of 4 x 4 pixels was elsewhere in frame
        0, channel 0 = x. Zero where nothing moved, and in frame 0.
    """
    steps = F.avg_pool2d(motion.float().flatten(0, 1), CELL).unflatten(0, motion.shape[:2])
    here = torch.zeros_like(steps[:, 0])  # (B, 2, h, w)
    found = [here]
    for step in steps.unbind(1):
        here = sample(here, -step) - step
        found.append(here)
    return torch.stack(found, 1)


def sample(maps: Tensor, shift: Tensor) -> Tensor:
    """``maps`` at shifted places, between which they are interpolated; beyond the edge they are the edge's.

    Args:
        maps: (N, C, h, w).
        shift: (N, 2, h', w') pixels, h' and w' multiples of h and w; a cell of h' and w' has 4 pixels a side.

    Returns:
        (N, C, h, w): at each place what ``maps`` has ``shift``, averaged over the place, further on.
    """
    height, width = maps.shape[2:]
    pixels = torch.tensor([shift.shape[3], shift.shape[2]], device=maps.device) * CELL
    shift = F.adaptive_avg_pool2d(shift, (height, width)).permute(0, 2, 3, 1)  # (N, h, w, 2)
    rows = (torch.arange(height, device=maps.device) + 0.5) * 2 / height - 1
    columns = (torch.arange(width, device=maps.device) + 0.5) * 2 / width - 1
    middles = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (h, w, 2) in [-1, 1], x first
    places = middles + shift * (2 / pixels)  # in float32: bfloat16 places would be off by pixels
    found = F.grid_sample(maps.float(), places, padding_mode="border", align_corners=False)
    return found.to(maps.dtype)


def nearest(maps: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """``maps`` at shifted places, each whole: what is noise stays noise of the same deviation.

    Args:
        maps: (B, C, h, w).
        shift: (B, F, 2, h', w') as of `origins`, h' and w' multiples of h and w.

    Returns:
        (B, C, F, h, w) and whether the place shifted to is inside, (B, 1, F, h, w) bool.
    """
    batch, channels, height, width = maps.shape
    frames = shift.shape[1]
    places = F.adaptive_avg_pool2d(shift.flatten(0, 1), (height, width)) * (height / (shift.shape[-2] * CELL))
    rows = torch.arange(height, device=maps.device)[:, None] + places[:, 1].round().long()
    columns = torch.arange(width, device=maps.device) + places[:, 0].round().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (B*F, h, w)
    index = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).view(batch, 1, -1)
    found = maps.flatten(2).gather(2, index.expand(-1, channels, -1))
    return found.view(batch, channels, frames, height, width), inside.view(batch, 1, frames, height, width)
