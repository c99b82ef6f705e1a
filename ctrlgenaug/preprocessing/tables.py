"""Registries and label tables, and the splits made from them.

pandas and scikit-learn are imported where they are used: every worker process imports this module, none reads a table.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ctrlgenaug.errors import UserError

if TYPE_CHECKING:
    import pandas


def read_table(path: str | Path, *, header: bool = True) -> pandas.DataFrame:
    """Reads an .xlsx or .csv table as text; a byte-order mark and either line ending are accepted.

    Args:
        path: the file; anything but .xlsx is read as CSV.
        header: whether the first row names the columns.

    Returns:
        a table of stripped strings, "" where a cell is empty.

    Raises:
        UserError: missing or unreadable.
    """
    import pandas

    path = Path(path)
    options = {"dtype": str, "keep_default_na": False, "header": 0 if header else None}
    try:
        if path.suffix.lower() == ".xlsx":
            table = pandas.read_excel(path, engine="openpyxl", **options)
        else:
            table = pandas.read_csv(path, encoding="utf-8-sig", **options)
    except FileNotFoundError:
        raise UserError(
            "does not exist", "Give its path, or run inside the data set's folder", path
        ) from None
    except (
        ValueError,
        KeyError,
        OSError,
        zipfile.BadZipFile,
    ) as error:  # pandas' parser errors are ValueErrors
        raise UserError(
            f"is not a readable table ({str(error).splitlines()[0]})", "Export it again", path
        ) from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.map(lambda cell: str(cell).strip())


def require_columns(table: pandas.DataFrame, names: Sequence[str], path: str | Path) -> None:
    """A `UserError` that names the columns which ``table`` lacks."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise UserError(f"lacks the column {', '.join(missing)}", f"It has {', '.join(table.columns)}", path)


def stratified_split(
    labels: Sequence[str], test_size: float, random_state: int, path: str | Path
) -> tuple[list[int], list[int]]:
    """Indices of the train and the test part, in scikit-learn's order, the classes equally frequent in both.

    Raises:
        UserError: too few of a class, or too few altogether.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            range(len(labels)), test_size=test_size, random_state=random_state, stratify=labels
        )
    except ValueError as error:
        counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(labels).items()))
        raise UserError(
            f"cannot be split into train and test ({error}); it holds {counts or 'nothing'}",
            "Add cases: at least two of each class",
            path,
        ) from None
    return list(train), list(test)
