"""The demo's closing page: pictures of every stage, the figures, and what each step made and took.

``python -m ctrlgenaug.demo.page --run demo_run`` writes ``index.html`` and ``overview.png`` into the run's folder.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import datasets, report, steps
from ctrlgenaug.files import atomic_path, read_json
from ctrlgenaug.video import read_video


def draw_overview(run: Path, synthetic: Path, spec: datasets.DatasetSpec, target: Path, shown: int = 8) -> None:
    """Draws, for every class, one real clip above one synthetic clip of its class; ``shown`` frames each.

    The real clip is one the synthetic clip was *not* conditioned on, so that likeness is the model's doing.
    """
    from matplotlib.figure import Figure

    home = spec.home_in(run)
    clips = spec.clips(home)
    rows: list[tuple[str, np.ndarray]] = []
    for cls in spec.classes:
        made = sorted(synthetic.glob(f"*_{cls}_*.mp4"))
        source = made[0].stem.rsplit("_", 2)[0] if made else ""
        real = next((clip for clip in clips if clip.cls == cls and clip.name != source), None)
        if real:
            rows.append((f"{cls}\nreal", read_video(home / spec.clips_dir / real.file_name)))
        if made:
            rows.append((f"{cls}\nsynthetic", read_video(made[0])))
    figure = Figure(figsize=(1.25 * shown + 1, 1.25 * len(rows)), dpi=110, layout="constrained")
    for axes_row, (title, frames) in zip(figure.subplots(len(rows), shown, squeeze=False), rows, strict=True):
        for axes, index in zip(axes_row, np.linspace(0, len(frames) - 1, shown).round().astype(int), strict=True):
            axes.imshow(frames[index], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
        axes_row[0].set_ylabel(title, fontsize=9, rotation=0, ha="right", va="center")
    with atomic_path(target) as temporary:
        figure.savefig(temporary)


def _figures(run: Path) -> dict[str, Any]:
    """The figures the steps left behind, by a short name; what is missing is left out."""
    found: dict[str, Any] = {}
    for name, file in (("class_control", "evaluation/metrics.json"), ("classifier", "runs/classifier/metrics.json")):
        if (run / file).is_file():
            found[name] = read_json(run / file)
    return found
