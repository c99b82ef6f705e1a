"""How figures are written: one rule for every table."""

from __future__ import annotations

NONE = "–"


def number(value: float | None, digits: int = 2) -> str:
    """``value`` with so many decimals; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(part: float | None) -> str:
    """A part of one as percent with one decimal; a dash for none."""
    return number(None if part is None else 100 * part, 1)


def spread(mean: float | None, deviation: float | None, digits: int = 1, sign: str = "") -> str:
    """``mean ± deviation``, the mean with its sign if ``sign`` is "+"; a dash for no mean."""
    if mean is None:
        return NONE
    return f"{mean:{sign}.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def scientific(value: float | None) -> str:
    """Four significant digits: for losses, whose size is not known beforehand."""
    return NONE if value is None else f"{value:.4g}"
