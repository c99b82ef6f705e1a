"""The evaluation as Markdown: a row a class, a column a figure, and what each figure is."""

from __future__ import annotations

from typing import Any


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _spread(value: dict[str, Any] | None, digits: int = 2) -> str:
    return "-" if not value else f"{value['mean']:.{digits}f} ± {value['deviation']:.{digits}f}"


def _frechet_cells(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["-"] * 4
    size = row["matched"]["size"] if row["matched"] else "-"
    return [_number(row["value"]), _spread(row["matched"]), _spread(row["floor"]), str(size)]


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _section(metric: str, rows: dict[str, Any], title: str) -> list[str]:
    lines = [f"## {title}", ""]
    if metric in ("fvd", "fid"):
        heads = ["class", "all clips", "equal numbers", "real against real", "of each"]
        lines += _table(heads, [[cls, *_frechet_cells(row)] for cls, row in rows.items()])
    elif metric in ("vae_seq", "smoothness"):
        cells = [[cls, _spread(row.get("synthetic")), _spread(row.get("real"))] for cls, row in rows.items()]
        lines += _table(["class", "synthetic, %", "real, %"], cells)
    elif metric == "diversity":
        kinds = [(name, kind) for name in ("synthetic", "real") for kind in ("pixel", "latent")]
        cells = [
            [cls, *(_number(row.get(name, {}).get(kind), 4) for name, kind in kinds)]
            for cls, row in rows.items()
        ]
        lines += _table(["class", *(f"{name}, {kind}" for name, kind in kinds)], cells)
    elif metric == "class_control":
        cells = [
            [
                cls,
                str(row["count"]),
                _number(100 * row["accuracy"], 1),
                _number(100 * row["balanced_accuracy"], 1) if "balanced_accuracy" in row else "-",
            ]
            for cls, row in rows.items()
        ]
        lines += _table(["class", "clips", "accuracy, %", "balanced accuracy, %"], cells)
    else:
        heads = ["class", "distance", "flagged", "threshold", "median", "between patients", "own source, %"]
        cells = [
            [
                cls,
                kind,
                f"{row['flagged']} of {row['count']}",
                _number(row["threshold"], 4),
                _number(row["median_distance"], 4),
                _number(row["median_between_patients"], 4),
                _number(100 * row["nearest_is_its_own_source"], 0),
            ]
            for cls, kinds in rows.items()
            for kind, row in kinds.items()
        ]
        lines += _table(heads, cells)
    return lines


def markdown(result: dict[str, Any]) -> str:
    """The content of an evaluation's .md file, from `evaluation.evaluate`'s result."""
    titles = {
        "fvd": "FVD",
        "fid": "FID by frame",
        "vae_seq": "VAE-Seq",
        "smoothness": "Motion smoothness",
        "diversity": "Diversity (mean distance of two clips)",
        "class_control": "Class control (a classifier trained on real clips, asked about synthetic ones)",
        "memorisation": "Memorisation (distance to the nearest training clip)",
    }
    lines = [f"# Synthetic clips of {result['data_name']}", ""]
    counts = result["counts"]
    heads = list(counts["synthetic"])
    lines += _table(
        ["clips", *heads], [[name, *(str(row[cls]) for cls in heads)] for name, row in counts.items()]
    )
    for metric, rows in result["metrics"].items():
        lines += _section(metric, rows, titles[metric])
        label = result["tools"].get(metric)
        if label:
            lines += [f"Computed with: {label}.", ""]
        published = result["published"].get(metric)
        if published is not None:
            unit = "" if metric == "fvd" else " %"
            lines += [f"Published: {published}{unit}, by another protocol; not comparable as a number.", ""]
    lines.append(
        "± is the deviation over clips, or over draws where halves of the patients are drawn "
        f"({result['draws']} draws, seed {result['seed']})."
    )
    return "\n".join(lines) + "\n"


def headline(result: dict[str, Any]) -> str:
    """The totals in one line."""
    found, parts = result["metrics"], []
    for metric, name in (("fvd", "FVD"), ("fid", "FID")):
        row = found.get(metric, {}).get("all")
        if row:
            fair = ""  # only equal numbers may be held against each other
            if row["matched"] and row["floor"]:
                fair = (
                    f" (equal numbers {_spread(row['matched'])}, real against real {_spread(row['floor'])})"
                )
            parts.append(f"{name} {_number(row['value'])}{fair}")
    for metric, name in (("vae_seq", "VAE-Seq"), ("smoothness", "smoothness")):
        row = found.get(metric, {}).get("all", {}).get("synthetic")
        if row:
            parts.append(f"{name} {row['mean']:.2f} %")
    row = found.get("class_control", {}).get("all")
    if row:
        chance = f" (chance {100 * row['chance']:.1f} %)" if "chance" in row else ""
        parts.append(f"class control {100 * row['accuracy']:.1f} %{chance}")
    row = found.get("memorisation", {}).get("all", {})
    row = row.get("latent") or row.get("pixel")
    if row:
        parts.append(f"{row['flagged']} of {row['count']} clips flagged as near copies")
    return ", ".join(parts)
