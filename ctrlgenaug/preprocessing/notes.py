"""What a reader did that its user should hear of once, and not once a file: "turned from RAS to LAS"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_noted: list[str] = []


def note(text: str) -> None:
    """Notes something about the case that is being read in this process."""
    _noted.append(text)


def taken() -> list[str]:
    """The notes since the last call, each once."""
    found = list(dict.fromkeys(_noted))
    _noted.clear()
    return found


def tell(notes: Iterable[Iterable[str]]) -> None:
    """Prints each note of a batch of cases once, with the number of cases that it holds for."""
    for text, count in Counter(text for of_case in notes for text in of_case).items():
        print(f"{count} {'case' if count == 1 else 'cases'}: {text}")
