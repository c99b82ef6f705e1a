"""Whether the requested class is what comes out, to a classifier that saw only real clips."""

from __future__ import annotations

import numpy as np

from augment.classifiers.metrics import figures
from augment.quality.metrics.registry import Cells, Metric, Row, Selection, register
from augment.quality.resampling import mean_interval
from ctrlgenaug.number_format import NONE, interval, percent


def _class_control(chosen: Selection) -> Row | None:
    from augment.classifiers import probabilities

    view, spec = chosen.synthetic, chosen.run.instruments.spec
    logits, labels = view["logits"], view.labels
    answers = logits.argmax(1)
    right = answers == labels
    row: Row = {
        "accuracy": float(right.mean()),
        "count": len(labels),
        "interval": mean_interval(right, view.patients, chosen.run.seed),
    }
    if len(np.unique(labels)) > 1:  # in total, not for one class
        found = figures(labels, probabilities(logits), spec.classes, view.patients, seed=chosen.run.seed)
        row |= {key: found[key] for key in ("balanced_accuracy", "macro_f1", "auc", "intervals", "confusion")}
        row["chance"] = 1 / len(np.unique(labels))
    else:
        seen = np.bincount(answers, minlength=len(spec.classes))
        row["seen_as"] = {cls: int(number) for cls, number in zip(spec.classes, seen, strict=True)}
    return row


def _cells(row: Row) -> Cells:
    seen = ", ".join(f"{cls}: {number}" for cls, number in row.get("seen_as", {}).items()) or NONE
    found = row.get("interval") and [100 * bound for bound in row["interval"]]
    return [
        (
            str(row["count"]),
            percent(row["accuracy"]),
            interval(found, 1),
            percent(row.get("balanced_accuracy")),
            seen,
        )
    ]


def _headline(row: Row) -> str:
    chance = f" (chance {percent(row['chance'])} %)" if "chance" in row else ""
    return f"class control {percent(row['accuracy'])} %{chance}"


register(
    Metric(
        name="class_control",
        title="Class control",
        compute=_class_control,
        heads=("clips", "asked class found, %", "95 % interval", "balanced accuracy, %", "seen as"),
        cells=_cells,
        needs=(("classifier",),),
        features=("logits",),
        headline=_headline,
        note="A classifier trained on real clips is asked about synthetic ones.",
        sets=("synthetic",),
        steering="class_control",
    )
)
