"""Step (a), what all data sets share: cases in, PNG frames and metadata out (method, sections 1 and 2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.datasets import IMAGE_SIZE, SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import write_json, write_jsonl
from ctrlgenaug.preprocessing import batch, ledger
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.png import encode_png
from ctrlgenaug.preprocessing.published_split import GivenSplit

SPACING = (
    "spacing.json"  # {case: millimetres between its frames, rows and columns}, where the raw files say so
)
# {frame number: (256, 256) uint8, or the bytes of a PNG of that}, numbers ascending
Reader = Callable[[Case], Mapping[int, np.ndarray | bytes]]


def extract(
    spec: DatasetSpec,
    cases: Sequence[Case],
    read: Reader,
    output: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    rejected: Mapping[str, str] | None = None,
    given: GivenSplit | None = None,
    private: bool = False,
    num_workers: int = 1,
    strict: bool = False,
    next_step: str = "",
) -> int:
    """Writes every frame of every case as PNG, then ``train_metadata.jsonl`` and ``test_metadata.jsonl`` beside them.

    Cases finished before are passed over; a bad case is reported, skipped and left out of the metadata.

    Args:
        spec: the data set.
        cases: in the split's order.
        read: a `Reader`. It is sent to other processes, so it must be a module-level function, or a
            `functools.partial` of one.
        output: the folder to write.
        settings: options that change the frames (JSON values): other ones mean that all is read again.
        rejected: cases known to be bad beforehand, with the reason.
        given: a split whose order the metadata's rows take.
        private: write no source's name anywhere, because it may be a patient's.
        num_workers: processes; the output does not depend on it.
        strict: stop at the first bad case.
        next_step: the command to name at the end.

    Returns:
        the exit code: 0, or 1 if a case failed.
    """
    output = Path(output)
    if not cases and not rejected:
        raise UserError(f"no case of {spec.data_name} was found", "Check the paths given", output)
    with exclusive(output):
        done = batch.work_through(
            cases,
            {
                case.name: [ledger.signature(case.sources, private=private), dict(settings or {})]
                for case in cases
            },
            _extract_case,
            lambda case: (spec, read),
            folder=output,
            root=output,
            metadata=[spec.metadata_path(output, split) for split in SPLITS],
            rejected=rejected,
            num_workers=num_workers,
            strict=strict,
            description=f"reading {spec.data_name}",
        )
        for split in SPLITS:
            rows, case_of = [], {}
            for case in done.of_split(split):
                for name in sorted(
                    done.files[case.name], key=lambda name: spec.parse_frame(Path(name).stem)[1]
                ):
                    rows.append(case.row(spec, name))
                    case_of[Path(name).stem] = case.name
            write_jsonl(spec.metadata_path(output, split), given.rows(rows, case_of) if given else rows)
        if done.spacing:
            write_json(output / SPACING, done.spacing)
    return report(spec, done, output, "frames", next_step)


def report(spec: DatasetSpec, done: batch.Finished, output: Path, unit: str, next_step: str) -> int:
    """Prints the closing summary of a reading step; returns its exit code."""
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for case in done.cases:
        table[case.split, case.cls].update({"cases": 1, unit: len(done.files[case.name])})
    if table:
        print(batch.summary(spec, table))
    total = sum(counts[unit] for counts in table.values())
    verb = "wrote" if done.worked else "already complete:"
    failed = f"; {len(done.failures)} cases failed (listed above)" if done.failures else ""
    print(f"{verb} {total} {unit} of {len(done.cases)} cases in {output}{failed}; next: {next_step}")
    return 1 if done.failures else 0


def _extract_case(root: Path, case: Case, spec: DatasetSpec, read: Reader) -> dict[str, int]:
    frames = read(case)
    if not frames:
        raise UserError("holds no frame", "Check the file", case.sources[0])
    encoded = {}
    for number, frame in frames.items():
        if isinstance(frame, np.ndarray) and frame.shape != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"the reader gave a frame of shape {frame.shape}")
        name = f"{spec.frame_name(case.name, number)}.png"
        encoded[name] = frame if isinstance(frame, bytes) else encode_png(frame)
    return {name: ledger.write_unsynced(root / name, data) for name, data in encoded.items()}
