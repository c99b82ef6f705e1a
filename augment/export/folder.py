"""A folder of synthetic clips in another format: a file or folder a clip, a table of labels, and the card."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augment.export.card import NO_LICENSE, noted, write_card
from augment.export.formats import FORMATS, Clip
from augment.generation.plan import Sample, parse_file_name
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality.vae_seq import RESULTS
from ctrlgenaug import steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name, fingerprint, write_text
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.preprocessing.extraction import SPACING
from ctrlgenaug.video import read_video

RECORD = "export.json"
SOURCES = "export_sources.json"  # file here: digest of all that it was made from
LABELS = "labels.csv"


@dataclass(frozen=True)
class Export:
    """What is exported, and how.

    Attributes:
        source: the folder of MP4s.
        target: the folder to write.
        format: a key of `FORMATS`.
        license_name: for the card.
        evaluation: evaluate.py's JSON, for the card.
        num_workers: processes.
        strict: stop at the first bad clip.
    """

    source: Path
    target: Path
    format: str
    license_name: str = NO_LICENSE
    evaluation: Path | None = None
    num_workers: int = 1
    strict: bool = False


def export(request: Export, spec: DatasetSpec, home: Path) -> steps.Outcome:
    """Makes ``request.target`` hold exactly the clips of the folder, with ``labels.csv`` and the card.

    What is there and was made from the same clip, class and spacing is kept; what an earlier export put there and whose
    clip is gone, such as one that the filter drops by now, is removed. Files of anybody else stay.

    Args:
        request: what, where and how.
        spec: the data set.
        home: its home, which knows the spacing of the source clips; need not be there.

    Raises:
        UserError: no folder, no clip in it, or the target holds another export.
    """
    if not request.source.is_dir():
        raise UserError(
            "is not a folder", "Give the folder that generate.py or the filter made", request.source
        )
    folder = SynthesisFolder(request.source)
    folder.say_if_filled()
    spec = spec.with_classes_of(folder.names())
    found = folder.clips(spec)
    samples = {path.name: sample for path, sample in found.samples.items()}
    if not samples:
        reason = f"{len(found.foreign)} MP4s are named otherwise" if found.foreign else "there is no MP4"
        problem = f"holds no synthetic clip of {spec.data_name} ({reason})"
        raise UserError(problem, "Check --synthetic and --data", request.source)
    form = FORMATS[request.format]
    model = _fingerprint(folder.settings().get("model"))
    spacing = _spacing(spec, home)
    with exclusive(request.target):
        claim = {"format": request.format, "data_name": spec.data_name, "model": model}
        claim_folder(request.target, claim, name=RECORD, pattern="*_*_*")
        targets = {name: request.target / f"{Path(name).stem}{form.suffix}" for name in samples}
        made_from = {
            targets[name].name: _digest(request.source / name, spec, sample, _of(sample, spec, spacing))
            for name, sample in samples.items()
        }
        removed = _remove_others(request.target, made_from, form.suffix)
        missing = [name for name in samples if not targets[name].exists()]
        outcome = steps.for_each_case(
            _export_clip,
            missing,
            [
                (
                    request.source / name,
                    samples[name],
                    spec.class_id(samples[name].cls),
                    _of(samples[name], spec, spacing),
                    model,
                    request.format,
                    targets[name],
                )
                for name in missing
            ],  # fmt: skip
            num_workers=request.num_workers,
            strict=request.strict,
            description=f"exporting {request.format}",
            unit="clip",
            folders=[request.source, request.target],
        )
        outcome.failures |= {
            name: f"it is not named like a clip of {spec.data_name}" for name in found.foreign
        }
        done = {name: sample for name, sample in samples.items() if targets[name].exists()}
        outcome.counts.update(made=len(outcome.results), kept=len(samples) - len(missing), removed=removed)
        there = {targets[name].name for name in done}
        write_json(request.target / SOURCES, {file: made_from[file] for file in sorted(there)})
        write_text(
            request.target / LABELS,
            _labels(done, targets, spec, noted(request.source, f"{RESULTS}.json")),
        )
        write_card(
            request.target,
            request.source,
            spec,
            form,
            list(done.values()),
            license_name=request.license_name,
            evaluation=request.evaluation,
            spacing_known=sum(_of(sample, spec, spacing) is not None for sample in done.values()),
        )
    return outcome


def _digest(
    source: Path, spec: DatasetSpec, sample: Sample, spacing: tuple[float, float, float] | None
) -> str:
    """Changes with the clip and with what is written beside its frames."""
    beside = json.dumps([spec.class_id(sample.cls), spacing])
    try:
        return f"{fingerprint([source])}-{hashlib.sha256(beside.encode()).hexdigest()[:8]}"
    except UserError:  # the export of this clip will say so
        return ""


def _is_export(name: str, suffix: str) -> bool:
    """Whether a record's ``name`` can be of a clip here: what an edited record names is not removed."""
    try:
        parse_file_name(check_name(name).removesuffix(suffix))
    except UserError:
        return False
    return name.endswith(suffix)


def _remove_others(target: Path, made_from: Mapping[str, str], suffix: str) -> int:
    """Removes what earlier exports made here of clips that are gone or others by now; returns how many are gone."""
    known = read_json(target / SOURCES) if (target / SOURCES).is_file() else {}
    known = dict(known) if isinstance(known, dict) else {}
    if not known and (target / LABELS).is_file():  # an older version's, which noted the names alone
        with (target / LABELS).open(encoding="utf-8", newline="") as handle:
            known = {str(row.get("file")): None for row in csv.DictReader(handle)}
    gone = 0
    for name, digest in known.items():
        path = target / name
        same = name in made_from and digest in (None, made_from[name])
        if same or not _is_export(name, suffix):
            continue
        gone += name not in made_from and path.exists()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return gone


def _fingerprint(parts: Any) -> str:
    """One fingerprint of a model from those of its parts; "" where nothing is noted."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16] if parts else ""


def _export_clip(
    source: Path,
    sample: Sample,
    class_id: int,
    spacing: tuple[float, float, float] | None,
    model: str,
    name: str,
    target: Path,
) -> None:
    FORMATS[name].write(Clip(source, sample, class_id, read_video(source), spacing, model), target)


def _spacing(spec: DatasetSpec, home: Path) -> Mapping[str, Sequence[float]]:
    path = home / spec.slices_dir / SPACING
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _of(sample: Sample, spec: DatasetSpec, spacing: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Millimetres between a clip's frames, rows and columns: sampled frames lie further apart than slices."""
    try:
        between, rows, columns = spacing[spec.parse_clip(sample.clip)[0]]
        return float(between) * (spec.clip_sampling_interval + 1), float(rows), float(columns)
    except (KeyError, ValueError, TypeError, UserError):
        return None


def _labels(
    samples: Mapping[str, Sample], targets: Mapping[str, Path], spec: DatasetSpec, scores: Mapping[str, Any]
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "class", "class_id", "source_clip", "seed", "vae_seq"))
    for name, sample in samples.items():
        row = (targets[name].name, sample.cls, spec.class_id(sample.cls), sample.clip, sample.seed)
        writer.writerow((*row, scores.get(name, "")))
    return text.getvalue()
