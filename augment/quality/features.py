"""Feature extractors for Frechet distances: the usual networks by local file, or a classifier of the data itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.errors import UserError

I3D_FRAMES = 16  # the I3D network needs at least 9; 16 is what FVD is usually computed on
ClipFeatures = Callable[[Sequence[np.ndarray]], np.ndarray]  # clips (F, H, W) uint8 -> (N, D) or (N, F, D)


@dataclass(frozen=True)
class Extractor:
    """Features by name.

    Attributes:
        label: what they are, for reports.
        extract: clips (F, H, W) uint8 -> (N, D), or (N, F, D) for features of frames.
    """

    label: str
    extract: ClipFeatures


def repeat_to(frames: np.ndarray, length: int) -> np.ndarray:
    """(F, H, W) -> (length, H, W): frames repeated evenly (8 frames to 16: each twice); longer clips are thinned."""
    return frames[np.arange(length) * len(frames) // length]


def load_torchscript(path: str | Path, sha256: str | None, device: str) -> tuple[Any, str]:
    """(network, SHA-256 of its file).

    A TorchScript file is a program: give only files that you trust, best with their checksum.

    Raises:
        UserError: missing, of another checksum, or not TorchScript.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError("does not exist", "Download it once and give its path; see docs/evaluation.md", path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise UserError(f"has SHA-256 {found}, not {sha256}", "Download it again", path)
    try:
        return torch.jit.load(str(path), map_location=device).eval(), found
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"is not a TorchScript file ({line})", "Download it again", path) from None


def i3d(path: str | Path, sha256: str | None, device: str) -> Extractor:
    """FVD's I3D (``i3d_torchscript.pt``): 16 frames, grey in three channels, [0, 255]; it resizes to 224 by itself."""
    network, digest = load_torchscript(path, sha256, device)

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        stacked = np.stack([repeat_to(clip, I3D_FRAMES) for clip in clips])
        videos = (
            torch.from_numpy(stacked)[:, None].expand(-1, 3, -1, -1, -1).float().to(device)
        )  # (B, 3, 16, H, W)
        with torch.inference_mode():
            return network(videos, rescale=True, resize=True, return_features=True).float().cpu().numpy()

    return Extractor(f"I3D (SHA-256 {digest[:12]}), each of 8 frames twice", extract)


def inception(path: str | Path, sha256: str | None, device: str) -> Extractor:
    """FID's Inception as TorchScript (``inception-2015-12-05.pt``): frames, grey in three channels, [0, 255]."""
    network, digest = load_torchscript(path, sha256, device)

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        import torch

        frames = (
            torch.from_numpy(np.concatenate(clips))[:, None].expand(-1, 3, -1, -1).to(device)
        )  # (B*F, 3, H, W)
        with torch.inference_mode():
            features = network(frames, return_features=True).float().cpu().numpy()
        return features.reshape(len(clips), -1, features.shape[-1])

    return Extractor(f"Inception (SHA-256 {digest[:12]})", extract)


def classifier_clips(model: Any, device: str, name: str) -> Extractor:
    """What the last layer of a classifier trained on the real data sees of a clip."""
    from augment.classifiers import score

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        return score(model, clips, device, len(clips), features=True)

    return Extractor(f"features of the {name} classifier", extract)


def classifier_frames(model: Any, device: str, name: str) -> Extractor:
    """The same of single frames, each shown as a still clip."""
    from augment.classifiers import score

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        stills = (np.repeat(frame[None], model.num_frames, 0) for clip in clips for frame in clip)
        features = score(model, stills, device, 8 * len(clips), features=True)
        return features.reshape(len(clips), -1, features.shape[-1])

    return Extractor(f"features of the {name} classifier on still frames", extract)
