"""Clips longer than those of training: windows of the trained length that overlap, and their predictions as one.

At every denoising step each window is predicted by itself, and where windows overlap their predictions are averaged
(MultiDiffusion, Bar-Tal et al., ICML 2023). All windows see the same latents there, so the clip stays one sample of one
noise. Length, stride and weights are called and placed as in diffusers' FreeNoise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def context_windows(frames: int, length: int | None, stride: int | None = None) -> tuple[slice, ...]:
    """The frames of each window.

    Args:
        frames: F of the clip.
        length: frames of a window; None, or F and more: one window, the whole clip.
        stride: frames from the start of a window to that of the next; None: half of ``length``. The last window ends
            with the clip, so its distance may be shorter.
    """
    if length is None or frames <= length:
        return (slice(0, frames),)
    starts = [*range(0, frames - length, stride or max(1, length // 2)), frames - length]
    return tuple(slice(start, start + length) for start in starts)


def blend(parts: Sequence[Tensor], windows: Sequence[slice]) -> Tensor:
    """One prediction of the windows' own.

    Args:
        parts: a prediction (B, L, 4, h, w) a window.
        windows: their frames.

    Returns:
        (B, F, 4, h, w): the mean, weighted by a pyramid (1, 2, ..., 2, 1 over a window), so that a window's share fades
        in and out over the overlap. A frame of one window alone is that window's.
    """
    if len(windows) == 1:
        return parts[0]
    first, frames = parts[0], windows[-1].stop
    total = first.new_zeros(len(first), frames, *first.shape[2:])
    weights = first.new_zeros(frames, 1, 1, 1)
    for part, window in zip(parts, windows, strict=True):
        length = part.shape[1]
        place = torch.arange(length, device=part.device)
        pyramid = (torch.minimum(place, length - 1 - place) + 1).to(part.dtype)[:, None, None, None]
        total[:, window] += pyramid * part
        weights[window] += pyramid
    return total / weights
