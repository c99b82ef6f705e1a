"""Clips as classifiers see them: resized, augmented, each frame standardised by its own mean and deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np
import torch

from augment.classifiers.settings import AugmentationName


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """(F, H, W) uint8 -> (F, size, size) uint8; area averaging when it gets smaller, else bilinear."""
    if frames.shape[1:] == (size, size):
        return frames
    how = cv2.INTER_AREA if size < min(frames.shape[1:]) else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def fit_length(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """``num_frames`` frames at even distances, the first and the last included (method, section 3 for odd lengths)."""
    if len(frames) == num_frames:
        return frames
    return frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]


def standardise(frames: np.ndarray) -> np.ndarray:
    """(F, H, W) in [0, 255] -> float32 (1, F, H, W): each frame has mean 0 and deviation 1 (method, section 7).

    A frame of one grey value, such as a black one that pads a short case, becomes 0.
    """
    frames = frames.astype(np.float32)
    mean = frames.mean((1, 2), keepdims=True)
    deviation = frames.std((1, 2), keepdims=True)
    return ((frames - mean) / np.maximum(deviation, 1e-3))[None]


class ClipChange(Protocol):
    """What changes a clip in training.

    Attributes:
        in_threads: whether several clips may be changed at once.
    """

    in_threads: ClassVar[bool]

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(F, S, S) uint8 -> (F, S, S) in [0, 255]; a function of ``frames`` and ``rng`` alone."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """Modest changes that leave a finding a finding; the same for all frames of a clip, so that motion stays motion.

    Attributes:
        flip: probability of a left-right flip.
        shift: largest shift along each axis, as a part of the side.
        zoom: largest change of size, as a part.
        gamma: largest change of the grey curve's exponent, as a part (a plain gain or offset would not survive the
            standardisation).
        noise: largest deviation of added noise, in grey values.
    """

    in_threads: ClassVar[bool] = True

    flip: float = 0.5
    shift: float = 0.05
    zoom: float = 0.08
    gamma: float = 0.15
    noise: float = 3.0

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(F, S, S) uint8 -> (F, S, S) float32 in [0, 255], changed as ``rng`` says."""
        side = frames.shape[-1]
        mirror = -1.0 if rng.random() < self.flip else 1.0
        scale = 1 + rng.uniform(-self.zoom, self.zoom)
        shift = rng.uniform(-self.shift, self.shift, 2) * side
        exponent = 1 + rng.uniform(-self.gamma, self.gamma)
        middle = (side - 1) / 2
        matrix = np.array(
            [
                [mirror * scale, 0, middle - mirror * scale * middle + shift[0]],
                [0, scale, middle - scale * middle + shift[1]],
            ]
        )
        curve = (255 * (np.arange(256) / 255) ** exponent).astype(np.float32)
        moved = [
            cv2.warpAffine(
                frame, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
            )
            for frame in frames
        ]
        changed = curve[np.stack(moved)]
        noise = rng.standard_normal(changed.shape, dtype=np.float32) * rng.uniform(0, self.noise)
        return np.clip(changed + noise, 0, 255)


class LibraryAugmentation:
    """torchvision's TrivialAugmentWide (Müller and Hutter 2021) or RandAugment (Cubuk et al. 2020), after a flip.

    The clip goes in as one video, so that all frames are changed alike. Not for several threads at once: the library
    draws from torch's global generator, which is set for each clip and put back.
    """

    in_threads: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        from torchvision.transforms import v2

        policy = v2.TrivialAugmentWide() if name == "trivialaugment" else v2.RandAugment()
        self._change = v2.Compose([v2.RandomHorizontalFlip(), policy])

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(F, S, S) uint8 -> (F, S, S) uint8, changed as ``rng`` says."""
        from torchvision import tv_tensors

        before = torch.get_rng_state()
        # not torch.manual_seed, which would reset the generators of all GPUs too
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        try:
            changed = self._change(tv_tensors.Video(torch.from_numpy(frames)[:, None]))  # (F, 1, S, S)
        finally:
            torch.set_rng_state(before)
        return changed[:, 0].numpy()


def make_augmentation(name: AugmentationName) -> ClipChange:
    """The training change called ``name``; ``none`` leaves clips as they are."""
    if name == "builtin":
        return Augmentation()
    if name == "none":
        return Augmentation(0, 0, 0, 0, 0)
    return LibraryAugmentation(name)
