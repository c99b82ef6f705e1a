"""Clips of a batch mixed with each other, targets alike: mixup, cutmix, VideoMix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from augment.classifiers.settings import MixingName

Mixing = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# Of Beta(alpha, alpha), from which the mixed part is drawn once a batch. Mixup: 0.2, as in the paper's ImageNet
# experiments (Zhang et al. 2018); cutmix: 1, the paper's (Yun et al. 2019), and VideoMix likewise.
USUAL_ALPHA = {"mixup": 0.2, "cutmix": 1.0, "videomix": 1.0}


def make_mixing(name: MixingName, alpha: float | None = None) -> Mixing:
    """The mixing called ``name``: (clips (B, 1, F, S, S), targets (B, C)) -> the same, mixed.

    Mixup and cutmix are torchvision's, told that a clip is a video: the same share, the same box in all frames.
    (Cutmix of clips is VideoMix's spatial variant.) Each clip is mixed with its neighbour in the batch; random numbers
    come from torch's global generator.
    """
    if name == "none":
        return lambda clips, targets: (clips, targets)
    strength = float(USUAL_ALPHA[name] if alpha is None else alpha)
    if name == "videomix":
        return lambda clips, targets: mix_cuboid(clips, targets, strength)
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    transform = v2.MixUp(alpha=strength) if name == "mixup" else v2.CutMix(alpha=strength)

    def mix(clips: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        video = tv_tensors.Video(
            clips.transpose(1, 2)
        )  # (B, F, 1, S, S), as torchvision counts a video's axes
        mixed, mixed_targets = transform(video, targets)
        return mixed.as_subclass(Tensor).transpose(1, 2).contiguous(), mixed_targets

    return mix


def mix_cuboid(clips: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """VideoMix (Yun et al. 2020) in space and time: a cuboid of each clip is replaced by its neighbour's.

    The cuboid's sides are the same part of the clip's; its centre is anywhere, and what sticks out is cut off.

    Args:
        clips: (B, 1, F, S, S).
        targets: (B, C).
        alpha: of Beta(alpha, alpha), from which the part of a clip that stays is drawn.

    Returns:
        the same shapes; targets are mixed by the part that was really replaced.
    """
    stays = float(torch.distributions.Beta(float(alpha), float(alpha)).sample())
    part = (1 - stays) ** (1 / 3)
    box = []
    for length in clips.shape[2:]:
        half = part * length / 2
        centre = float(torch.rand(())) * length
        box.append(slice(max(0, round(centre - half)), min(length, round(centre + half))))
    mixed = clips.clone()
    where = (..., *box)
    mixed[where] = clips.roll(1, 0)[where]
    replaced = mixed[0, 0][tuple(box)].numel() / clips[0, 0].numel()
    return mixed, targets * (1 - replaced) + targets.roll(1, 0) * replaced
