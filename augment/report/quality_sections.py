"""How good the synthetic clips are, and whether they help: evaluate.py, train_classifier.py, reproduce.sh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augment.report.data_sections import some
from augment.report.page import Key, Notice, Section, Table, picture
from augment.report.run_folders import Places
from augment.report.synthesis_sections import json_object
from ctrlgenaug.errors import UserError
from ctrlgenaug.number_format import NONE, number, percent, spread
from ctrlgenaug.plain_data import read_json

FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
}
REPEATS = 0.25  # of the real clips' diversity, below which a generator is said to repeat itself


def _evaluation(places: Places, section: Section, metric: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """evaluate.py's whole result, and its rows of ``metric`` by class; a `Notice` in ``section`` if it lacks them."""
    found = json_object(places.evaluation)
    if found is None:
        section.blocks.append(Notice(f"No {places.evaluation}. Made by evaluate.py."))
        return {}, {}
    if found["data_name"] != places.spec.data_name:
        section.blocks.append(Notice(f"{places.evaluation} is of {found['data_name']}. Give --evaluation."))
        return {}, {}
    rows = found["metrics"].get(metric, {})
    if metric and not any(rows.values()):
        section.blocks.append(Notice(f"{places.evaluation} was made without {metric}. evaluate.py --help."))
    return found, rows


def control_line(accuracy: float, count: int, classes: int) -> str:
    """How often a classifier that saw only real clips finds the requested class in synthetic ones, in a sentence."""
    return (
        f"A classifier trained only on real clips finds the requested class in {100 * accuracy:.0f} % of {count} "
        f"synthetic clips (chance: {100 / classes:.0f} %)."
    )


def control_section(places: Places) -> Section:
    """Class control: what a classifier trained on real clips sees in the synthetic ones."""
    section = Section("Class control")
    found, rows = _evaluation(places, section, "class_control")
    if not rows:
        return section
    total = rows["all"]
    section.blocks.append(Key(control_line(total["accuracy"], total["count"], len(places.spec.classes))))
    table = [(cls, row["count"], percent(row["accuracy"])) for cls, row in rows.items()]
    heads = ("class asked for", "clips", "found, %")
    section.blocks.append(Table(heads, table, numeric=(1, 2)))
    chance = 1 / len(places.spec.classes)
    for cls, row in rows.items():
        if cls != "all" and row["accuracy"] < chance:
            section.blocks.append(
                Notice(
                    f"Class {cls} is found in {percent(row['accuracy'])} % of its clips: less than by chance."
                )
            )
    if "confusion" in total:
        classes = places.spec.classes
        table = [(cls, *row) for cls, row in zip(classes, total["confusion"], strict=True)]
        heads = ("asked for", *(f"seen as {cls}" for cls in classes))
        section.blocks.append(Table(heads, table, numeric=range(1, len(heads)), caption="Clips"))
    section.blocks.append(f"Asked: {found['tools'].get('class_control', 'a classifier')}.")
    section.facts = [("class control", f"{percent(total['accuracy'])} %")]
    return section


