"""What a reader says about a case besides its frames: things to tell once, and the size of its pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Notes:
    """What was noted about one case.

    Attributes:
        texts: what its user should hear of once, and not once a file: "turned from RAS to LAS".
        spacing: millimetres from frame to frame, from row to row and from column to column, as the frames are.
    """

    texts: list[str] = field(default_factory=list)
    spacing: tuple[float, float, float] | None = None


_current = Notes()


def note(text: str) -> None:
    """Notes something about the case that is being read in this process."""
    if text not in _current.texts:
        _current.texts.append(text)


def note_spacing(frames: float, rows: float, columns: float) -> None:
    """Notes the millimetres between the frames, rows and columns of the case that is being read, where known."""
    if min(frames, rows, columns) > 0:
        _current.spacing = (frames, rows, columns)


def taken() -> Notes:
    """What was noted since the last call."""
    global _current
    found, _current = _current, Notes()
    return found


def tell(notes: Iterable[Notes]) -> None:
    """Prints each text of a batch of cases once, with the number of cases that it holds for."""
    for text, count in Counter(text for of_case in notes for text in of_case.texts).items():
        print(f"{count} {'case' if count == 1 else 'cases'}: {text}")
