"""Step (a), shared by the data sets: cases to frames, one PNG a slice, with their metadata.

A format's script brings its list of `Case` and a reader; splits, names, progress, skipping and resuming are here.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import steps
from ctrlgenaug.datasets import IMAGE_SIZE, SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import exclusive, write_jsonl
from ctrlgenaug.frames import write_frame

FINISHED = ".finished.jsonl"  # a row a finished case: its source's size and time, its frames' count


@dataclass(frozen=True)
class Case:
    """A patient or sequence to be cut into frames.

    Attributes:
        name: what its files are called after.
        cls: its class, as the data set spells it.
        split: ``train`` or ``test``.
        source: the raw file.
        text: its description, where the data set has one.
    """

    name: str
    cls: str
    split: str
    source: Path
    text: str = ""


def _stamp(path: Path) -> list[int]:
    """Size and time of a raw file: a changed one is read again."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _write_case(
    case: Case, read: Callable[[Case], np.ndarray], spec: DatasetSpec, folder: Path, stale: int
) -> dict[str, Any]:
    frames = read(case)
    if frames.ndim != 3 or frames.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or frames.dtype != np.uint8:
        raise ValueError(f"a reader gave {frames.shape} {frames.dtype}, expected (n, 256, 256) uint8")
    for number, frame in enumerate(frames, start=1):
        write_frame(folder / f"{spec.frame_name(case.name, number)}.png", frame)
    for number in range(len(frames) + 1, stale + 1):  # of an earlier, longer version of this case
        (folder / f"{spec.frame_name(case.name, number)}.png").unlink(missing_ok=True)
    return {"case": case.name, "source": _stamp(case.source), "frames": len(frames)}


def _finished(folder: Path) -> dict[str, dict[str, Any]]:
    """The finished cases by name; a line that a kill tore is ignored, its case is simply read again."""
    path = folder / FINISHED
    if not path.is_file():
        return {}
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    rows = []
    for line in whole.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return {row["case"]: row for row in rows}


def extract(
    cases: Sequence[Case],
    read: Callable[[Case], np.ndarray],
    spec: DatasetSpec,
    folder: str | Path,
    *,
    num_workers: int = 0,
    strict: bool = False,
) -> steps.Outcome:
    """Writes every case's frames and the metadata of both splits into ``folder``; finished cases stay.

    Args:
        cases: in the split's order, which the metadata keep.
        read: a module-level function giving a case's frames, (n, 256, 256) uint8.
        spec: the data set.
        folder: where to.
        num_workers: processes.
        strict: stop at the first bad case.

    Returns:
        the outcome; ``results`` holds each case's count of frames, ``counts["kept"]`` the cases that were there.
    """
    folder = Path(folder)
    with exclusive(folder):
        finished = _finished(folder)
        present = set(os.listdir(folder))

        def is_whole(case: Case) -> bool:
            row = finished.get(case.name)
            return (
                row is not None
                and case.source.is_file()
                and row["source"] == _stamp(case.source)
                and all(f"{spec.frame_name(case.name, i)}.png" in present for i in range(1, row["frames"] + 1))
            )

        kept = {case.name: finished[case.name] for case in cases if is_whole(case)}
        todo = [case for case in cases if case.name not in kept]
        with (folder / FINISHED).open("a", encoding="utf-8") as journal:
            journal.write("\n")  # ends a line that a kill may have torn

            def note(row: dict[str, Any]) -> None:
                journal.write(json.dumps(row, ensure_ascii=False) + "\n")
                journal.flush()

            outcome = steps.for_each_case(
                _write_case,
                [case.name for case in todo],
                [(case, read, spec, folder, finished.get(case.name, {}).get("frames", 0)) for case in todo],
                num_workers=num_workers,
                strict=strict,
                description="slices",
                on_result=note,
            )
        rows = kept | outcome.results
        write_jsonl(folder / FINISHED, rows.values())
        outcome.results = {case.name: rows[case.name]["frames"] for case in cases if case.name in rows}
        outcome.counts["kept"] = len(kept)
        _write_metadata(cases, outcome.results, spec, folder)
    return outcome


def _write_metadata(cases: Sequence[Case], counts: dict[str, int], spec: DatasetSpec, folder: Path) -> None:
    for split in SPLITS:
        rows = []
        for case in cases:
            for number in range(1, counts.get(case.name, 0) + 1) if case.split == split else ():
                row: dict[str, Any] = {"file_name": f"{spec.frame_name(case.name, number)}.png"}
                if spec.has_text:
                    row["text"] = case.text
                rows.append({**row, "cls": spec.metadata_class(case.cls)})
        write_jsonl(spec.metadata_path(folder, split), rows)


def summary(cases: Sequence[Case], counts: dict[str, int], spec: DatasetSpec) -> str:
    """Cases and frames by split and class, as lines of text."""
    lines = []
    for split in SPLITS:
        done = [case for case in cases if case.split == split and case.name in counts]
        by_class = Counter(case.cls for case in done)
        classes = ", ".join(f"{cls} {by_class[cls]}" for cls in spec.classes)
        frames = sum(counts[case.name] for case in done)
        lines.append(f"{split}: {len(done)} cases ({classes}), {frames} slices")
    return "\n".join(lines)


def find_input(given: str | None, name: str, spec: DatasetSpec) -> Path:
    """``given``, or ``name`` in the working directory, or ``name`` in the data set's home there."""
    if given is not None:
        return Path(given)
    for place in (Path(name), Path(spec.home) / name):
        if place.exists():
            return place
    raise UserError(
        f"neither ./{name} nor {spec.home}/{name} exists", "Start this in the data set's folder, or name it"
    )
