"""Which table of a folder has the labels, and what its columns are."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.own.labels import plain
from ctrlgenaug.preprocessing.own.split_words import SPLIT_WORDS
from ctrlgenaug.preprocessing.raw_files import natural
from ctrlgenaug.preprocessing.tables import Table, read_table

MOST_CLASSES = 12
CLASS_WORDS = (
    *(
        "class",
        "label",
        "grade",
        "diagnos",
        "category",
        "dx",
        "target",
        "severity",
        "outcome",
        "group",
        "finding",
    ),
    *("patholog", "disease", "malign", "benign", "level", "stage", "score", "type", "status", "y"),
)
NO_CLASS_WORDS = (
    "sex",
    "gender",
    "age",
    "site",
    "center",
    "centre",
    "scanner",
    "vendor",
    "fold",
    "split",
    "set",
    "side",
)
PATIENT_WORDS = ("patient", "subject", "person", "pid", "mrn", "participant")
TEXT_WORDS = ("text", "report", "description", "impression", "caption", "comment", "note")
LONG_TEXT = 25  # characters; the median cell of a column of sentences has more


@dataclass
class Labels:
    """A table and what its columns are.

    Attributes:
        path: the table.
        columns: as in a data file's ``table.columns``.
        classes: words in the class column, in natural order.
        ending: what follows the case's name in the files' names.
        seen: what was seen, in sentences.
    """

    path: Path
    columns: dict[str, str]
    classes: list[str]
    ending: str = ""
    seen: list[str] = field(default_factory=list)


def best(tables: list[Path], candidates: list[set[str]], folder: Path) -> Labels | None:
    """The table whose rows name the most cases and that has a column of classes; None if there is none.

    Args:
        tables: files that may be it.
        candidates: sets of names, of which one may be the cases'.
        folder: for paths in sentences.
    """
    found: list[tuple[int, Labels]] = []
    for path in tables:
        try:
            frame = read_table(path)
        except UserError:
            continue
        labels = _columns(path, frame, candidates)
        if labels is not None:
            labels[1].seen.insert(0, f"table {os.path.relpath(path, folder)} with {len(frame)} rows")
            found.append(labels)
    return max(found, key=lambda item: item[0])[1] if found else None


def _columns(path: Path, frame: Table, candidates: list[set[str]]) -> tuple[int, Labels] | None:
    matches: list[tuple[int, str, str]] = []
    for names in candidates:
        for ending in _endings(names):
            wanted = {plain(name.removesuffix(ending)) for name in names}
            for column in frame.columns:
                hits = len(wanted & {plain(cell) for cell in frame.column(column) if cell})
                matches.append((hits, column, ending))
    hits, case, ending = max(matches, key=lambda item: item[0], default=(0, "", ""))
    if hits < 2:
        return None
    splits = [column for column in frame.columns if _is_split(frame.column(column))]
    classes = _class_columns(frame, {case, *splits})
    if not classes:
        return None
    paths = any("/" in cell for cell in frame.column(case))
    columns = {"file" if paths else "case": case}
    repeated = len(set(frame.column(case))) < len(frame)
    patients = [c for c in frame.columns if c != case and _says(c, PATIENT_WORDS)]
    if repeated or _says(case, PATIENT_WORDS):
        columns = {"patient": case}
    elif patients:
        columns["patient"] = patients[0]
    columns["class"] = classes[0]
    if splits:
        columns["split"] = splits[0]
    texts = [c for c in frame.columns if c not in columns.values() and _is_text(c, frame.column(c))]
    if texts:
        columns["text"] = texts[0]
    words = sorted({cell for cell in frame.column(classes[0]) if cell}, key=natural)
    counts = Counter(frame.column(classes[0]))
    seen = [
        f"column {case} names {hits} of the cases",
        f"columns that may be classes: {', '.join(classes)}; taken: {classes[0]} "
        f"({', '.join(f'{word} {counts[word]}' for word in words)})",
    ]
    return hits, Labels(path, columns, words, ending, seen)


def _endings(names: set[str]) -> list[str]:
    """What the names end in alike, from a ``_`` or ``-`` on: ``_T1w`` of sub-01_T1w."""
    common = os.path.commonprefix([name[::-1] for name in names])[::-1] if len(names) > 1 else ""
    starts = [match.start() for match in re.finditer(r"[_-]", common)]
    return ["", *(common[start:] for start in starts)]


def _says(column: str, words: tuple[str, ...]) -> bool:
    return any(word in column.lower() if len(word) > 2 else word == column.lower() for word in words)


def _is_split(cells: list[str]) -> bool:
    values = {cell.lower() for cell in cells if cell}
    return len(values) >= 2 and values <= set(SPLIT_WORDS)


def _is_text(column: str, cells: list[str]) -> bool:
    lengths = sorted(len(cell) for cell in cells)
    long = bool(lengths) and lengths[len(lengths) // 2] > LONG_TEXT
    return long or (_says(column, TEXT_WORDS) and len(set(cells)) > 2)


def _class_columns(frame: Table, taken: set[str]) -> list[str]:
    """Columns of few words, each several times, likely ones first."""
    found = []
    for position, column in enumerate(frame.columns):
        cells = [cell for cell in frame.column(column) if cell]
        counts = Counter(cells)
        if column in taken or not 2 <= len(counts) <= MOST_CLASSES or len(cells) < 0.8 * len(frame):
            continue
        if min(counts.values()) < 2 or _says(column, PATIENT_WORDS):
            continue
        rank = 0 if _says(column, CLASS_WORDS) else 2 if _says(column, NO_CLASS_WORDS) else 1
        found.append((rank, position, column))
    return [column for _, _, column in sorted(found)]
