"""Whether synthetic clips help: what reproduce.sh found, as tables and pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augment.comparison.arms import BASELINE, GROUPS
from augment.comparison.pictures import draw_agreement, draw_classes
from augment.comparison.statistics import PRIMARY
from augment.comparison.table import HEADS, NOTE, agreement_cells, cells, class_cells, with_interval
from augment.report.page import Heading, Key, Notice, Section, Table, picture
from augment.report.run_folders import RunFolders
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json

FEW_SEEDS = 5  # below which the intervals say little about other trainings


def comparison_section(folders: RunFolders) -> Section:
    """Each arm's figures and its gain over real clips alone, by class too, with intervals and a plain verdict."""
    section, path = Section("Does it help?"), folders.comparison / "table.json"
    if not path.is_file():
        section.blocks.append(Notice(f"No {path}. Made by reproduce.sh."))
        return section
    rows = _comparison(path)
    section.blocks += [NOTE, picture(folders.comparison / "gains.png", "Gains with their 95 % intervals")]
    for classifier in dict.fromkeys(row["classifier"] for row in rows):
        ours = [
            row
            for group in GROUPS
            for row in rows
            if (row["group"], row["classifier"]) == (group, classifier)
        ]
        _one_classifier(section, classifier, ours)
    single = sorted({row["title"] for row in rows if len(row["seeds"]) < FEW_SEEDS})
    if single:
        section.blocks.append(Notice(f"Fewer than {FEW_SEEDS} seeds say little: {', '.join(single)}."))
    synthetic = [row for row in rows if row["group"] in ("synthetic", "both") and row["gains"]]
    if synthetic:
        best = max(synthetic, key=lambda row: row["gains"][PRIMARY]["value"])
        section.facts = [
            (
                f"best gain in balanced accuracy ({best['classifier']}, {best['title']})",
                f"{with_interval(best['gains'][PRIMARY], '+')} points",
            )
        ]
    return section


def _one_classifier(section: Section, classifier: str, rows: Sequence[Mapping[str, Any]]) -> None:
    first = rows[0]
    section.blocks.append(Heading(classifier))
    section.blocks += [Key(line) for line in _answers(rows)]
    caption = f"Rare class {first['rare_class']}; {first['test_patients']} test patients"
    section.blocks.append(
        Table(HEADS, [cells(row) for row in rows], numeric=(1, 2, 4, 5, 6, 7), caption=caption)
    )
    for figure, title in (("sensitivity", "Sensitivity"), ("auc", "AUC")):
        table = [class_cells(row, figure) for row in rows]
        caption = f"{title} of each class and its gain, percent"
        section.blocks.append(
            Table(("arm", *first["classes"]), table, range(1, len(table[0])), caption=caption)
        )
    agreement: Any = next((row["agreement"] for row in rows if row["arm"] == BASELINE), {})
    if agreement:
        heads = ("clips", "class", "number", "found, %", "diversity, %")
        caption = "Trained on real, tested on synthetic: class found; diversity over the real clips' own"
        section.blocks.append(Table(heads, agreement_cells(agreement), numeric=(2, 3, 4), caption=caption))
    with tempfile.TemporaryDirectory() as folder:
        classes, diversity = Path(folder) / "classes.png", Path(folder) / "diversity.png"
        draw_classes(classes, rows, classifier)
        section.blocks.append(picture(classes, f"{classifier}: sensitivity of each class, by arm"))
        if draw_agreement(diversity, rows, classifier):
            section.blocks.append(picture(diversity, f"{classifier}: diversity against class agreement"))


def _answers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The verdict on the best arm with synthetic clips, in a sentence."""
    synthetic = [row for row in rows if row["group"] == "synthetic" and row["gains"]]
    if not synthetic:
        return []
    best = max(synthetic, key=lambda row: row["gains"][PRIMARY]["value"])
    gain = with_interval(best["gains"][PRIMARY], "+")
    return [
        f"Best with synthetic clips: {best['title']}: {gain} points of balanced accuracy, {best['verdict']}."
    ]


def _comparison(path: Path) -> list[dict[str, Any]]:
    found = read_json(path)
    if not isinstance(found, list) or not found:
        raise UserError("is not a table of arms", "Run reproduce.sh again", path)
    if any("setting" in row for row in found):
        raise UserError("is of an earlier version", "Run reproduce.sh again; finished runs are kept", path)
    return found
