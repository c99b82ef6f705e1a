"""Whether synthetic clips help: train_classifier.py, reproduce.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augment.report.data_sections import some
from augment.report.page import Notice, Section, Table, picture
from augment.report.run_folders import Places
from augment.report.synthesis_sections import json_object
from ctrlgenaug.errors import UserError
from ctrlgenaug.number_format import percent, spread
from ctrlgenaug.plain_data import read_json

FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
}


def classifiers_section(places: Places) -> Section:
    """Single classifier runs on the test split, by patient."""
    section, rows = Section("Classifiers"), []
    for folder in places.classifiers:
        found = json_object(folder / "metrics.json")
        if found is None:
            section.blocks.append(Notice(f"{folder} holds no finished run. Made by train_classifier.py."))
            continue
        if found["data_name"] != places.spec.data_name:
            section.blocks.append(Notice(f"{folder} is of {found['data_name']}."))
            continue
        test = found["test"]["patient"]
        low, high = test.get("intervals", {}).get("balanced_accuracy", (None, None))
        rows.append((folder, found["classifier"], found["paradigm"], found["seed"], test["count"],
                     *(percent(test[key]) for key in FIGURES), f"{percent(low)} to {percent(high)}"))  # fmt: skip
        section.blocks.append(picture(folder / "curves.png", f"{folder}: training"))
        section.blocks.append(
            picture(folder / "confusion_matrix.png", f"{folder}: confusion on the test split")
        )
        if found["strangers"]:
            section.blocks.append(Notice(f"{folder}: files left out: {some(found['strangers'])}."))
    if rows:
        heads = (
            "run",
            "classifier",
            "paradigm",
            "seed",
            "patients",
            *FIGURES.values(),
            "95 % of balanced accuracy",
        )
        caption = "Test split, by patient, percent"
        section.blocks.insert(0, Table(heads, rows, numeric=range(3, len(heads)), long=(0,), caption=caption))
    elif not places.classifiers:
        name = f"classifier_{places.spec.data_name}*"
        section.blocks.append(Notice(f"No run in {name}. Made by train_classifier.py."))
    return section


def comparison_section(places: Places) -> Section:
    """reproduce.sh's table: each setting over seeds, its gain over the baseline, the sensitivity for each class."""
    section, path = Section("Does it help?"), places.comparison / "table.json"
    if not path.is_file():
        section.blocks.append(Notice(f"No {path}. Made by reproduce.sh."))
        return section
    runs = _comparison(path)
    overall = [
        (
            row["classifier"],
            row["setting"].replace("_", " "),
            len(row["seeds"]),
            *(spread(row[key]["mean"], row[key]["deviation"]) for key in FIGURES),
            spread(row["balanced_accuracy"]["gain"], row["balanced_accuracy"]["gain_deviation"], sign="+"),
        )
        for row in runs
    ]
    heads = ("classifier", "setting", "seeds", *FIGURES.values(), "gain in balanced accuracy")
    caption = "Test split, percent; ± is the deviation over seeds; gains pair runs of the same seed"
    section.blocks.append(Table(heads, overall, numeric=range(2, len(heads)), caption=caption))
    classes = list(dict.fromkeys(cls for row in runs for cls in row["sensitivity"]))
    by_class = []
    for row in runs:
        cells = []
        for found in (row["sensitivity"][cls] for cls in classes):
            cells += [
                spread(found["mean"], found["deviation"]),
                spread(found["gain"], found["gain_deviation"], sign="+"),
            ]
        by_class.append((row["classifier"], row["setting"].replace("_", " "), *cells))
    heads = ["classifier", "setting"]
    for cls in classes:
        heads += [f"{cls}, n = {runs[0]['sensitivity'][cls]['count']}", "gain"]
    caption = "Sensitivity for each class, percent"
    section.blocks.append(Table(heads, by_class, numeric=range(2, len(heads)), caption=caption))
    single = sorted({row["setting"] for row in runs if len(row["seeds"]) < 2})
    if single:
        section.blocks.append(Notice(f"One seed alone says little: {', '.join(single)}."))
    gains = [row for row in runs if row["balanced_accuracy"]["gain"] is not None]
    if gains:
        best = max(gains, key=lambda row: row["balanced_accuracy"]["gain"])
        figure = best["balanced_accuracy"]
        section.facts = [
            (
                f"best gain in balanced accuracy ({best['classifier']}, {best['setting'].replace('_', ' ')})",
                f"{spread(figure['gain'], figure['gain_deviation'], sign='+')} points",
            )
        ]
    else:
        section.blocks.append(Notice("No setting has a baseline run of the same seed to be compared with."))
    return section


def _comparison(path: Path) -> list[dict[str, Any]]:
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise UserError("is not a table of runs", "Run reproduce.sh again", path)
    return found
