"""The table of labels of a user's own data set: which row belongs to which raw case."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.datasets.data_file import DataFile, Table
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.nifti import stem
from ctrlgenaug.preprocessing.own.raw_cases import DICOM_SUFFIXES, SUFFIXES, RawCase
from ctrlgenaug.preprocessing.tables import read_table, require_columns

SHOWN = 5  # rows named in an error
# of files that a table may name, also of those that others were converted from
KNOWN_SUFFIXES = {
    *(suffix for of_kind in SUFFIXES.values() for suffix in of_kind), *DICOM_SUFFIXES,
    ".nrrd", ".mha", ".mhd", ".hdr", ".img", ".zip", ".gz",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of the table: its line as a person counts, and its values by what they are (`data_file.COLUMNS`)."""

    line: int
    values: dict[str, str]


def identity(text: str) -> str:
    """An id for comparison: lower case, one space for many, ``007`` and ``7.0`` like ``7``."""
    name = " ".join(unicodedata.normalize("NFC", text).split()).lower()
    whole, _, fraction = name.partition(".")
    return str(int(whole)) if whole.isdecimal() and not fraction.strip("0") else name


def plain(text: str, depth: int = 1) -> str:
    """A file's name for comparison: an `identity` without suffix, and with ``depth - 1`` of the folders it lies in."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    name = stem(parts[-1]) if parts else ""
    head, dot, tail = name.rpartition(".")
    name = head if head and dot + tail.lower() in KNOWN_SUFFIXES else name
    return "/".join(map(identity, [*parts[-depth:-1], name]))


def read_rows(data: DataFile, home: Path) -> list[Row]:
    """The table's rows with the columns that the data file names."""
    table, path = data.table, home / data.table.file
    wanted = list(table.columns.values())
    frame = read_table(path, columns=wanted, sheet=table.sheet)
    require_columns(frame, wanted, path)
    rows = [
        Row(line, {what: record[column] for what, column in table.columns.items()})
        for line, record in zip(frame.lines, frame.records(), strict=True)
    ]
    keys = [name for name in ("file", "case", "patient") if name in table.columns]
    rows = [row for row in rows if any(row.values[name] for name in keys)]
    if not rows:
        raise UserError(f"names no {keys[0]} in any row", "Check table.columns", path)
    return rows


@dataclass(frozen=True)
class _Way:
    """One reading of the column that names raw cases.

    Attributes:
        what: it may name, of a raw case.
        called: what each raw case is called.
        normal: from a cell, or what a case is called, and a depth to what is compared.
        single: whether a row holds for one raw case, and not for all that are called so.
        deepest: greatest depth.
    """

    what: str
    called: list[str]
    normal: Callable[[str, int], str]
    single: bool = False
    deepest: int = 1

    def at(self, depth: int, rows: list[Row], key: str) -> _Match:
        """What it makes of the rows, told apart by so many parts of their paths."""
        by_name: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            by_name[self.normal(row.values[key], depth)].append(place)
        names = [self.normal(text, depth) for text in self.called]
        return _Match(self, by_name, names)


@dataclass(frozen=True)
class _Match:
    """Rows by name (their places in the table), and the names of the raw cases."""

    way: _Way
    rows: dict[str, list[int]]
    names: list[str]

    @property
    def score(self) -> tuple[int, int]:
        """How many names fit, and how many raw cases."""
        return len(set(self.names) & set(self.rows)), sum(name in self.rows for name in self.names)

    @property
    def assigned(self) -> list[int | None]:
        """The place of each raw case's row."""
        return [self.rows[name][0] if name in self.rows else None for name in self.names]

    @property
    def twice(self) -> list[int] | None:
        """Rows of one name."""
        return next((places for places in self.rows.values() if len(places) > 1), None)

    @property
    def shared(self) -> list[int] | None:
        """Raw cases that one row fits, although it holds for a single one."""
        if not self.way.single:
            return None
        of_name: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.names):
            if name in self.rows:
                of_name[name].append(index)
        return next((indices for indices in of_name.values() if len(indices) > 1), None)


def assign_rows(
    raw: list[RawCase], rows: list[Row], data: DataFile, path: Path
) -> tuple[dict[int, Row], dict[str, str]]:
    """Row of each raw case by its index, and what found no partner, with the reason.

    A row that names a patient alone holds for all cases of the patient.

    Raises:
        UserError: two rows for one case, a row that fits several files, or a column that fits two ids of DICOM series
            which disagree.
    """
    key = next(name for name in ("file", "case", "patient") if name in data.table.columns)
    match = _best(raw, rows, key, data, path)
    assigned = {index: rows[place] for index, place in enumerate(match.assigned) if place is not None}
    used = {row.line for row in assigned.values()}
    rejected = {}
    for index, case in enumerate(raw):
        if index not in assigned:
            rejected[shown(case, index, data)] = (
                f"{path.name} has no row for it. Add one, or move the file away."
            )
    for row in rows:
        if row.line not in used:
            rejected[f"line {row.line} of {path.name}"] = "has no raw file. Add it, or remove the line."
    return _agreeing(raw, assigned, rejected, data, path), rejected


