"""Train on real, test on synthetic: does a classifier of real clips find the requested class, and are clips diverse?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.classifiers import clip_items
from augment.classifiers.checkpoint import load, score
from augment.classifiers.clip_items import Item
from augment.classifiers.settings import RunSettings
from augment.classifiers.training_run import CHECKPOINT, gather
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.video import read_video


def write_agreement(
    spec: DatasetSpec, home: Path, settings: RunSettings, run: Path, level: str, clips: Path
) -> None:
    """Writes ``agreement_{level}.json`` into ``run``, a finished baseline; an existing one stays.

    By class: ``count``, ``found`` (clips in which the class asked for is the most probable), ``diversity`` and
    ``real_diversity`` (mean distance of two clips of the class, as the classifier's last layer sees them).
    """
    target = run / f"agreement_{level}.json"
    if target.is_file():
        return
    model, _ = load(run / CHECKPOINT)
    synthetic, _ = clip_items.readable(clip_items.synthetic_items([clips], spec)[0])
    real = gather(spec, home, settings).train

    def features(items: Sequence[Item]) -> np.ndarray:
        return score(model, (read_video(item.path) for item in items), features=True)

    logits = score(model, (read_video(item.path) for item in synthetic))
    seen, real_seen = features(synthetic), features(real)
    result: dict[str, Any] = {}
    for label, cls in enumerate(spec.classes):
        ours = np.array([item.label == label for item in synthetic])
        if not ours.any():
            continue
        result[cls] = {
            "count": int(ours.sum()),
            "found": int((logits[ours].argmax(1) == label).sum()),
            "diversity": mean_distance(seen[ours]),
            "real_diversity": mean_distance(real_seen[[item.label == label for item in real]]),
        }
    write_json(target, result)


def mean_distance(features: np.ndarray) -> float | None:
    """Mean Euclidean distance of two different rows of (N, C); None for fewer than two."""
    number = len(features)
    if number < 2:
        return None
    squares = (features**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0))
    return round(float(distances.sum() / (number * (number - 1))), 6)
