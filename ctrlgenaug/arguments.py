"""Types of command line arguments: numbers within bounds, and an error that says what those are."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

LARGEST_SEED = 2**32 - 1  # what NumPy's, torch's and Python's generators all take


def whole(lowest: int, highest: float = math.inf) -> Callable[[str], int]:
    """A type of whole numbers from ``lowest`` to ``highest``, for ``add_argument``."""
    bounds = f"of {lowest} or more" if highest == math.inf else f"from {lowest} to {highest}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number {bounds}")
        return value

    return parse


def number(lowest: float, highest: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """A type of finite numbers from ``lowest`` (with ``above``: greater than it) to ``highest``."""
    start = f"above {lowest:g}" if above else f"of {lowest:g} or more"
    bounds = start if highest == math.inf else f"{start} and at most {highest:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (lowest < value if above else lowest <= value) or not value <= highest or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number {bounds}")
        return value

    return parse


positive_int = whole(1, 10**9)
whole_number = whole(0, 10**9)
seed_number = whole(0, LARGEST_SEED)
picture_side = whole(16, 8192)  # pixels
positive_number = number(0, above=True)
number_from_0 = number(0)
fraction = number(0, 1)
