"""What a classifier's run folder shows: metrics.json, metrics.md, confusion_matrix.png, curves.png, predictions.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.classifiers.clip_items import Item
from ctrlgenaug.files import atomic_path, write_text

LEVELS = ("clip", "patient")


def percent(value: float | None) -> str:
    """A part of one as percent with one decimal; a dash for none."""
    return "-" if value is None else f"{100 * value:.1f}"


def markdown(result: dict[str, Any], title: str) -> str:
    """The figures of `metrics.both_levels` as Markdown tables."""
    lines = [f"# {title}", ""]
    for level in LEVELS:
        found = result[level]
        lines += [f"## By {level} ({found['count']})", "", "| figure | % | 95 % interval |", "|---|---|---|"]
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "auc"):
            low, high = found.get("intervals", {}).get(key, (None, None))
            lines.append(
                f"| {key.replace('_', ' ')} | {percent(found[key])} | {percent(low)} to {percent(high)} |"
            )
        lines += [
            "",
            "| class | count | sensitivity | specificity | precision | F1 | AUC |",
            "|---|---|---|---|---|---|---|",
        ]
        for cls, row in found["per_class"].items():
            cells = [percent(row[key]) for key in ("sensitivity", "specificity", "precision", "f1", "auc")]
            lines.append(f"| {cls} | {row['count']} | {' | '.join(cells)} |")
        lines.append("")
    lines.append("Intervals: bootstrap over patients, drawn within each class.")
    return "\n".join(lines) + "\n"


def draw_confusion(path: Path, result: dict[str, Any], classes: Sequence[str]) -> None:
    """Confusion matrices by clip and by patient, counts and parts of the row."""
    from matplotlib.figure import Figure

    side = 1.6 + 0.8 * len(classes)
    figure = Figure(figsize=(2 * side + 0.6, side), layout="constrained")
    for axes, level in zip(figure.subplots(1, 2), LEVELS, strict=True):
        counts = np.array(result[level]["confusion"])
        parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            axes.text(
                column,
                row,
                f"{counts[row, column]}\n{100 * parts[row, column]:.0f} %",
                ha="center",
                va="center",
                color="white" if parts[row, column] > 0.6 else "black",
            )
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlabel="predicted", ylabel="true", title=f"by {level}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_curves(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Loss and validation figures over the epochs of all stages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(rows) + 1)
    for axes, keys in (
        (left, ("loss", "validation_loss")),
        (right, ("validation_accuracy", "validation_balanced_accuracy")),
    ):
        for key in keys:
            if all(key in row for row in rows):
                axes.plot(epochs, [row[key] for row in rows], label=key.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    right.set_ylim(0, 1.02)
    for epoch in range(1, len(rows)):
        if rows[epoch]["stage"] != rows[epoch - 1]["stage"]:
            for axes in (left, right):
                axes.axvline(epoch + 0.5, color="black", linestyle=":")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_predictions(
    path: Path, items: Sequence[Item], probabilities: np.ndarray, classes: Sequence[str]
) -> None:
    """One row a clip: file, patient, true and predicted class, the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file_name", "patient", "class", "predicted", *(f"p_{cls}" for cls in classes)])
    for item, row in zip(items, probabilities, strict=True):
        predicted = classes[int(row.argmax())]
        values = [repr(float(value)) for value in row]  # rounded, sure answers would be ties to an AUC
        writer.writerow([item.path.name, item.patient, classes[item.label], predicted, *values])
    write_text(path, text.getvalue())