def shown(case: RawCase, index: int, data: DataFile) -> str:
    """What a raw case may be called in messages."""
    return f"raw case {index + 1}" if data.pseudonyms else case.relative


def _best(raw: list[RawCase], rows: list[Row], key: str, data: DataFile, path: Path) -> _Match:
    matches = [way.at(1, rows, key) for way in _ways(raw, rows, key, data)]
    most = max(match.score for match in matches)
    best = [match for match in matches if match.score == most]
    for match in best:
        for depth in range(1, match.way.deepest + 1):
            found = match.way.at(depth, rows, key) if depth > 1 else match
            if found.twice or found.shared or (depth > 1 and not found.score[1]):
                continue
            if raw[0].ids and key != "patient":
                _must_agree(found, best, data.table.columns[key], path)
            return found
    match = best[0]
    if match.twice:
        lines = ", ".join(str(rows[place].line) for place in match.twice)
        problem = f"has {len(match.twice)} rows for one {key} (lines {lines})"
        raise UserError(problem, "Keep one row of each", path)
    indices = match.shared or []
    line = rows[match.rows[match.names[indices[0]]][0]].line
    files = " and ".join(shown(raw[index], index, data) for index in indices[:SHOWN])
    problem = f"line {line} fits several files, {files}"
    raise UserError(problem, "Name each by its path, in a column file", path)


def _must_agree(found: _Match, others: list[_Match], column: str, path: Path) -> None:
    for other in others:
        if other.assigned != found.assigned:
            problem = f"column {column} fits {found.way.what} as well as {other.way.what}, which disagree"
            raise UserError(problem, f"Write table.match: {found.way.what}, or {other.way.what}", path)


def _ways(raw: list[RawCase], rows: list[Row], key: str, data: DataFile) -> list[_Way]:
    """How the column ``key`` may be read."""
    paths = [f"{data.raw.folder}/{case.relative}" for case in raw]
    folders = [path.rpartition("/")[0] for path in paths]
    deepest = max(row.values[key].replace("\\", "/").count("/") + 1 for row in rows)

    def of_id(text: str, depth: int) -> str:
        return identity(text)

    if raw[0].ids:  # DICOM
        ids: tuple[str, ...] = Table.DICOM_IDS if data.table.match == "auto" else (data.table.match,)
        if key == "patient":
            ids = ("patient", *(name for name in ids if name != "patient"))
        ways = [
            _Way(name, paths, plain, True, deepest)
            if name == "file"
            else _Way(name, folders, plain, False, deepest)
            if name == "folder"
            else _Way(name, [case.ids[name] for case in raw], of_id)
            for name in ids
        ]
        for name in ("case", "patient"):
            if all(name in case.parts for case in raw):
                ways.append(_Way(f"{{{name}}}", [case.parts[name] for case in raw], plain))
        return ways
    if key == "patient" and all("patient" in case.parts for case in raw):
        return [_Way("{patient}", [case.parts["patient"] for case in raw], of_id)]
    single = key != "patient"
    named = [case.parts.get("case", case.relative) for case in raw]
    return [
        _Way("{case}", named, plain, single),
        _Way("file", paths, plain, single, deepest),
        _Way("folder", folders, plain, single and data.raw.kind == "frames", deepest),
    ]


def _agreeing(
    raw: list[RawCase], assigned: dict[int, Row], rejected: dict[str, str], data: DataFile, path: Path
) -> dict[int, Row]:
    """``assigned`` without rows that name another patient than the file's path, where most name the same."""
    said = {
        index: (raw[index].parts["patient"], row.values["patient"])
        for index, row in assigned.items()
        if raw[index].parts.get("patient") and row.values.get("patient")
    }
    differing = {index for index, (one, other) in said.items() if identity(one) != identity(other)}
    if 2 * len(differing) >= len(said):  # path and table call patients by different names
        return assigned
    for index in differing:
        names = "" if data.pseudonyms else f" ({said[index][0]!r}, the table {said[index][1]!r})"
        rejected[f"line {assigned[index].line} of {path.name}"] = (
            f"the path says another patient than the table{names}. Mend one."
        )
    return {index: row for index, row in assigned.items() if index not in differing}


def check_classes(words: list[tuple[str, str]], data: DataFile, source: str) -> dict[str, str]:
    """Where each class comes from must be known; returns the reasons of those that are not, by where.

    Args:
        words: (where, what it says) of each case.
        data: knows the classes.
        source: the table or the folder.

    Raises:
        UserError: no case has a known class.
    """
    unknown = [
        (where, word) for where, word in words if word not in data.classes and word not in data.class_of
    ]
    known = ", ".join((*data.classes, *data.class_of))
    reasons = {
        where: f"class {word!r} is unknown. Use one of {known}, or name it in class_of."
        for where, word in unknown
    }
    if words and len(unknown) == len(words):
        said = ", ".join(
            f"{word!r} ({count})" for word, count in Counter(word for _, word in unknown).most_common(SHOWN)
        )
        rows = ", ".join(where for where, _ in unknown[:SHOWN])
        raise UserError(
            f"none of its classes is known: it says {said}, e.g. {rows}",
            f"The data file's classes are {', '.join(data.classes)}; write class_of, or check table.columns",
            source,
        )
    return reasons
