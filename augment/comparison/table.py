"""The comparison as a table: each arm's figures with intervals, its gain over the baseline, and a plain verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augment.comparison.arms import BASELINE, BY_NAME, GROUPS, differences
from augment.comparison.pictures import draw_gains
from augment.comparison.statistics import (
    PRIMARY,
    RESAMPLES,
    Estimate,
    Predictions,
    levels_and_gains,
    verdict,
    worth_in_patients,
)
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import write_text
from ctrlgenaug.number_format import NONE, markdown_table
from ctrlgenaug.plain_data import write_json

ORDER = {name: index for index, name in enumerate(BY_NAME)}
NOTE = (
    "By patient of the test split, percent. In brackets: 95 % intervals of a bootstrap over test patients (within "
    "each class) and seeds; gains pair runs of the same seed and the same patients. The verdict is about balanced "
    "accuracy. Of 40 arms that change nothing, two would get a verdict by chance."
)


def summarise(results: Sequence[Mapping[str, Any]], resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """A row for each classifier and arm of ``results`` (see `augment.comparison.runs.collect`), in the table's order.

    Returns:
        ``classifier``, ``arm``, ``title``, ``group``, ``seeds``, ``classes``, ``rare_class``, ``patients`` (test),
        ``levels`` and ``gains`` ({figure: {"value", "low", "high"}}), ``verdict`` (None without a baseline), ``worth``
        ([number, sign] in patients of the rare class; None without the arms of more real patients), ``agreement``.

    Raises:
        UserError: runs of several settings, or tested on other patients than others.
    """
    arms: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        arms[result["classifier"], result["arm"]].append(result)
    rows = []
    for classifier, name in sorted(arms, key=lambda key: (key[0], ORDER.get(key[1], len(ORDER)), key[1])):
        runs = arms[classifier, name]
        baseline = arms.get((classifier, BASELINE), []) if name != BASELINE else []
        _refuse_other_runs([*baseline, *runs])
        _refuse_other_rivals(runs)
        levels, gains = levels_and_gains(
            _predictions(runs), _predictions(baseline) if baseline else None, resamples
        )
        arm = BY_NAME.get(name)
        rows.append(
            {
                "classifier": classifier,
                "arm": name,
                "title": arm.title if arm else name.replace("_", " "),
                "group": arm.group if arm else "synthetic",
                "seeds": sorted(run["seed"] for run in runs),
                "classes": runs[0]["classes"],
                # the comparison's: of several times its patients it may not be the rarest
                "rare_class": _rare((baseline or runs)[0]),
                "clips": runs[0]["clips"],
                "patients": runs[0].get("patients", {}),
                "changes": runs[0].get("changes", {}),
                "test_patients": len(runs[0]["test"]["labels"]),
                "levels": {key: _plain(value) for key, value in levels.items()},
                "gains": {key: _plain(value) for key, value in gains.items()},
                "verdict": verdict(gains[PRIMARY]) if gains else None,
                "worth": None,
                "agreement": _agreement(runs),
            }
        )
    _add_worth(rows)
    return rows


def _refuse_other_runs(runs: Sequence[Mapping[str, Any]]) -> None:
    """A `UserError` if one of ``runs`` cannot be compared with the first: another setting, or other test patients."""
    first = runs[0]
    for run in runs[1:]:
        names = [f"{one['arm']}, seed {one['seed']}" for one in (first, run)]
        if found := differences(first.get("in_common", {}), run.get("in_common", {})):
            raise UserError(
                f"{names[0]} and {names[1]} were run with other settings ({found})",
                "Give each setting an --output of its own, or delete the runs of one",
            )
        if any(run["test"][key] != first["test"][key] for key in ("patients", "labels")):
            raise UserError(
                f"{names[1]} was tested on other patients than {names[0]}",
                "Delete the folders of the older ones and run the same command again",
            )


def _refuse_other_rivals(runs: Sequence[Mapping[str, Any]]) -> None:
    """A `UserError` if the best rival was not the same one in all ``runs`` of its arm."""
    seeds = [str(run["seed"]) for run in runs]
    if any(run.get("changes") != runs[0].get("changes") for run in runs):
        raise UserError(
            f"{runs[0]['arm']}: seeds {', '.join(seeds)} were not run with the same rival",
            f'Run it again with --seeds "{" ".join(seeds)}": those that had another than the best are trained anew',
        )


def _predictions(runs: Sequence[Mapping[str, Any]]) -> Predictions:
    ordered = sorted(runs, key=lambda run: run["seed"])
    first = ordered[0]["test"]
    return Predictions(
        tuple(run["seed"] for run in ordered),
        tuple(first["patients"]),
        np.array(first["labels"]),
        np.array([run["test"]["probabilities"] for run in ordered]),
    )


def _rare(run: Mapping[str, Any]) -> str:
    """The class of which the fewest clips are learned from."""
    counts = run["clips"]["train"]
    return run.get("rare_class") or min(counts, key=counts.__getitem__)


def _plain(value: Estimate) -> dict[str, float | None]:
    found = {"value": value.value, "low": value.low, "high": value.high}
    return {key: round(number, 6) if np.isfinite(number) else None for key, number in found.items()}


def _agreement(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By filter level and class, means over runs: share of clips whose class is found, diversity over the real one."""
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(dict)
    for run in runs:
        for level, classes in run.get("agreement", {}).items():
            for cls, row in classes.items():
                kept = found[level].setdefault(cls, {"count": [], "found": [], "diversity": []})
                kept["count"].append(row["count"])
                kept["found"].append(row["found"] / row["count"])
                if row["diversity"] is not None and row["real_diversity"]:
                    kept["diversity"].append(row["diversity"] / row["real_diversity"])
    return {
        level: {
            cls: {key: round(float(np.mean(values)), 4) if values else None for key, values in row.items()}
            for cls, row in classes.items()
        }
        for level, classes in found.items()
    }


