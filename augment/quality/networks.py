"""Feature extractors for distances of distributions: the usual networks by local file, radiomics, or a classifier."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.tensor_files import load_torch

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
        line = in_one_line(error)
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


RADIMAGENET_SIDE = 224  # pixels
# The published RadImageNet ResNet50 numbers its parts as children of a sequence; torchvision names them.
RADIMAGENET_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def radimagenet(path: str | Path, device: str) -> Extractor:
    """ResNet50 with RadImageNet's weights (``ResNet50.pt``, a state dict): frames resized to 224, scaled to [-1, 1].

    Raises:
        UserError: missing, damaged, or weights of another network.
    """
    import torch
    from torch.nn import functional
    from torchvision.models import resnet50

    path = Path(path)
    found = load_torch(path, "Give RadImageNet's ResNet50.pt; see docs/evaluation.md")
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    weights = {}
    for key, value in found.items():
        parts = str(key).removeprefix("module.").removeprefix("backbone.").split(".", 1)
        weights[".".join([RADIMAGENET_PARTS.get(parts[0], parts[0]), *parts[1:]])] = value
    network = resnet50()
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    own = network.state_dict()
    misfits = [
        key
        for key, value in own.items()
        if not key.endswith("num_batches_tracked")
        and (key not in weights or weights[key].shape != value.shape)
    ]
    if misfits:
        raise UserError(
            f"is not RadImageNet's ResNet50 ({len(misfits)} weights missing or misfitting, e.g. {misfits[0]})",
            "Give the ResNet50 of RadImageNet's PyTorch models",
            path,
        )
    network.load_state_dict({key: weights.get(key, value) for key, value in own.items()})
    network.eval().to(device)

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        frames = torch.from_numpy(np.concatenate(clips))[:, None].float().to(device) / 127.5 - 1
        size = (RADIMAGENET_SIDE, RADIMAGENET_SIDE)
        frames = functional.interpolate(frames, size, mode="bilinear", antialias=True)
        with torch.inference_mode():
            features = network(frames.expand(-1, 3, -1, -1)).float().cpu().numpy()
        return features.reshape(len(clips), -1, features.shape[-1])

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Extractor(f"ResNet50 of RadImageNet (SHA-256 {digest[:12]})", extract)


def radiomics() -> Extractor:
    """The radiomic features of frames that FRD is defined on, by the packages ``frd-score`` and ``pyradiomics``.

    Raises:
        UserError: one of them is not installed.
    """
    try:
        from frd_score.frd import get_feature_extractor, process_image_mask_pair

        extractor = get_feature_extractor("v1")  # which imports pyradiomics
    except ImportError as error:
        raise UserError(
            f"the metric frd needs frd-score and pyradiomics ({error.name or 'one'} is not installed)",
            "Install them (docs/evaluation.md says how), or leave frd out of --metrics",
        ) from None

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        with tempfile.TemporaryDirectory(prefix="ctrlgenaug-frd-") as folder:
            path = Path(folder) / "frame.png"  # the package reads files
            for frame in np.concatenate(clips):
                Image.fromarray(frame).save(path)
                values = process_image_mask_pair((path, None), feature_extractor=extractor)[0]
                rows.append(np.asarray(values, np.float64))
        return np.stack(rows).reshape(len(clips), -1, len(rows[0]))

    return Extractor("radiomic features of frd-score (FRD version 1)", extract)


def classifier_stills(model: Any, device: str, name: str) -> Extractor:
    """What the last layer of a classifier of the real data sees of single frames, each shown as a still clip."""
    from augment.classifiers import score

    def extract(clips: Sequence[np.ndarray]) -> np.ndarray:
        stills = (np.repeat(frame[None], model.num_frames, 0) for clip in clips for frame in clip)
        features = score(model, stills, device, 8 * len(clips), features=True)
        return features.reshape(len(clips), -1, features.shape[-1])

    return Extractor(f"features of the {name} classifier on still frames", extract)
