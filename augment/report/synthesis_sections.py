"""The synthetic clips: what was made, how they look beside real ones, their VAE-Seq, what the filter kept and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augment.generation.plan import parse_file_name
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality.filter_folder import EXAMPLES, PLOT, REPORT
from augment.quality.vae_seq import RESULTS
from augment.report.data_sections import clip_strip, some
from augment.report.page import Fold, Heading, Key, Notice, Section, Table, picture
from augment.report.run_folders import RunFolders
from ctrlgenaug.errors import UserError
from ctrlgenaug.number_format import number
from ctrlgenaug.plain_data import read_json

SHOWN_OF_A_CLASS = 2  # synthetic clips beside the real one


def json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``, None if there is no such file; a `UserError` if it is something else."""
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError("is not a JSON object", "Write it again", path)
    return found


def generation_section(folders: RunFolders) -> Section:
    """Settings of the synthesis, clips by class, the contact sheets."""
    section, folder = Section("Generation"), folders.synthetic
    synthesis = SynthesisFolder(folder)
    clips = synthesis.clips(folders.spec)
    found, strangers = clips.samples, clips.foreign
    if not found:
        section.blocks.append(Notice(f"No synthetic clips in {folder}. Made by generate.py."))
        return section
    settings = synthesis.settings()
    if settings.get("split", "train") != "train":
        section.blocks.append(
            Notice(f"Made from {settings['split']} conditions: no classifier may learn from these clips.")
        )
    if strangers:
        section.blocks.append(Notice(f"{len(strangers)} files are not named like clips: {some(strangers)}."))
    made = Counter(sample.cls for sample in found.values())
    sources = {cls: {sample.clip for sample in found.values() if sample.cls == cls} for cls in made}
    for cls in folders.spec.classes:
        if not made[cls]:
            section.blocks.append(Notice(f"No synthetic clip of class {cls}."))
    rows = [(cls, made[cls], len(sources.get(cls, ()))) for cls in folders.spec.classes]
    rows.append(("all", len(found), len(set().union(*sources.values()))))
    section.blocks.append(Table(("class", "synthetic clips", "from real clips"), rows, numeric=(1, 2)))
    shown = [(key.replace("_", " "), _plain(value)) for key, value in settings.items()]
    section.blocks.append(Table(("setting", "value"), shown, long=(1,), caption=f"Settings of {folder}"))
    for cls in folders.spec.classes:
        sheet = synthesis.contact_sheet(cls)
        if made[cls]:
            section.blocks.append(picture(sheet, f"Synthetic clips of class {cls}, one row each"))
    section.facts = [("synthetic clips", str(len(found)))]
    return section


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Pair:
    """A class's real clip (None if there is none but the conditions' own) and synthetic clips to be shown beside it."""

    cls: str
    real: Path | None
    synthetic: list[Path]


def pairs(folders: RunFolders, shown: int = SHOWN_OF_A_CLASS) -> list[Pair]:
    """For each class the first synthetic clips by name, kept ones first, and a real clip of another patient.

    Another patient than those whose conditions were used, so that likeness is the model's doing.
    """
    spec, folder = folders.spec, folders.home / folders.spec.clips_dir
    kept = SynthesisFolder(folders.filtered).clips(spec).samples
    made = {
        path.name: (path, sample)
        for path, sample in SynthesisFolder(folders.synthetic).clips(spec).samples.items()
    }
    made |= {path.name: (path, sample) for path, sample in kept.items()}
    first = {path.name for path in kept}
    real = list(spec.rows(folder, "train")) if spec.metadata_path(folder, "train").is_file() else []
    found = []
    for cls in spec.classes:
        of_class = [(path, spec.patient(sample.clip)) for path, sample in made.values() if sample.cls == cls]
        of_class.sort(key=lambda item: (item[0].name not in first, item[0].name))
        source = of_class[0][1] if of_class else None
        others = [clip for clip in real if clip.cls == cls and spec.patient(clip.name) != source]
        shows = spec.patient(others[0].name) if others else None
        chosen = [path for path, patient in of_class if patient != shows][:shown]
        found.append(Pair(cls, folder / others[0].file_name if others else None, chosen))
    return found


def beside_section(folders: RunFolders) -> Section:
    """For each class a real clip, and synthetic ones that were made from other patients' conditions."""
    section, found = Section("Real beside synthetic"), pairs(folders)
    if not any(pair.real and pair.synthetic for pair in found):
        section.blocks.append(Notice("There are no real and synthetic clips of one class to be compared."))
        return section
    section.blocks.append(
        "The first clips by name, those that the filter kept before others; not picked by eye. Synthetic clips were "
        "made from other patients' conditions than the real one's, so that likeness is the model's doing."
    )
    for pair in found:
        section.blocks.append(Heading(f"Class {pair.cls}"))
        if pair.real is None:
            section.blocks.append(Notice(f"No real clip of class {pair.cls} but the conditions' own."))
        else:
            section.blocks.append(clip_strip(pair.real, f"Real: {pair.real.stem}"))
        if not pair.synthetic:
            section.blocks.append(Notice(f"No synthetic clip of class {pair.cls} to show."))
        section.blocks += [clip_strip(path, f"Synthetic: {path.stem}") for path in pair.synthetic]
    return section


