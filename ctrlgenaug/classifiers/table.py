"""One table of many classifier runs: mean and deviation over seeds, and the gain over the baseline of the same seed.

python -m ctrlgenaug.classifiers.table runs/reproduce
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import read_json, write_json, write_text

KEYS = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
BASELINE = "baseline"


def collect(folder: Path) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """{(classifier, setting): {seed: metrics.json}} of the runs in ``folder/{classifier}/{setting}/seed_{n}``."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted(folder.glob("*/*/seed_*/metrics.json")):
        seed = path.parent.name.removeprefix("seed_")
        if seed.isdigit():
            found[path.parts[-4], path.parts[-3]][int(seed)] = read_json(path)
    if not found:
        raise UserError("holds no finished run", "Run reproduce.sh first", folder)
    return dict(found)


def summarise_runs(
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]], level: str = "patient"
) -> list[dict[str, Any]]:
    """A row for each classifier and setting, baselines first.

    Returns:
        ``classifier``, ``setting``, ``seeds``, and for each of `KEYS` ``mean``, ``deviation``, ``gain`` and
        ``gain_deviation`` in percent; deviations over seeds are of a sample (n - 1), None for one seed. Gains pair runs
        of equal seeds.
    """
    rows = []
    ordered = sorted(runs.items(), key=lambda item: (item[0][0], item[0][1] != BASELINE, item[0][1]))
    for (classifier, setting), by_seed in ordered:
        baseline = runs.get((classifier, BASELINE), {})
        row: dict[str, Any] = {"classifier": classifier, "setting": setting, "seeds": sorted(by_seed)}
        for key in KEYS:
            values = {seed: result["test"][level][key] for seed, result in by_seed.items()}
            values = {seed: 100 * value for seed, value in values.items() if value is not None}
            gains = [
                value - 100 * baseline[seed]["test"][level][key]
                for seed, value in values.items()
                if seed in baseline and baseline[seed]["test"][level][key] is not None and setting != BASELINE
            ]
            row[key] = dict(zip(("mean", "deviation"), _spread(list(values.values())), strict=True))
            row[key] |= dict(zip(("gain", "gain_deviation"), _spread(gains), strict=True))
        rows.append(row)
    return rows


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def markdown(rows: Sequence[dict[str, Any]], level: str) -> str:
    """The rows as a Markdown table."""

    def cell(mean: float | None, deviation: float | None, sign: str = "") -> str:
        if mean is None:
            return "-"
        return f"{mean:{sign}.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")

    heads = [
        "classifier",
        "setting",
        "seeds",
        *(key.replace("_", " ") for key in KEYS),
        "gain in balanced accuracy",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [cell(row[key]["mean"], row[key]["deviation"]) for key in KEYS]
        gain = row["balanced_accuracy"]
        cells.append(cell(gain["gain"], gain["gain_deviation"], "+"))
        lines.append(
            "| " + " | ".join([row["classifier"], row["setting"], str(len(row["seeds"])), *cells]) + " |"
        )
    note = (
        f"Test split, by {level}, percent; ± is the deviation over seeds; gains pair runs of the same seed."
    )
    return "\n".join([*lines, "", note]) + "\n"


def main() -> None:
    parser = steps.parser(__doc__, "python -m ctrlgenaug.classifiers.table runs/reproduce --level clip")
    parser.add_argument("folder", help="holds {classifier}/{setting}/seed_{n}/metrics.json")
    parser.add_argument("--level", choices=("patient", "clip"), default="patient", help="(default: patient)")
    options = parser.parse_args()
    folder = Path(options.folder)
    rows = summarise_runs(collect(folder), options.level)
    text = markdown(rows, options.level)
    write_json(folder / "table.json", rows)
    write_text(folder / "table.md", text)
    print(text)
    print(f"table of {sum(len(row['seeds']) for row in rows)} runs in {folder / 'table.md'}")


if __name__ == "__main__":
    steps.run(main)
