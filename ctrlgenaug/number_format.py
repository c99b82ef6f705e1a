"""How figures and tables are written: one rule for Markdown, HTML and terminal."""

from __future__ import annotations

from collections.abc import Sequence

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    """``value`` with so many decimals; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(part: float | None, digits: int = 1) -> str:
    """A part of one as percent, with one decimal unless said otherwise; a dash for none."""
    return number(None if part is None else 100 * part, digits)


def spread(mean: float | None, deviation: float | None, digits: int = 1, sign: str = "") -> str:
    """``mean ± deviation``, the mean with its sign if ``sign`` is "+"; a dash for no mean."""
    if mean is None:
        return NONE
    return f"{mean:{sign}.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def interval(bounds: Sequence[float] | None, digits: int = 2) -> str:
    """``low to high``; a dash for none."""
    return NONE if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def scientific(value: float | None) -> str:
    """Four significant digits: for losses, whose size is not known beforehand."""
    return NONE if value is None else f"{value:.4g}"


def markdown_table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, with an empty one behind it; ``|`` in a cell is escaped."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(heads), "|" + "---|" * len(heads), *map(line, rows), ""]


def text_table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table for a terminal: the first column flush left, the others right, as wide as their longest cell."""
    table = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    )  # fmt: skip
