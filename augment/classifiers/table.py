"""One table of many classifier runs: mean and deviation over seeds, and the gain over the baseline of the same seed;
of all classes together, and the sensitivity for each.

python -m augment.classifiers.table runs/reproduce
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import write_text
from ctrlgenaug.number_format import spread
from ctrlgenaug.plain_data import read_json, write_json

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
        ``gain_deviation`` in percent; ``sensitivity`` holds the same for each class, with the class's ``count`` in the
        test split. Deviations over seeds are of a sample (n - 1), None for one seed. Gains pair runs of equal seeds.
    """
    rows = []
    ordered = sorted(runs.items(), key=lambda item: (item[0][0], item[0][1] != BASELINE, item[0][1]))
    for (classifier, setting), by_seed in ordered:
        tested = {seed: result["test"][level] for seed, result in by_seed.items()}
        others = {} if setting == BASELINE else runs.get((classifier, BASELINE), {})
        baseline = {seed: result["test"][level] for seed, result in others.items()}
        row: dict[str, Any] = {"classifier": classifier, "setting": setting, "seeds": sorted(by_seed)}
        for key in KEYS:
            row[key] = _over_seeds(tested, baseline, lambda found, key=key: found[key])
        first = tested[min(tested)]
        row["sensitivity"] = {
            cls: {"count": figures["count"]}
            | _over_seeds(tested, baseline, lambda found, cls=cls: found["per_class"][cls]["sensitivity"])
            for cls, figures in first["per_class"].items()
        }
        rows.append(row)
    return rows


def _over_seeds(
    tested: dict[int, dict[str, Any]],
    baseline: dict[int, dict[str, Any]],
    figure: Callable[[dict[str, Any]], float | None],
) -> dict[str, float | None]:
    """One figure over the seeds, and its gain over the baseline of the same seed; both in percent."""
    values = {seed: value for seed, found in tested.items() if (value := figure(found)) is not None}
    before = {seed: value for seed, found in baseline.items() if (value := figure(found)) is not None}
    mean, deviation = _spread([100 * value for value in values.values()])
    gain, gain_deviation = _spread(
        [100 * (value - before[seed]) for seed, value in values.items() if seed in before]
    )
    return {"mean": mean, "deviation": deviation, "gain": gain, "gain_deviation": gain_deviation}


def _spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    if not values:
        return None, None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def markdown(rows: Sequence[dict[str, Any]], level: str) -> str:
    """The rows as two Markdown tables: the figures, and the sensitivity for each class."""
    classes = {cls: found["count"] for row in rows for cls, found in row["sensitivity"].items()}
    gain = "gain in balanced accuracy"
    heads = ["classifier", "setting", "seeds", *(key.replace("_", " ") for key in KEYS), gain]
    overall, by_class = [], []
    for row in rows:
        name = [row["classifier"], row["setting"], str(len(row["seeds"]))]
        cells = [spread(row[key]["mean"], row[key]["deviation"]) for key in KEYS]
        balanced = row["balanced_accuracy"]
        overall.append([*name, *cells, spread(balanced["gain"], balanced["gain_deviation"], sign="+")])
        cells = []
        for cls in classes:
            found = row["sensitivity"][cls]
            cells.append(spread(found["mean"], found["deviation"]))
            if row["setting"] != BASELINE:
                cells[-1] += f" ({spread(found['gain'], found['gain_deviation'], sign='+')})"
        by_class.append([*name, *cells])
    lines = [*_table(heads, overall), "", "Sensitivity for each class (its gain):", ""]
    lines += _table([*heads[:3], *(f"{cls}, n = {count}" for cls, count in classes.items())], by_class)
    note = (
        f"Test split, by {level}, percent; ± is the deviation over seeds; gains pair runs of the same seed; "
        f"n is the number of test {level}s."
    )
    return "\n".join([*lines, "", note]) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def main() -> None:
    parser = steps.parser(__doc__, "python -m augment.classifiers.table runs/reproduce --level clip")
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
