"""Train on real, test on synthetic: does a classifier of real clips find the requested class, and are clips diverse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.classifiers import clip_items
from augment.classifiers.checkpoint import load, score
from augment.classifiers.clip_items import Item
from augment.classifiers.settings import RunSettings
from augment.classifiers.training_run import CHECKPOINT, gather
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.files import fingerprint
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.video import read_video

AGREEMENT = "agreement.json"


def write_agreement(
    spec: DatasetSpec, home: Path, settings: RunSettings, run: Path, clips: Mapping[str, Path]
) -> None:
    """Writes ``agreement.json`` into ``run``, a finished baseline: by filter level, what it finds in ``clips[level]``.

    By class: ``count``, ``found`` (clips in which the class asked for is the most probable), ``diversity`` and
    ``real_diversity`` (mean distance of two clips of the class, as the classifier's last layer sees them). A level is
    not measured again while its clips and the classifier are those that it was measured with.
    """
    before = read_json(run / AGREEMENT) if (run / AGREEMENT).is_file() else {}
    found: dict[str, Any] = {}
    for level, folder in clips.items():
        items, _ = clip_items.synthetic_items([folder], spec)
        made_from = fingerprint([run / CHECKPOINT, *(item.path for item in items)])
        found[level] = before.get(level, {})
        if found[level].get("made_from") != made_from:
            real = gather(spec, home, settings).train
            found[level] = {"made_from": made_from, "classes": _by_class(spec, run, items, real)}
    write_json(run / AGREEMENT, found)


def _by_class(spec: DatasetSpec, run: Path, items: Sequence[Item], real: Sequence[Item]) -> dict[str, Any]:
    model, _ = load(run / CHECKPOINT)

    def features(items: Sequence[Item]) -> np.ndarray:
        return score(model, (read_video(item.path) for item in items), features=True)

    synthetic, _ = clip_items.readable(items)
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
    return result


def read_agreement(run: Path) -> dict[str, Any]:
    """What `write_agreement` found, by level and class; nothing if ``run`` is no baseline."""
    found = read_json(run / AGREEMENT) if (run / AGREEMENT).is_file() else {}
    return {level: row["classes"] for level, row in found.items()}


def mean_distance(features: np.ndarray) -> float | None:
    """Mean Euclidean distance of two different rows of (N, C); None for fewer than two."""
    number = len(features)
    if number < 2:
        return None
    squares = (features**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * features @ features.T, 0))
    return round(float(distances.sum() / (number * (number - 1))), 6)
