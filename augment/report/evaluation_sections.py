"""What evaluate.py found: class control, steering, distances and coherence, privacy; a table a metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality.evaluation_report import judged_line
from augment.quality.metrics import METRICS
from augment.report.data_sections import some
from augment.report.page import Key, Notice, Section, Table, picture
from augment.report.run_folders import RunFolders
from augment.report.synthesis_sections import json_object
from ctrlgenaug.number_format import number, percent, spread

REPEATS = 0.25  # of the real clips' diversity, below which a generator is said to repeat itself
RETRIEVED = {
    "image_prior": "Image prior",
    "motion_field": "Motion field",
    "optical_flow": "Motion by optical flow",
}
STEERING = (*RETRIEVED, "slice_order", "seed_diversity")
PRIVACY = ("memorisation", "privacy")
FOLLOWED = 2  # times chance, from which a condition is called followed


def _evaluation(folders: RunFolders, section: Section, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """evaluate.py's result, or nothing; a `Notice` in ``section`` where it, or one of ``metrics``, is lacking."""
    found = json_object(folders.evaluation)
    if found is None:
        section.blocks.append(Notice(f"No {folders.evaluation}. Made by evaluate.py."))
        return {}
    if found["data_name"] != folders.spec.data_name:
        section.blocks.append(Notice(f"{folders.evaluation} is of {found['data_name']}. Give --evaluation."))
        return {}
    lacking = [name for name in metrics if not any((found["metrics"].get(name) or {}).values())]
    if lacking:
        made = f"{folders.evaluation} was made without {', '.join(lacking)}. evaluate.py --help."
        section.blocks.append(Notice(made))
    return found


def _metric_table(found: dict[str, Any], name: str) -> list[Table | str]:
    """A metric's table and its note; nothing where it was not computed."""
    rows = {cls: row for cls, row in (found.get("metrics", {}).get(name) or {}).items() if row}
    if not rows:
        return []
    metric = METRICS[name]
    heads, lines = metric.table(rows)
    tool = found.get("tools", {}).get(name)
    caption = f"{metric.title}, with {tool}" if tool else metric.title
    table = Table(heads, lines, numeric=range(1, len(heads)), caption=caption)
    return [table, metric.note] if metric.note else [table]


def control_line(accuracy: float, count: int, classes: int) -> str:
    """How often a classifier that saw only real clips finds the requested class in synthetic ones, in a sentence."""
    return (
        f"A classifier trained only on real clips finds the requested class in {100 * accuracy:.0f} % of {count} "
        f"synthetic clips (chance: {100 / classes:.0f} %)."
    )


def control_section(folders: RunFolders) -> Section:
    """Class control: what a classifier trained on real clips sees in the synthetic ones."""
    section = Section("Class control")
    found = _evaluation(folders, section, ("class_control",))
    rows = found.get("metrics", {}).get("class_control") or {}
    if not rows:
        return section
    total, classes = rows["all"], folders.spec.classes
    section.blocks.append(Key(control_line(total["accuracy"], total["count"], len(classes))))
    section.blocks += _metric_table(found, "class_control")
    for cls, row in rows.items():
        if cls != "all" and row["accuracy"] < 1 / len(classes):
            share = f"Class {cls} is found in {percent(row['accuracy'])} % of its clips: less than by chance."
            section.blocks.append(Notice(share))
    if "confusion" in total:
        table = [(cls, *row) for cls, row in zip(classes, total["confusion"], strict=True)]
        heads = ("asked for", *(f"seen as {cls}" for cls in classes))
        section.blocks.append(Table(heads, table, numeric=range(1, len(heads)), caption="Clips"))
    section.facts = [("class control", f"{percent(total['accuracy'])} %")]
    return section


def steering_section(folders: RunFolders) -> Section:
    """Whether the clips follow their image prior and motion field, in order, and what the seed still changes."""
    section = Section("Steering")
    found = _evaluation(folders, section, STEERING[:2])
    rows = found.get("metrics", {})
    for name, title in RETRIEVED.items():
        total = (rows.get(name) or {}).get("all")
        if total:
            followed = total["retrieved"] >= FOLLOWED * total["chance"]
            section.blocks.append(
                Key(
                    f"{title}: {'followed' if followed else 'hardly followed'}. {percent(total['retrieved'], 0)} % of "
                    f"{total['count']} clips are nearest to their own among {total['candidates']} of their class "
                    f"(chance: {percent(total['chance'], 0)} %); {percent(total['nearer_than_another'], 0)} % are "
                    "nearer to their own than to another's."
                )
            )
            if not followed:
                chance = "hardly more often than by chance"
                section.blocks.append(Notice(f"{title}: a clip's own is retrieved {chance}."))
            section.facts.append((f"{title.lower()} retrieved", f"{percent(total['retrieved'], 0)} %"))
    for name in STEERING:
        section.blocks += _metric_table(found, name)
    return section


