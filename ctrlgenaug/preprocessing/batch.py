"""How steps (a) and (b) go through the cases of a data set: resume, write metadata at the end, sum up."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.preprocessing import ledger, notes
from ctrlgenaug.preprocessing.notes import Notes
from ctrlgenaug.steps import Outcome, for_each_case

SKIPPED = "skipped.json"  # {case: reason} of the last run's bad cases, beside the files of the good ones


@dataclass(frozen=True)
class Case:
    """One case of a data set: a volume, a cardiac phase or a nodule.

    Attributes:
        name: as its frames' names begin, e.g. ``study_0001``.
        split: ``train`` or ``test``.
        cls: class name.
        sources: the raw files it is read from, or the frames it consists of.
        text: its description, where the data set has one.
    """

    name: str
    split: str
    cls: str
    sources: tuple[Path, ...]
    text: str = ""

    def row(self, spec: DatasetSpec, file_name: str) -> dict[str, Any]:
        """A metadata row for one of the case's files."""
        text = {"text": self.text} if spec.has_text else {}
        return {"file_name": file_name, **text, "cls": spec.metadata_class(self.cls)}


@dataclass
class Finished:
    """A batch of cases after the work.

    Attributes:
        cases: those that went well, in the order given.
        files: the paths that each of them has, below the root.
        spacing: millimetres between frames, rows and columns, of those that know them.
        failures: why the others did not, by case.
        worked: how many cases needed work in this run.
    """

    cases: list[Case] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)
    spacing: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    worked: int = 0

    def of_split(self, split: str) -> list[Case]:
        """The cases of one split that went well."""
        return [case for case in self.cases if case.split == split]


def check_unique(cases: Sequence[Case]) -> None:
    """A `UserError` that names the cases which occur twice: their files would overwrite each other."""
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} cases occur more than once: {', '.join(twice[:5])}{' ...' if len(twice) > 5 else ''}",
            "Keep one entry of each",
        )


def source_folder(cases: Iterable[Case]) -> list[Path]:
    """The folder below which all sources of ``cases`` lie; none for none."""
    parents = {os.path.abspath(path.parent) for case in cases for path in case.sources}
    return [Path(os.path.commonpath(parents))] if parents else []


def work_through(
    cases: Sequence[Case],
    made_from: Mapping[str, Any],
    work: Callable[..., dict[str, int]],
    arguments: Callable[[Case], tuple[Any, ...]],
    *,
    folder: Path,
    root: Path,
    metadata: Iterable[Path],
    rejected: Mapping[str, str] | None = None,
    num_workers: int,
    strict: bool,
    description: str,
) -> Finished:
    """Does every case that is not already finished. Call under `folders.exclusive`.

    Args:
        cases: all cases, in the split's order.
        made_from: by case, what its files depend on (JSON values): another value means that it is done again.
        work: ``work(root, case, *arguments(case))``, a module-level function; returns {path below root: size}
            of the files it wrote, all under their final names.
        arguments: the further arguments of ``work``.
        folder: where the ledger lies.
        root: where the files' paths start.
        metadata: files that say that the step is finished: removed before any case is touched.
        rejected: cases known to be bad beforehand, with the reason.
        num_workers: processes.
        strict: stop at the first bad case.
        description: the progress bar's title.

    Raises:
        UserError: a case twice; with ``strict``, the first bad case.
    """
    check_unique(cases)
    rejected = dict(rejected or {})
    if strict and rejected:
        case, reason = next(iter(rejected.items()))
        raise UserError(reason, "Mend it, or leave out --strict", case)
    sizes: ledger.Sizes = {}
    old = ledger.entries(folder)
    pending = [
        case
        for case in cases
        if case.name not in old or not ledger.intact(old[case.name], made_from[case.name], root, sizes)
    ]
    if pending:
        for path in metadata:
            path.unlink(missing_ok=True)
        if len(pending) < len(cases):
            print(f"{len(cases) - len(pending)} of {len(cases)} cases are finished already")
    outcome = Outcome()
    if pending:
        outcome = for_each_case(
            _work_and_record,
            [case.name for case in pending],
            [
                (work, folder, root, case, made_from[case.name], old.get(case.name), arguments(case))
                for case in pending
            ],
            num_workers=num_workers,
            strict=strict,
            description=description,
            folders=[folder, root, *source_folder(pending)],
        )
    notes.tell(outcome.results.values())
    for case, reason in rejected.items():
        print(f"skipped {case}: {reason}")
    finished = ledger.entries(folder)
    result = Finished(failures={**rejected, **outcome.failures}, worked=len(pending))
    if result.failures:
        write_json(folder / SKIPPED, dict(sorted(result.failures.items())))
    else:
        (folder / SKIPPED).unlink(missing_ok=True)
    result.cases = [case for case in cases if case.name not in result.failures]
    result.files = {case.name: list(finished[case.name]["files"]) for case in result.cases}
    known = {case.name: finished[case.name].get("spacing") for case in result.cases}
    result.spacing = {name: spacing for name, spacing in known.items() if spacing}
    return result


def _work_and_record(
    work: Callable[..., dict[str, int]],
    folder: Path,
    root: Path,
    case: Case,
    made_from: Any,
    old: dict[str, Any] | None,
    arguments: tuple[Any, ...],
) -> Notes:
    notes.taken()  # those of a case that failed are nobody's
    files = work(root, case, *arguments)
    ledger.remove_stale(root, old, files)
    noted = notes.taken()
    spacing = {"spacing": noted.spacing} if noted.spacing else {}
    ledger.record(folder, {"case": case.name, "made_from": made_from, "files": files, **spacing})
    return noted


def summary(spec: DatasetSpec, table: Mapping[tuple[str, str], Mapping[str, int]]) -> str:
    """A small table of counts: one row for each split and class, one column for each count."""
    columns = list(next(iter(table.values()), {}))
    lines = [f"  {'split':<6} {'class':<8}" + "".join(f"{column:>9}" for column in columns)]
    for (split, cls), counts in sorted(
        table.items(), key=lambda item: (item[0][0] != "train", spec.class_id(item[0][1]))
    ):
        lines.append(f"  {split:<6} {cls:<8}" + "".join(f"{counts[column]:>9}" for column in columns))
    return "\n".join(lines)