def vae_seq_section(folders: RunFolders) -> Section:
    """VAE-Seq of the synthetic clips by class, with the histogram."""
    section, path = Section("VAE-Seq"), folders.synthetic / f"{RESULTS}.json"
    scores = json_object(path)
    if not scores:
        section.blocks.append(Notice(f"No scores in {path}. Made by VAE-Seq.py."))
        return section
    by_class: dict[str, list[float]] = defaultdict(list)
    unnamed = []
    for name, score in scores.items():
        try:
            by_class[parse_file_name(name, folders.spec).cls].append(float(score))
        except UserError:
            unnamed.append(name)
    if unnamed:
        section.blocks.append(Notice(f"{len(unnamed)} scores are of other files: {some(unnamed)}."))
    there = {path.name for path in SynthesisFolder(folders.synthetic).clips(folders.spec).samples}
    for what, names in (
        ("clips have no score", there - set(scores)),
        ("scored clips are gone", set(scores) - there),
    ):
        if names:
            section.blocks.append(Notice(f"{len(names)} {what}: {some(sorted(names))}."))
    section.blocks.append(
        "How alike neighbouring frames are to the VAE, in percent. Very low: frames do not belong together; very high: "
        "they hardly differ."
    )
    everything = [score for values in by_class.values() for score in values]
    groups = [(cls, by_class[cls]) for cls in folders.spec.classes if by_class[cls]] + [("all", everything)]
    rows = [
        (cls, len(part), *(number(float(f(part))) for f in (np.mean, np.std, np.min, np.median, np.max)))
        for cls, part in groups
        if part
    ]
    heads = ("class", "clips", "mean", "deviation", "least", "median", "most")
    section.blocks.append(Table(heads, rows, numeric=range(1, len(heads))))
    section.blocks.append(picture(path.with_suffix(".png"), "VAE-Seq by class"))
    if everything:
        section.facts = [("VAE-Seq, mean %", number(float(np.mean(everything))))]
    return section


def filter_section(folders: RunFolders) -> Section:
    """What each level of the noise filter dropped, by class and by reason, with examples."""
    section, path = Section("Noise filter"), folders.filtered / REPORT
    found = json_object(path)
    if found is None:
        section.blocks.append(Notice(f"No {path}. Made by noisy_data_filter.py."))
        return section
    counts, reasons = found["counts"], found["reasons"]
    levels = found.get("levels", ["semantic", "within", "between"])
    last = "kept" if all("kept" in row for row in counts.values()) else f"after_{levels[-1]}"
    columns = {"before": "made", **{f"after_{level}": level for level in levels}, last: "kept"}
    total = {key: sum(row[key] for row in counts.values()) for row in counts.values() for key in row}
    table = {**counts, "all": total}
    section.blocks += [Notice(f"The filter warned: {warning}.") for warning in found["warnings"]]
    # "strangers" in records of before
    foreign = found.get("foreign", found.get("strangers", {}))
    if foreign:
        section.blocks.append(Notice(f"Files left out: {some(list(foreign))}."))
    share = f"{total[last]} of {total['before']} clips are kept"
    section.blocks.append(Key(f"{share}."))
    rows = [(cls, *(row[key] for key in columns)) for cls, row in table.items()]
    heads = ("class", *columns.values())
    caption = "Clips left after each level"
    section.blocks.append(Table(heads, rows, numeric=range(1, len(heads)), caption=caption))
    used = [reason for reason in reasons if total.get(f"dropped_{reason}")]
    if used:
        rows = [(reasons[reason], *(row[f"dropped_{reason}"] for row in table.values())) for reason in used]
        caption = "Dropped clips, by the first reason against them"
        section.blocks.append(Table(("why", *table), rows, range(1, len(table) + 1), caption=caption))
    thresholds = {"": found["thresholds"], **found.get("class_thresholds", {})}
    for cls, cut in thresholds.items():
        if cut:
            whose = f" of class {cls}" if cls else ""
            low, high = number(cut["low"]), number(cut["high"])
            section.blocks.append(f"VAE-Seq{whose} between {low} and {high} % passes.")
    if any(thresholds.values()):
        section.blocks.append(picture(folders.filtered / PLOT, "Thresholds: 4-means over VAE-Seq values"))
    section.blocks.append(picture(folders.filtered / EXAMPLES, "Kept and dropped clips, with the reason"))
    settings = "\n".join(f"{key}: {_plain(value)}" for key, value in found["settings"].items())
    section.blocks.append(Fold("Settings of the filter", settings))
    section.facts = [("kept by the filter", f"{total[last]} of {total['before']}")]
    return section