def _add_worth(rows: list[dict[str, Any]]) -> None:
    """What each arm's balanced accuracy is worth in real patients of the rare class, where more of them were tried."""
    for row in rows:
        ladder = {
            other["patients"][row["rare_class"]]: other["levels"][PRIMARY]["value"]
            for other in rows
            if other["classifier"] == row["classifier"]
            and other["group"] in ("ceiling", "real")
            and other["arm"] != "no_augmentation"
            and row["rare_class"] in other["patients"]
        }
        if len(ladder) > 1 and row["group"] not in ("ceiling", "real"):
            numbers = sorted(ladder)
            value = row["levels"][PRIMARY]["value"]
            row["worth"] = list(worth_in_patients(value, numbers, [ladder[number] for number in numbers]))


# --- as text -----------------------------------------------------------------------------------------------------


def with_interval(found: Mapping[str, float | None] | None, sign: str = "") -> str:
    """``+3.1 (0.4 to 5.9)`` in percent; a dash for none."""
    if not found or found["value"] is None:
        return NONE
    text = f"{100 * found['value']:{sign}.1f}"
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} ({100 * found['low']:{sign}.1f} to {100 * found['high']:{sign}.1f})"


def worth_text(row: Mapping[str, Any]) -> str:
    """The number of real patients of the rare class that would do as well."""
    if row["worth"] is None:
        return NONE
    number, sign = row["worth"]
    return f"{'under ' if sign == '<' else 'over ' if sign == '>' else ''}{number:.0f}"


HEADS = (
    "arm",
    "balanced accuracy",
    "gain",
    "verdict",
    "rare class: gain in sensitivity",
    "gain in AUC",
    "ECE",
    "worth",
)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the main table, below `HEADS`."""
    rare = row["classes"].index(row["rare_class"])
    gains, levels = row["gains"], row["levels"]
    changes = f" ({', '.join(row['changes'])})" if row["changes"] else ""
    return (
        row["title"] + changes,
        with_interval(levels[PRIMARY]),
        with_interval(gains.get(PRIMARY), "+"),
        row["verdict"] or NONE,
        with_interval(gains.get(f"sensitivity/{rare}"), "+"),
        with_interval(gains.get(f"auc/{rare}"), "+"),
        f"{100 * levels['ece']['value']:.1f}",
        worth_text(row),
    )


def class_cells(row: Mapping[str, Any], figure: str) -> tuple[str, ...]:
    """``figure`` (sensitivity or auc) of each class, with its gain where there is one."""
    found = []
    for index in range(len(row["classes"])):
        key = f"{figure}/{index}"
        text = with_interval(row["levels"][key])
        found.append(text if key not in row["gains"] else f"{text}, {with_interval(row['gains'][key], '+')}")
    return (row["title"], *found)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as Markdown: for each classifier the arms, the classes, and what a real classifier sees."""
    lines = []
    for classifier in dict.fromkeys(row["classifier"] for row in rows):
        ours = [row for row in rows if row["classifier"] == classifier]
        first = ours[0]
        lines += [
            f"## {classifier}, seeds {', '.join(map(str, first['seeds']))}, rare class {first['rare_class']}, "
            f"{first['test_patients']} test patients",
            "",
        ]
        table: list[Sequence[object]] = []
        for group, title in GROUPS.items():
            members = [row for row in ours if row["group"] == group]
            if members:
                table += [(f"**{title}**", *[""] * (len(HEADS) - 1)), *map(cells, members)]
        lines += markdown_table(HEADS, table)
        for figure, title in (("sensitivity", "Sensitivity"), ("auc", "AUC")):
            lines += [f"{title} of each class, and its gain:", ""]
            lines += markdown_table(("arm", *first["classes"]), [class_cells(row, figure) for row in ours])
        agreement: Any = next((row["agreement"] for row in ours if row["arm"] == BASELINE), {})
        if agreement:
            lines += [
                "Trained on real, tested on synthetic: class found, and diversity over the real clips' own:",
                "",
            ]
            lines += markdown_table(
                ("clips", "class", "number", "found, %", "diversity, %"), agreement_cells(agreement)
            )
    return "\n".join([*lines, NOTE, ""])


def agreement_cells(agreement: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows of (level, class, number, found in percent, diversity in percent of the real clips' own)."""
    return [
        (
            level,
            cls,
            f"{row['count']:.0f}",
            f"{100 * row['found']:.0f}",
            NONE if row["diversity"] is None else f"{100 * row['diversity']:.0f}",
        )
        for level, classes in sorted(agreement.items(), reverse=True)
        for cls, row in classes.items()
    ]


def write_table(
    folder: Path, results: Sequence[Mapping[str, Any]], resamples: int = RESAMPLES
) -> list[dict[str, Any]]:
    """Writes ``table.md``, ``table.json`` and ``gains.png``; returns the rows."""
    rows = summarise(results, resamples)
    write_json(folder / "table.json", rows)
    write_text(folder / "table.md", markdown(rows))
    draw_gains(folder / "gains.png", rows)
    return rows
