"""Whether synthetic clips help: train_classifier.py, reproduce.sh."""

from __future__ import annotations

from augment.report.data_sections import some
from augment.report.page import Notice, Section, Table, picture
from augment.report.run_folders import RunFolders
from augment.report.synthesis_sections import json_object
from ctrlgenaug.number_format import percent

FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auc": "AUC",
}


def classifiers_section(folders: RunFolders) -> Section:
    """Single classifier runs on the test split, by patient."""
    section, rows = Section("Classifiers"), []
    for folder in folders.classifiers:
        found = json_object(folder / "metrics.json")
        if found is None:
            section.blocks.append(Notice(f"{folder} holds no finished run. Made by train_classifier.py."))
            continue
        if found["data_name"] != folders.spec.data_name:
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
        skipped = found.get("skipped", found.get("strangers"))  # the second is its former name
        if skipped:
            section.blocks.append(Notice(f"{folder}: files left out: {some(skipped)}."))
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
    elif not folders.classifiers:
        name = f"classifier_{folders.spec.data_name}*"
        section.blocks.append(Notice(f"No run in {name}. Made by train_classifier.py."))
    return section
