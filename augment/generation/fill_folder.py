"""Fills a synthesis folder: resumes, lends samples to workers, records, draws contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from augment.generation import manifest
from augment.generation.plan import Sample
from augment.generation.workers import Factory, Pool, Reports
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.errors import UserError
from ctrlgenaug.progress import progress, say
from ctrlgenaug.steps import Outcome
from ctrlgenaug.video import read_video

SHEET_CLIPS = 12  # samples shown of a class


@dataclass(frozen=True)
class Work:
    """How the samples are made.

    Attributes:
        factory: see `augment.generation.workers.Pool`.
        arguments: the factory's keyword arguments.
        devices: one entry a worker.
        batch_size: samples of a lease.
        shard: (index from 1, count), for separate journals.
        settings: what the frames depend on besides the sample; written to ``settings.json`` and every manifest row.
        lossless: see `ctrlgenaug.video.write_mp4`.
    """

    factory: Factory
    arguments: dict[str, Any]
    devices: Sequence[str]
    batch_size: int = 1
    shard: tuple[int, int] = (1, 1)
    settings: Mapping[str, Any] = field(default_factory=dict)
    lossless: bool = False


def _row(
    sample: Sample, settings: Mapping[str, Any], device: str | None, seconds: float | None
) -> dict[str, Any]:
    return {
        "file": sample.file_name,
        "clip": sample.clip,
        "class": sample.cls,
        "seed": sample.seed,
        "prompt": sample.text if "text_condition" in settings.get("conditions", ()) else "",
        **settings,
        "device": device,
        "seconds": None if seconds is None else round(seconds, 3),
        "time": None if seconds is None else datetime.now(UTC).isoformat(timespec="seconds"),
    }


def fill_folder(samples: Sequence[Sample], folder: Path, work: Work) -> Outcome:
    """Makes what is missing of ``samples`` in ``folder``.

    Args:
        samples: this shard's part of the plan.
        folder: absolute path of the synthesis folder; created if need be.
        work: how.

    Returns:
        results: file names that exist now, by sample name; failures by sample name; ``counts["made"]`` and
        ``counts["kept"]`` (were there before).

    Raises:
        UserError: other settings made the folder, the same shard is running, the model is refused, the disk is full.
    """
    outcome = Outcome()
    with manifest.part(folder, work.shard) as corner:
        manifest.claim(folder, corner, work.settings)
        present = manifest.finished(folder, [sample.file_name for sample in samples])
        missing = [sample for sample in samples if sample.file_name not in present]
        outcome.counts["kept"] = len(samples) - len(missing)
        journal = manifest.Journal(corner / manifest.JOURNAL)
        try:
            if missing:
                _synthesise(missing, folder, corner, work, journal, outcome)
        finally:
            manifest.fold(
                folder,
                corner,
                {sample.file_name: _row(sample, work.settings, None, None) for sample in samples},
            )
    present = manifest.finished(folder, [sample.file_name for sample in samples])
    outcome.results = {sample.file_name: sample for sample in samples if sample.file_name in present}
    return outcome


def _synthesise(
    missing: Sequence[Sample],
    folder: Path,
    corner: Path,
    work: Work,
    journal: manifest.Journal,
    outcome: Outcome,
) -> None:
    with progress(total=len(missing), description="synthesis", unit="clip", smoothing=0.1) as bar:

        def done(sample: Sample, device: str, seconds: float) -> None:
            journal.add(_row(sample, work.settings, device, seconds))
            outcome.counts["made"] += 1
            bar.update()

        def failed(sample: Sample, reason: str) -> None:
            outcome.failures[sample.file_name] = reason
            say(f"skipped {sample.file_name}: {reason}")
            bar.update()

        def note(text: str) -> None:
            say(f"note: {text}")

        Pool(
            work.factory,
            work.arguments,
            work.devices,
            work.batch_size,
            folder,
            corner,
            lossless=work.lossless,
        ).run(missing, Reports(done, failed, note))


def draw_contact_sheets(folder: Path, samples: Sequence[Sample]) -> list[Path]:
    """A picture of each class's clips, ``contact_sheet_{class}.png``: a row a clip, its frames from left to right."""
    present = manifest.finished(folder, [sample.file_name for sample in samples])
    sheets = []
    for cls in dict.fromkeys(sample.cls for sample in samples):
        names = [s.file_name for s in samples if s.cls == cls and s.file_name in present]
        chosen = np.unique(np.linspace(0, len(names) - 1, min(SHEET_CLIPS, len(names))).round().astype(int))
        rows = []
        for index in chosen:
            try:
                rows.append((names[index], read_video(folder / names[index])))
            except UserError:
                continue  # damaged since; VAE-Seq and the filter will name it
        if rows:
            sheets.append(folder / f"contact_sheet_{cls}.png")
            save_picture(sheets[-1], contact_sheet(rows))
    return sheets
