"""The table of labels of a user's own data set: which row belongs to which raw case."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.datasets.data_file import DataFile, Table
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.nifti import stem
from ctrlgenaug.preprocessing.own.raw_cases import RawCase
from ctrlgenaug.preprocessing.tables import read_table, require_columns

SHOWN = 5  # rows named in an error


@dataclass(frozen=True)
class Row:
    """A row of the table: its line as a person counts, and its values by what they are (`data_file.COLUMNS`)."""

    line: int
    values: dict[str, str]


def plain(text: str) -> str:
    """A name for comparison: without folders and suffixes, lower case, ``007`` and ``7.0`` like ``7``."""
    name = stem(text.replace("\\", "/").rstrip("/").rpartition("/")[2]).lower()
    head, dot, tail = name.rpartition(".")
    if dot and (tail.isalpha() or tail in ("mp4", "m4v")) and len(tail) <= 5:
        name = head
    whole, _, fraction = name.partition(".")
    return str(int(whole)) if whole.isdecimal() and not fraction.strip("0") else name


def read_rows(data: DataFile, home: Path) -> list[Row]:
    """The table's rows with the columns that the data file names."""
    table, path = data.table, home / data.table.file
    wanted = list(table.columns.values())
    frame = read_table(path, columns=wanted, sheet=table.sheet)
    require_columns(frame, wanted, path)
    rows = [
        Row(line, {what: record[column] for what, column in table.columns.items()})
        for line, record in enumerate(frame.records(), start=2)
    ]
    keys = [name for name in ("file", "case", "patient") if name in table.columns]
    rows = [row for row in rows if any(row.values[name] for name in keys)]
    if not rows:
        raise UserError(f"names no {keys[0]} in any row", "Check table.columns", path)
    return rows


def assign_rows(
    raw: list[RawCase], rows: list[Row], data: DataFile, path: Path
) -> tuple[dict[int, Row], dict[str, str]]:
    """Row of each raw case by its index, and what found no partner, with the reason.

    A row that names a patient alone holds for all cases of the patient.

    Raises:
        UserError: two rows for one case.
    """
    key = next(name for name in ("file", "case", "patient") if name in data.table.columns)
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[plain(row.values[key])].append(row)
    twice = [found for found in by_name.values() if len(found) > 1]
    if twice:
        lines = ", ".join(str(row.line) for row in twice[0])
        raise UserError(
            f"has {len(twice[0])} rows for one {key} (lines {lines})", "Keep one row of each", path
        )
    names = _names(raw, key, data.table, set(by_name))
    assigned = {index: by_name[name][0] for index, name in enumerate(names) if name in by_name}
    used = {row.line for row in assigned.values()}
    rejected = {}
    for index, case in enumerate(raw):
        if index not in assigned:
            what = f"raw case {index + 1}" if data.pseudonyms else case.relative
            rejected[what] = f"{path.name} has no row for it. Add one, or move the file away."
    for row in rows:
        if row.line not in used:
            rejected[f"line {row.line} of {path.name}"] = "has no raw file. Add it, or remove the line."
    return assigned, rejected


def _names(raw: list[RawCase], key: str, table: Table, known: set[str]) -> list[str]:
    """What each raw case is called in the column ``key``."""
    if raw[0].ids:  # DICOM
        ids: tuple[str, ...] = Table.DICOM_IDS if table.match == "auto" else (table.match,)
        if key == "patient":
            ids = ("patient", *(name for name in ids if name != "patient"))
        named = {name: [plain(case.ids[name]) for case in raw] for name in ids}
        for name in ("case", "patient"):
            if all(name in case.parts for case in raw):
                named[f"{{{name}}}"] = [plain(case.parts[name]) for case in raw]
        return max(
            named.values(), key=lambda names: (len(set(names) & known), sum(name in known for name in names))
        )
    if key == "patient" and all("patient" in case.parts for case in raw):
        return [plain(case.parts["patient"]) for case in raw]
    ways = [
        [plain(case.parts.get("case", case.relative)) for case in raw],
        [plain(case.relative) for case in raw],
    ]
    ways += [[plain(case.relative.rpartition("/")[0]) for case in raw]]
    return max(ways, key=lambda names: sum(name in known for name in names))


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
