"""Classifiers on disk and at work: saved, loaded, asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augment.classifiers import clips as clip_tools
from augment.classifiers.model import Classifier, build
from augment.classifiers.settings import SMALLEST_SIDE
from augment.classifiers.weights import read_weights
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path

FORMAT = "ctrlgenaug-classifier-1"
DEFAULT_SIDE = 256  # pixels, for files that do not say what they were trained on


def save(
    path: str | Path,
    model: Classifier,
    name: str,
    classes: Sequence[str],
    data_name: str,
    settings: dict[str, Any] | None = None,
) -> None:
    """Writes a classifier whole or not at all, as a file that mmaction2 reads too (``state_dict`` and ``meta``).

    Args:
        path: the target, e.g. ``classifier.pth``.
        model: made by `build`.
        name: the name it was built by.
        classes: class names in the order of the logits.
        data_name: the data set it was trained on.
        settings: plain values that say how it was trained.
    """
    meta = {
        "format": FORMAT,
        "name": name,
        "classes": list(classes),
        "data_name": data_name,
        "input_size": model.input_size,
        "num_frames": model.num_frames,
        "settings": settings or {},
    }
    weights = {key: value.detach().cpu() for key, value in model.weights().items()}
    # through a handle: torch would write the temporary name into the file, and equal trainings would differ
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        torch.save({"meta": meta, "state_dict": weights}, handle)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    *,
    name: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
    num_frames: int = 8,
) -> tuple[Classifier, dict[str, Any]]:
    """Loads a classifier in eval mode, and what its file says about it.

    Args:
        path: written by `save`, or by mmaction2 0.x or 1.x.
        device: where it goes.
        name: its name or config; needed only where the file does not say it.
        num_classes: the number of classes it must have, if any.
        input_size: frame side, needed only where the file does not say it (None: 256 there).
        num_frames: frames of a clip, where the file does not say them.

    Returns:
        the classifier, and ``{"name", "classes", "data_name", "input_size", "num_frames", "settings"}`` (``classes``
        and ``data_name`` are None for files of other programs).

    Raises:
        UserError: unreadable, another classifier than ``name``, another number of classes, another frame side.
    """
    weights, meta = read_weights(path)
    ours = meta.get("format") == FORMAT
    if ours:
        if name is not None and name != meta.get("name"):
            raise UserError(f"is {meta.get('name')}, not {name}", "Leave --classifier out, or mend it", path)
        trained_at = int(meta["input_size"])
        if input_size not in (None, trained_at):
            raise UserError(
                f"was trained on frames of {trained_at} pixels, not {input_size}",
                "Leave --input_size out",
                path,
            )
        name, input_size, num_frames = meta["name"], trained_at, int(meta["num_frames"])
    if name is None:
        remedy = "Give its name: --classifier, of evaluate.py --classifier_name"
        raise UserError("does not say which classifier it is", remedy, path)
    found = _classes_of(weights, path)
    if num_classes is not None and found != num_classes:
        raise UserError(f"has {found} classes, not {num_classes}", "Check the data set's name", path)
    if input_size is None:
        input_size = DEFAULT_SIDE
    if input_size < SMALLEST_SIDE:
        raise UserError(f"--input_size {input_size} is too small", f"Give at least {SMALLEST_SIDE}")
    model = build(name, found, input_size, num_frames=num_frames)
    try:
        model.load_weights(weights)
    except UserError as error:
        raise UserError(error.problem, error.remedy, path) from None
    info = {
        "name": name,
        "classes": meta.get("classes") if ours else None,
        "data_name": meta.get("data_name") if ours else None,
        "input_size": input_size,
        "num_frames": num_frames,
        "settings": meta.get("settings", {}) if ours else {},
    }
    return model.to(device).eval(), info


def _classes_of(weights: dict[str, Tensor], path: str | Path) -> int:
    layers = [key for key in weights if key.startswith("cls_head.") and key.endswith("weight")]
    if not layers:
        raise UserError("has no classifying layer (cls_head)", "Give a trained classifier", path)
    return int(weights[layers[-1]].shape[0])


def score(
    model: Classifier,
    clips: Iterable[np.ndarray],
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    *,
    features: bool = False,
) -> np.ndarray:
    """Logits of clips, without augmentation; the model is put in eval mode.

    Args:
        model: made by `build` or `load`, on ``device``.
        clips: (F, H, W) uint8 each; resized, and frames chosen, as the model needs.
        device: where the model is.
        batch_size: clips at once.
        features: return what the classifying layer sees instead.

    Returns:
        (N, num_classes) float32, or (N, C) with ``features``; (0, 0) for no clips.
    """
    return score_and_features(model, clips, device, batch_size)[int(features)]


@torch.inference_mode()
def score_and_features(
    model: Classifier, clips: Iterable[np.ndarray], device: str | torch.device = "cpu", batch_size: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, num_classes) and what the classifying layer sees (N, C), in one pass; see `score`."""
    model.eval()
    results: list[tuple[np.ndarray, ...]] = []
    batch: list[np.ndarray] = []

    def run() -> None:
        stacked = torch.from_numpy(np.stack(batch)).to(device)
        results.append(tuple(part.float().cpu().numpy() for part in model.logits_and_features(stacked)))
        batch.clear()

    for frames in clips:
        frames = clip_tools.fit_length(clip_tools.resize(frames, model.input_size), model.num_frames)
        batch.append(clip_tools.standardise(frames))
        if len(batch) == batch_size:
            run()
    if batch:
        run()
    if not results:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
    logits, seen = (np.concatenate(parts) for parts in zip(*results, strict=True))
    return logits, seen


@dataclass
class Scorer:
    """A classifier from a file, as a function from clips to logits; it travels to other processes unloaded.

    Attributes:
        path, name, num_classes, input_size, num_frames: see `load`.
        device: where it runs.
        batch_size: clips at once.
    """

    path: Path
    name: str | None = None
    num_classes: int | None = None
    input_size: int | None = None
    device: str = "cpu"
    batch_size: int = 8
    num_frames: int = 8

    def __call__(self, clips: Iterable[np.ndarray]) -> np.ndarray:
        return score(self.model(), clips, self.device, self.batch_size)

    def model(self) -> Classifier:
        """The network, loaded at the first call."""
        if "_model" not in vars(self):
            self._model, _ = load(
                self.path,
                self.device,
                name=self.name,
                num_classes=self.num_classes,
                input_size=self.input_size,
                num_frames=self.num_frames,
            )
        return self._model

    def on(self, device: str) -> Scorer:
        """This one, if it is on ``device``; else one that loads the classifier there."""
        return self if device == self.device else replace(self, device=device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}


def scorer(
    path: str | Path,
    *,
    name: str | None = None,
    num_classes: int | None = None,
    input_size: int | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    num_frames: int = 8,
) -> Scorer:
    """A loaded classifier as one function from clips (F, H, W) uint8 to logits (N, num_classes); see `load`."""
    found = Scorer(Path(path), name, num_classes, input_size, device, batch_size, num_frames)
    found.model()
    return found


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(-1, keepdims=True)
