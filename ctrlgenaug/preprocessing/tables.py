"""Registries and label tables.

openpyxl is imported where it is used: it takes longer to import than most tables to read.
"""

from __future__ import annotations

import codecs
import csv
import io
import unicodedata
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
Lines = list[tuple[int, list[str]]]
"""Rows with what they hold and where they stand, without empty ones."""
SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm")
SEPARATORS = "|\t;,"  # the likeliest last
EXPORT = "Export it again, as .csv or .xlsx"


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Attributes:
        columns: their names, in order.
        rows: cells, "" where one is empty; as many as columns.
        lines: where each row stands in the file, counted from 1 as editors and spreadsheets do.
    """

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

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
        UserError: missing, unreadable, larger than a table of patients is, a wanted column twice, or a row of more
            cells than columns, whose cells nobody can tell apart.
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
        sheets = {"": _separated(data, path, wanted)}
    lines, start = _choose(sheets, wanted)
    if not header:
        width = max((len(row) for _, row in lines), default=0)
        padded = [row + [""] * (width - len(row)) for _, row in lines]
        return Table([str(i) for i in range(width)], padded, [line for line, _ in lines])
    if not lines:
        raise UserError("is empty", EXPORT, path)
    names = lines[start][1]
    while names and not names[-1]:
        names = names[:-1]
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise UserError(f"has the column {twice[0]} more than once", "Rename the others", path)
    body = [(line, row) for line, row in lines[start + 1 :] if any(row[: len(names)])]
    longer = [(line, len(row)) for line, row in body if any(row[len(names) :])]
    if longer and "" in sheets:  # beside the table of a workbook there may be notes
        line, cells = longer[0]
        problem = f"line {line} has {cells} cells, the header {len(names)}"
        raise UserError(problem, "Put cells that hold the separator into quotes, or name each column", path)
    rows = [(row + [""] * len(names))[: len(names)] for _, row in body]
    return Table(names, rows, [line for line, _ in body])


def _choose(sheets: dict[str, Lines], wanted: list[str]) -> tuple[Lines, int]:
    """The rows of the sheet that has the wanted columns, and the index of the row that names them."""
    for lines in sheets.values():
        index = _header(lines, wanted)
        if index is not None:
            return lines, index
    return next((lines for lines in sheets.values() if lines), []), 0


def _header(lines: Lines, wanted: list[str]) -> int | None:
    """The index of the row that names the wanted columns."""
    rows = (set(row) for _, row in lines[:HEADER_WITHIN])
    return next((index for index, row in enumerate(rows) if wanted and set(wanted) <= row), None)


def _clean(cells: Iterable[Any]) -> list[str]:
    texts = []
    for cell in cells:
        if isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        text = "" if cell is None else str(cell).strip().strip("\ufeff\u200b")
        texts.append(unicodedata.normalize("NFC", text))
    return texts


def _separated(data: bytes, path: Path, wanted: list[str]) -> Lines:
    """The rows of a text, by the separator that shows the wanted columns, else by the first line's commonest."""
    text = decoded(data, path)
    if "\0" in text:
        raise UserError("is not a readable table (binary data)", EXPORT, path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    likely = sorted(
        SEPARATORS, key=lambda one: (one == "\t" and path.suffix.lower() == ".tsv", first.count(one))
    )
    found = _split(text, likely[-1], path)
    for separator in likely[-2::-1]:
        if not wanted or _header(found, wanted) is not None:
            break
        other = _split(text, separator, path)  # a title stands above the header, and has other signs
        found = other if _header(other, wanted) is not None else found
    return found


def _split(text: str, separator: str, path: Path) -> Lines:
    csv.field_size_limit(1 << 24)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines: Lines = []
    line = 1
    try:
        for row in reader:
            cells = _clean(row)
            if len(cells) > MOST_COLUMNS:
                raise UserError(f"has more than {MOST_COLUMNS} columns", EXPORT, path)
            if any(cells):
                lines.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"is not a readable table ({error})", EXPORT, path) from None
    return lines


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


def _workbook(data: bytes, path: Path, sheet: str) -> dict[str, Lines]:
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


def _sheet(sheet: Any, path: Path) -> Lines:
    sheet.reset_dimensions()  # what the file claims about its size is not asked
    rows: Lines = []
    empty = 0
    for line, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
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
            rows.append((line, row))
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