def evaluation_section(folders: RunFolders) -> Section:
    """Distances of distributions, smoothness, diversity by class, each beside the real clips' own figure."""
    section = Section("Evaluation")
    found = _evaluation(folders, section)
    metrics = found.get("metrics", {})
    if judged := judged_line(found):
        section.blocks.append(judged)
    section.blocks += _newer_clips(folders.evaluation, found)
    section.blocks += [Notice(f"{warning}.") for warning in found.get("warnings", ())]
    elsewhere = {"class_control", *STEERING, *PRIVACY}
    for name in METRICS:
        if name in elsewhere:
            continue
        section.blocks += _metric_table(found, name)
        total = (metrics.get(name) or {}).get("all")
        if name in ("fvd", "fid") and total and total["matched"] and total["floor"]:
            matched, floor = (
                spread(total[key]["mean"], total[key]["deviation"], 2) for key in ("matched", "floor")
            )
            section.facts.append((f"{METRICS[name].title}, against real {floor}", matched))
    section.blocks += _repetition(metrics.get("diversity") or {})
    wanted = ("fvd", "fid", "smoothness", "diversity")
    lacking = [name for name in wanted if found and name not in metrics]
    if lacking:
        section.blocks.append(Notice(f"{folders.evaluation} was made without {', '.join(lacking)}."))
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


def _newer_clips(evaluation: Path, found: dict[str, Any]) -> list[Notice]:
    """A `Notice` for each folder of judged clips that holds newer ones."""
    notices: list[Notice] = []
    judged = (found.get("judged") or {}).get("synthetic", ())
    if not judged:  # nothing was, or an earlier version did not say what
        return notices
    made = evaluation.stat().st_mtime
    for folder in map(Path, judged):
        names = SynthesisFolder(folder).names()
        newer = [name for name in sorted(names) if (folder / name).stat().st_mtime > made]
        if newer:
            notices.append(
                Notice(f"{folder} has {len(newer)} clips that are newer than {evaluation}: {some(newer)}.")
            )
    return notices


def _repetition(rows: dict[str, Any]) -> list[Notice]:
    """A `Notice` for each class whose synthetic clips are far more alike than its real ones."""
    notices = []
    for cls, row in rows.items():
        made, real = ((row or {}).get(name, {}).get("pixel") for name in ("synthetic", "real"))
        if made is not None and real and made < REPEATS * real:
            found = f"mean distance {number(made)} grey values, of real clips {number(real)}"
            notices.append(Notice(f"Synthetic clips of {cls} hardly differ from each other: {found}."))
    return notices


def privacy_section(folders: RunFolders) -> Section:
    """Synthetic clips that lie suspiciously near to a training clip; what they tell about who was trained on."""
    section = Section("Privacy")
    found = _evaluation(folders, section, ("memorisation",))
    totals = {name: (found.get("metrics", {}).get(name) or {}).get("all") or {} for name in PRIVACY}
    if not totals["memorisation"]:
        return section
    section.blocks.append(
        "A synthetic clip is flagged if it is nearer to a training clip than real clips of different patients "
        "nearly ever are to each other. Some likeness to the source is what the conditions ask for: look at "
        "the pairs before calling one a copy."
    )
    for name in PRIVACY:
        section.blocks += _metric_table(found, name)
    for kind, row in totals["memorisation"].items():
        if row["flagged_files"]:
            flagged = f"Possible copies by {kind} distance: {some(row['flagged_files'])}."
            section.blocks.append(Notice(flagged))
        section.facts.append((f"possible copies, by {kind}", f"{row['flagged']} of {row['count']}"))
    for kind, row in totals["privacy"].items():
        section.facts.append((f"membership AUC, by {kind}", number(row["membership"]["auc"])))
    if totals["privacy"]:
        path = folders.evaluation.with_name(f"{folders.evaluation.stem}_distances.png")
        section.blocks.append(picture(path, "Distance to the nearest training clip"))
    section.blocks.append(picture(folders.evaluation.with_suffix(".png"), "The closest pairs"))
    return section