def evaluation_section(places: Places) -> Section:
    """Frechet distances, smoothness, diversity by class, each beside the real clips' own figure."""
    section = Section("Evaluation")
    found, _ = _evaluation(places, section, "")
    metrics = found.get("metrics", {})
    for metric, title in (("fvd", "FVD"), ("fid", "FID by frame")):
        rows = [(cls, *_frechet(row)) for cls, row in metrics.get(metric, {}).items() if row]
        if rows:
            heads = ("class", "all clips", "equal numbers", "real against real", "of each")
            caption = (
                f"{title}, with {found['tools'].get(metric)}. Compare the middle columns with each other."
            )
            section.blocks.append(Table(heads, rows, numeric=range(1, 5), caption=caption))
            section.facts.append((f"{title}, against real {rows[0][3]}", rows[0][2]))
    for metric, title in (("vae_seq", "VAE-Seq, %"), ("smoothness", "Motion smoothness, %")):
        rows = [
            (cls, *(_spread(row.get(name)) for name in ("synthetic", "real")))
            for cls, row in metrics.get(metric, {}).items()
        ]
        if rows:
            section.blocks.append(Table(("class", "synthetic", "real"), rows, numeric=(1, 2), caption=title))
    if "diversity" in metrics:
        kinds = [(name, kind) for kind in ("pixel", "latent") for name in ("synthetic", "real")]
        rows = [
            (cls, *(number(row.get(name, {}).get(kind), 4) for name, kind in kinds))
            for cls, row in metrics["diversity"].items()
        ]
        heads = ("class", *(f"{name}, {kind}" for name, kind in kinds))
        caption = "Diversity: mean distance of two clips of a set"
        section.blocks.append(Table(heads, rows, numeric=range(1, 5), caption=caption))
        section.blocks += _repetition(metrics["diversity"])
    lacking = [name for name in ("fvd", "fid", "smoothness", "diversity") if found and name not in metrics]
    if lacking:
        section.blocks.append(Notice(f"{places.evaluation} was made without {', '.join(lacking)}."))
    published = found.get("published", {})
    if published:
        units = {"fvd": ("FVD", ""), "vae_seq": ("VAE-Seq", " %"), "smoothness": ("smoothness", " %")}
        shown = [
            f"{units[key][0]} {value}{units[key][1]}" for key, value in published.items() if key in units
        ]
        section.blocks.append(f"Published, by another protocol and not comparable: {', '.join(shown)}.")
    if found.get("failures"):
        section.blocks.append(Notice(f"Not readable: {some(list(found['failures']))}."))
    return section


def _repetition(rows: dict[str, Any]) -> list[Notice]:
    """A `Notice` for each class whose synthetic clips are far more alike than its real ones."""
    notices = []
    for cls, row in rows.items():
        made, real = (row.get(name, {}).get("pixel") for name in ("synthetic", "real"))
        if made is not None and real and made < REPEATS * real:
            found = f"mean distance {number(made)} grey values, of real clips {number(real)}"
            notices.append(Notice(f"Synthetic clips of {cls} hardly differ from each other: {found}."))
    return notices


def _frechet(row: dict[str, Any]) -> tuple[str, str, str, str]:
    size = str(row["matched"]["size"]) if row["matched"] else NONE
    return number(row["value"]), _spread(row["matched"]), _spread(row["floor"]), size


def _spread(value: dict[str, Any] | None) -> str:
    return spread(value["mean"], value["deviation"], 2) if value else NONE


def memorisation_section(places: Places) -> Section:
    """Synthetic clips that lie suspiciously near to a training clip, and the closest pairs."""
    section = Section("Memorisation")
    found, rows = _evaluation(places, section, "memorisation")
    table, flagged = [], {}
    for cls, kinds in rows.items():
        for kind, row in kinds.items():
            shares = (
                number(row[key], 4) for key in ("threshold", "median_distance", "median_between_patients")
            )
            own = number(100 * row["nearest_is_its_own_source"], 0)
            table.append((cls, kind, f"{row['flagged']} of {row['count']}", *shares, own))
            if cls == "all":
                flagged[kind] = row
    if not table:
        return section
    section.blocks.append(
        "A synthetic clip is flagged if it is nearer to a training clip than real clips of different patients "
        "nearly ever are to each other. Some likeness to the source is what the conditions ask for: look at "
        "the pairs before calling one a copy."
    )
    heads = ("class", "distance", "flagged", "threshold", "median", "between patients", "own source, %")
    section.blocks.append(Table(heads, table, numeric=range(2, 7)))
    for kind, row in flagged.items():
        if row["flagged_files"]:
            section.blocks.append(
                Notice(f"Possible copies by {kind} distance: {some(row['flagged_files'])}.")
            )
    section.blocks.append(picture(places.evaluation.with_suffix(".png"), "The closest pairs"))
    section.facts = [
        (f"possible copies, by {kind}", f"{row['flagged']} of {row['count']}")
        for kind, row in flagged.items()
    ]
    return section


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
