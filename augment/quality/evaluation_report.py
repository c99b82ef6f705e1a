"""The evaluation as Markdown: one table for each metric, one row for each class, and what each figure is."""

from __future__ import annotations

from typing import Any

from augment.quality.metrics import METRICS
from ctrlgenaug.number_format import markdown_table


def markdown(result: dict[str, Any]) -> str:
    """The content of an evaluation's .md file, from `evaluation.evaluate`'s result."""
    lines = [f"# Synthetic clips of {result['data_name']}", ""]
    if judged := judged_line(result):
        lines += [judged, ""]
    counts = result["counts"]
    heads = list(counts["synthetic"])
    lines += markdown_table(
        ["clips", *heads], [[name, *(row[cls] for cls in heads)] for name, row in counts.items()]
    )
    lines += [line for warning in result["warnings"] for line in (f"Warning: {warning}.", "")]
    for name, rows in result["metrics"].items():
        metric = METRICS[name]
        lines += [f"## {metric.title}", "", *markdown_table(*metric.table(rows))]
        if metric.note:
            lines += [metric.note, ""]
        if result["tools"].get(name):
            lines += [f"Computed with: {result['tools'][name]}.", ""]
        published = result["published"].get(name)
        if published is not None:
            unit = "" if name == "fvd" else " %"
            lines += [f"Published: {published}{unit}, by another protocol; not comparable as a number.", ""]
    lines.append(
        "± is the deviation over clips, or over draws where halves of the patients are drawn "
        f"({result['draws']} draws, seed {result['seed']}). Intervals of means: bootstrap over patients."
    )
    return "\n".join(lines) + "\n"


def judged_line(result: dict[str, Any]) -> str:
    """Which clips were judged, and beside what; "" where an older evaluation does not say it."""
    judged = result.get("judged") or {}
    if not judged.get("synthetic"):
        return ""
    beside = [f"beside the {judged['split']} clips in {judged['real']}"] if judged.get("real") else []
    with_ = [
        f"{name} {judged[key]}"
        for name, key in (("classifier", "classifier"), ("VAE", "vae_path"))
        if judged.get(key)
    ]
    return f"Clips in {', '.join([', '.join(judged['synthetic']), *beside, *with_])}."


def headline(result: dict[str, Any]) -> str:
    """The totals in one line."""
    parts = [
        METRICS[name].headline(rows["all"])
        for name, rows in result["metrics"].items()
        if rows.get("all") is not None
    ]
    return ", ".join(part for part in parts if part)
