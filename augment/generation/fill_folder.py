"""Fills a synthesis folder: resumes, lends samples to workers, records, draws contact sheets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augment.generation.plan import Sample
from augment.generation.synthesis_folder import Part, SynthesisFolder
from augment.generation.workers import ClipMaker, Effort, Synthesiser
from ctrlgenaug import cluster
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.errors import UserError
from ctrlgenaug.leases import Reports, work_through
from ctrlgenaug.progress import progress, say
from ctrlgenaug.steps import Outcome
from ctrlgenaug.video import read_video

SHEET_CLIPS = 12  # samples shown of a class


@dataclass(frozen=True)
class Work:
    """How the samples are made.

    Attributes:
        synthesiser: makes a `Synthesiser` in a worker, called as ``synthesiser(device=..., **arguments)``.
        arguments: its other keyword arguments.
        devices: one entry a worker.
        batch_size: samples of a lease.
        folders: what every machine of a cluster must see, besides the synthesis folder.
        shard: (index from 1, count), for separate journals.
        settings: what the frames depend on besides the sample; written to ``settings.json`` and every manifest row.
        versions: by name of a real clip, which version of its frame and its clip the conditions are of; the clips of
            other versions are made again.
        lossless: see `ctrlgenaug.video.write_mp4`.
    """

    synthesiser: Callable[..., Synthesiser]
    arguments: dict[str, Any]
    devices: Sequence[str]
    batch_size: int = 1
    shard: tuple[int, int] = (1, 1)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lossless: bool = False
    folders: Sequence[str] = ()


def fill_folder(samples: Sequence[Sample], folder: SynthesisFolder, work: Work) -> Outcome:
    """Makes what is missing of ``samples`` in ``folder``.

    Args:
        samples: this shard's part of the plan.
        folder: the synthesis folder, its path absolute; created if need be.
        work: how.

    Returns:
        results: samples that exist now, by file name; failures by file name; ``counts["made"]`` and
        ``counts["kept"]`` (were there before).

    Raises:
        UserError: other settings made the folder, the same shard is running, the model is refused, the disk is full.
    """
    outcome = Outcome()
    with folder.filled_by(work.shard, work.settings, work.versions) as part:
        if outdated := part.remove_outdated(samples):
            say(
                f"note: {outdated} clips were made from other versions of their conditions and are made again"
            )
        missing = part.missing(samples)
        outcome.counts["kept"] = len(samples) - len(missing)
        if missing:
            _synthesise(missing, part, work, outcome)
    outcome.results = {s.file_name: s for s in samples if s.file_name not in outcome.failures}
    return outcome


def _synthesise(missing: Sequence[Sample], part: Part, work: Work, outcome: Outcome) -> None:
    with progress(total=len(missing), description="synthesis", unit="clip", smoothing=0.1) as bar:

        def done(sample: Sample, effort: Effort | None, device: str) -> None:
            if effort is not None:
                part.add(sample, device, effort.seconds, effort.host_bytes, effort.gpu_bytes)
            outcome.counts["made"] += 1
            bar.update()

        def failed(sample: Sample, reason: str | OSError) -> None:
            if isinstance(reason, OSError):  # a full disk: no other sample could be written either
                raise UserError(
                    "the disk is full", "Free some space and run the same command again", part.folder.path
                )
            outcome.failures[sample.file_name] = reason
            say(f"skipped {sample.file_name}: {reason}")
            bar.update()

        def note(text: str) -> None:
            say(f"note: {text}")

        tool = {
            "synthesiser": work.synthesiser,
            "arguments": work.arguments,
            "folder": str(part.folder.path),
            "scratch": str(part.scratch),
            "lossless": work.lossless,
        }
        executor = cluster.executor(
            ClipMaker, tool, work.devices[: len(missing)], note, [part.scratch, *work.folders]
        )
        work_through(executor, missing, Reports(done, failed, note), work.batch_size)


def draw_contact_sheets(folder: SynthesisFolder, samples: Sequence[Sample]) -> list[Path]:
    """A picture of each class's clips: one row for each clip, its frames from left to right."""
    present, by_class = folder.names(), defaultdict(list)
    for sample in samples:
        if sample.file_name in present:
            by_class[sample.cls].append(sample.file_name)
    sheets = []
    for cls, names in by_class.items():
        chosen = np.unique(np.linspace(0, len(names) - 1, min(SHEET_CLIPS, len(names))).round().astype(int))
        rows = []
        for index in chosen:
            try:
                rows.append((names[index], read_video(folder.path / names[index])))
            except UserError:
                continue  # damaged since; VAE-Seq and the filter will name it
        if rows:
            sheets.append(folder.contact_sheet(cls))
            with folder.alone():
                save_picture(sheets[-1], contact_sheet(rows))
    return sheets
