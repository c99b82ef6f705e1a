"""Progress bars: one that moves on a terminal, and a line now and then in a log file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

SECONDS_ON_A_TERMINAL = 0.5
SECONDS_IN_A_LOG = 15  # between two lines, so that a night's log stays readable

Item = TypeVar("Item")


class _LinesInALog(tqdm):
    """A bar whose states stand below each other instead of over each other."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        def print_line(text: str) -> None:
            if text:
                file.write(text + "\n")
                file.flush()

        return print_line

    def moveto(self, n: int) -> None:
        """Nothing: the next line comes by itself."""

    def clear(self, nolock: bool = False) -> None:
        """Nothing: what is written stays."""

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> None:
        """Another line; but none only because something else was written (``nolock``)."""
        if not nolock:
            super().refresh(nolock, lock_args)

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **values: Any) -> None:
        """Shown with the next line."""
        super().set_postfix(ordered_dict, False, **values)

    def close(self) -> None:
        """The last state, unless it stands there already."""
        if not self.disable:  # type: ignore[has-type]
            if self.n != self.last_print_n:
                self.display()
            self.disable = True
            self._decr_instances(self)


def progress(
    items: Iterable[Item] | None = None, *, description: str, unit: str, total: int | None = None, **more: Any
) -> tqdm:
    """A progress bar on stderr, over ``items`` or to be updated by hand; the same rule in every step.

    Args:
        items: what to go through, if anything.
        description: the bar's title.
        unit: what is counted.
        total: how many there are, where ``items`` do not tell.
        **more: further arguments of ``tqdm``.
    """
    terminal = sys.stderr.isatty()
    seconds = SECONDS_ON_A_TERMINAL if terminal else SECONDS_IN_A_LOG
    kind = tqdm if terminal else _LinesInALog
    return kind(items, total=total, desc=description, unit=unit, mininterval=seconds, maxinterval=seconds,
                file=sys.stderr, dynamic_ncols=terminal, **more)  # fmt: skip


def say(text: str) -> None:
    """A line on stderr, above a bar that moves."""
    tqdm.write(text, file=sys.stderr)
