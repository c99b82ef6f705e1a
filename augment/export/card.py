"""The card of an exported data set: README.md with what somebody who gets it must know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from augment.export.formats import SYNTHETIC, Format
from augment.generation.plan import Sample
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality.filter_folder import REPORT
from augment.quality.vae_seq import RESULTS
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.files import write_text
from ctrlgenaug.plain_data import read_json

NO_LICENSE = "not stated: name one before you share this folder"


def noted(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a folder; empty if it is not there."""
    found = read_json(folder / name) if (folder / name).is_file() else {}
    return found if isinstance(found, dict) else {}


def write_card(
    target: Path,
    source: Path,
    spec: DatasetSpec,
    form: Format,
    samples: Sequence[Sample],
    *,
    license_name: str,
    evaluation: Path | None,
    spacing_known: int,
) -> None:
    """Writes ``target/README.md``.

    Args:
        target: the exported folder.
        source: the folder of MP4s, with what generation, VAE-Seq and filter noted there.
        spec: the data set whose clips gave the conditions.
        form: the exported format.
        samples: the clips that were exported.
        license_name: as the user gave it, or `NO_LICENSE`.
        evaluation: evaluate.py's JSON, if it is given.
        spacing_known: clips whose source has a spacing.
    """
    settings, report, scores = (
        SynthesisFolder(source).settings(),
        noted(source, REPORT),
        noted(source, f"{RESULTS}.json"),
    )
    counts = Counter(sample.cls for sample in samples)
    lines = [
        f"# Synthetic clips after {spec.data_name}",
        "",
        f"**{SYNTHETIC}** {len(samples)} clips; {form.title}. Labels are in `labels.csv`.",
        "",
        f"- License: {license_name}",
        f"- Clips by class: {', '.join(f'{cls} {counts[cls]}' for cls in spec.classes if counts[cls])}",
        f"- Source clips, whose conditions were used: {len({sample.clip for sample in samples})}",
        f"- Spacing: that of the source clip for {spacing_known} clips, unknown for {len(samples) - spacing_known}",
        "- A clip's name is source clip, class asked for, noise seed. The class was asked of the model; nobody has",
        "  confirmed it.",
        "- Clips follow the anatomy of their source clips. Whether they may be shared is for the owner of the source",
        "  data to say.",
        "",
    ]
    lines += _section("Model and settings", settings, "No settings.json was beside the clips.")
    lines += _scores(scores, samples)
    if evaluation is not None:
        found = read_json(evaluation)
        lines += _section("Evaluation", found.get("metrics", found) if isinstance(found, dict) else {}, "")
    if report:
        kept = {key: value for key, value in report.items() if key != "samples"}
        lines += _section("Filter", kept, "")
    else:
        lines += ["## Filter", "", "The clips were not filtered.", ""]
    write_text(target / "README.md", "\n".join(lines))


def _section(title: str, values: Mapping[str, Any], otherwise: str) -> list[str]:
    if not values:
        return [f"## {title}", "", otherwise, ""] if otherwise else []
    rows = [f"| {name} | {value} |" for name, value in _flat(values)]
    return [f"## {title}", "", "| what | value |", "|---|---|", *rows, ""]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or len(value) <= 8:
            rows.append((f"{prefix}{name}", str(value).replace("|", "/").replace("\n", " ")))
    return rows


def _scores(scores: Mapping[str, Any], samples: Sequence[Sample]) -> list[str]:
    known = [float(scores[sample.file_name]) for sample in samples if sample.file_name in scores]
    if not known:
        return ["## VAE-Seq", "", "The clips were not scored.", ""]
    return [
        "## VAE-Seq",
        "",
        f"Mean {mean(known):.2f} %, from {min(known):.2f} to {max(known):.2f}, over {len(known)} clips.",
        "",
    ]
