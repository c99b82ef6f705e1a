"""Registries and label tables.

openpyxl is imported where it is used: it takes longer to import than most tables to read.
"""

from __future__ import annotations

import codecs
import csv
import io
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError, in_one_line
from ctrlgenaug.files import check_file

MOST_FILE_BYTES = 64 << 20  # of a table; one row for each patient takes far less
MOST_UNPACKED_BYTES = 128 << 20  # of an .xlsx, which is a zip archive
MOST_ROWS, MOST_COLUMNS = 1_000_000, 1000
MOST_EMPTY_ROWS = 10_000  # one after the other: what comes after them is a stray cell
HEADER_WITHIN = 20  # rows above the one that names the columns: titles, dates, empty ones
SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")
EXPORT = "Export it again, as .csv or .xlsx"


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        columns: their names, in order.
        rows: cells, "" where one is empty; as many as columns.
    """

    columns: list[str]
    rows: list[list[str]]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[str]:
        """The cells of one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def records(self) -> list[dict[str, str]]:
        """Each row as {column: cell}."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def read_table(
    path: str | Path, *, header: bool = True, columns: Iterable[str] = (), sheet: str = ""
) -> Table:
    """Reads an .xlsx, .csv or .tsv table as text.

    CSV may be separated by commas, semicolons or tabs, in UTF-8 or UTF-16 with or without a mark, or in Latin-1. Of a
    workbook the first sheet that has ``columns`` is read, and what stands above their row is passed over.

    Args:
        path: the file.
        header: whether a row names the columns.
        columns: columns that are wanted; where no row has them, the first row that holds something is the header.
        sheet: of a workbook; "" chooses.

    Returns:
        a table of stripped strings, "" where a cell is empty; rows without any value are left out.

    Raises:
        UserError: missing, unreadable, or larger than a table of patients is.
    """
    path, wanted = Path(path), list(columns)
    size = check_file(path, EXPORT)
    if size > MOST_FILE_BYTES:
        raise UserError(
            f"has {size >> 20} MB, which is no table of patients", "Give the table of labels", path
        )
    data = path.read_bytes()
    if data[:4] == b"PK\x03\x04":
        sheets = _workbook(data, path, sheet)
    elif data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise UserError("is an old .xls or an encrypted workbook", "Save it as .xlsx or .csv", path)
    elif data[:2] == b"PK" or path.suffix.lower() in (".xlsx", ".xlsm", ".ods"):
        raise UserError("is not a readable table (no workbook)", EXPORT, path)
    else:
        sheets = {"": _separated(data, path)}
    rows, start = _choose(sheets, wanted)
    if not header:
        width = max((len(row) for row in rows), default=0)
        return Table([str(i) for i in range(width)], [row + [""] * (width - len(row)) for row in rows])
    if not rows:
        raise UserError("is empty", EXPORT, path)
    names = rows[start]
    while names and not names[-1]:
        names = names[:-1]
    body = [(row + [""] * len(names))[: len(names)] for row in rows[start + 1 :]]
    return Table(names, [row for row in body if any(row)])


def _choose(sheets: dict[str, list[list[str]]], wanted: list[str]) -> tuple[list[list[str]], int]:
    """The rows of the sheet that has the wanted columns, and the index of the row that names them."""
    for rows in sheets.values():
        for index, row in enumerate(rows[:HEADER_WITHIN]):
            if wanted and set(wanted) <= set(row):
                return rows, index
    return next((rows for rows in sheets.values() if rows), []), 0


def _clean(cells: Iterable[Any]) -> list[str]:
    texts = []
    for cell in cells:
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        texts.append("" if cell is None else str(cell).strip().strip("\ufeff\u200b"))
    return texts


def _separated(data: bytes, path: Path) -> list[list[str]]:
    text = decoded(data, path)
    if "\0" in text:
        raise UserError("is not a readable table (binary data)", EXPORT, path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t|", key=first.count) if path.suffix.lower() != ".tsv" else "\t"
    csv.field_size_limit(1 << 24)
    try:
        rows = [_clean(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator)]
    except csv.Error as error:
        raise UserError(f"is not a readable table ({error})", EXPORT, path) from None
    if any(len(row) > MOST_COLUMNS for row in rows):
        raise UserError(f"has more than {MOST_COLUMNS} columns", EXPORT, path)
    return [row for row in rows if any(row)]


def decoded(data: bytes, path: Path) -> str:
    """Text from UTF-8, UTF-16 or UTF-32 with or without a mark, else Latin-1 as spreadsheets of the West write it."""
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
             codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip
    encodings = [encoding for mark, encoding in marks.items() if data.startswith(mark)]
    if not encodings and b"\0" in data[:200]:  # Latin letters in UTF-16: every other byte is 0
        encodings = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    for encoding in (*encodings, "utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError("is not readable text", EXPORT, path)


def _workbook(data: bytes, path: Path, sheet: str) -> dict[str, list[list[str]]]:
    """The rows that hold something, by sheet. Cell by cell: one far cell must not fill a table of millions."""
    import openpyxl

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
            if unpacked > MOST_UNPACKED_BYTES or len(archive.infolist()) > 10_000:
                raise UserError(f"unpacks to {unpacked >> 20} MB", "Give the table of labels alone", path)
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        except TypeError:  # styles that other programs write and openpyxl refuses; values do not need them
            with warnings.catch_warnings(action="ignore"):
                book = openpyxl.load_workbook(_without_styles(data), read_only=True, data_only=True)
        if sheet and sheet not in book.sheetnames:
            raise UserError(f"has no sheet {sheet!r}", f"It has {', '.join(book.sheetnames)}", path)
        return {
            name: _sheet(book[name], path)
            for name in ([sheet] if sheet else book.sheetnames)
            if hasattr(book[name], "reset_dimensions")  # chart sheets have no cells
        }
    except UserError:
        raise
    except Exception as error:  # a damaged workbook can raise nearly anything
        reason = in_one_line(error)
        raise UserError(f"is not a readable table ({reason})", EXPORT, path) from None


def _sheet(sheet: Any, path: Path) -> list[list[str]]:
    sheet.reset_dimensions()  # what the file claims about its size is not asked
    rows: list[list[str]] = []
    empty = 0
    for cells in sheet.iter_rows(values_only=True):
        if not any(cell is not None for cell in cells):
            empty += 1
            if empty > MOST_EMPTY_ROWS:
                break
            continue
        empty = 0
        row = _clean(cells)
        while row and not row[-1]:
            row.pop()
        if len(row) > MOST_COLUMNS:
            if sum(map(bool, row)) > MOST_COLUMNS:
                raise UserError(f"has more than {MOST_COLUMNS} columns", EXPORT, path)
            row = row[:MOST_COLUMNS]  # a stray cell far to the right
        if any(row):
            rows.append(row)
        if len(rows) > MOST_ROWS:
            raise UserError(f"has more than {MOST_ROWS} rows", EXPORT, path)
    return rows


def _without_styles(data: bytes) -> io.BytesIO:
    plain = (
        '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><fonts count="1"><font/></fonts>'
        '<fills count="1"><fill><patternFill patternType="none"/></fill></fills><borders count="1"><border/></borders>'
        '<cellStyleXfs count="1"><xf/></cellStyleXfs><cellXfs count="1"><xf/></cellXfs></styleSheet>'
    )
    stripped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(stripped, "w") as target:
        for item in source.infolist():
            target.writestr(item, plain if item.filename == "xl/styles.xml" else source.read(item))
    stripped.seek(0)
    return stripped


def require_columns(table: Table, names: Sequence[str], path: str | Path) -> None:
    """A `UserError` that names the columns which ``table`` lacks."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise UserError(f"lacks the column {', '.join(missing)}", f"It has {', '.join(table.columns)}", path)
