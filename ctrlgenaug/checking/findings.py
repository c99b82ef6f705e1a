"""What a check finds: what is wrong, how bad it is, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SHOWN = 5  # names in one sentence
ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that a user should know.

    Attributes:
        level: `ERROR` (do not go on), `WARNING` (look at it), or `NOTE`.
        text: what is the matter, in a sentence.
        names: the cases or files that it holds for.
    """

    level: str
    text: str
    names: Sequence[str] = ()

    def __str__(self) -> str:
        names = ", ".join(self.names[:SHOWN]) + (" ..." if len(self.names) > SHOWN else "")
        return f"{self.level}: {self.text}" + (f" ({names})" if names else "")


@dataclass
class StageCheck:
    """What was found in one stage.

    Attributes:
        name: ``raw``, ``frames``, ``clips``, ``priors`` or ``motion``.
        header: titles of the table's columns.
        rows: one for each case or file.
        counts: what there is, e.g. ``{"cases": 30}``.
        findings: worst first.
        pictures: (caption, frames (F, H, W) uint8) for the contact sheet.
        missing: why there is nothing to check, or "".
    """

    name: str
    header: Sequence[str] = ()
    rows: list[Sequence[object]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    pictures: list[tuple[str, np.ndarray]] = field(default_factory=list)
    missing: str = ""

    def add(self, level: str, text: str, names: Sequence[str] = ()) -> None:
        """Adds a finding; ``text`` may hold ``{n}`` for the number of names."""
        self.findings.append(Finding(level, text.replace("{n}", str(len(names))), tuple(names)))
        self.findings.sort(key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))

    def add_if(self, level: str, text: str, names: Sequence[str]) -> None:
        """`add`, where there are names."""
        if names:
            self.add(level, text, names)

    @property
    def worst(self) -> str:
        """The level of the worst finding; "" without any."""
        return self.findings[0].level if self.findings else ""
