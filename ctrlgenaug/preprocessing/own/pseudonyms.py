"""Numbers in the place of names: patients and cases are called ``p0001_c1`` in files, metadata and logs.

Which number stands for whom is kept in one file beside the data set, readable by its owner alone, so that a case keeps
its number when others are added.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path

COLUMNS = ("name", "patient", "source")


@dataclass
class Key:
    """Who is who.

    Attributes:
        path: the key file.
        names: (patient, source) -> name; a source is a path below the raw folder or a series' UID.
    """

    path: Path
    names: dict[tuple[str, str], str]

    @classmethod
    def read(cls, path: Path) -> Key:
        """The key file, or an empty key if there is none; a `UserError` if it is damaged."""
        if not path.is_file():
            return cls(path, {})
        try:
            rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
            return cls(path, {(row["patient"], row["source"]): row["name"] for row in rows})
        except (KeyError, UnicodeDecodeError, csv.Error):
            raise UserError(
                "is not a readable key file", "Restore it; without it cases change their numbers", path
            ) from None

    def assign(self, people: Sequence[tuple[str, str]], keep: Sequence[str] | None) -> list[str]:
        """Names of cases, new ones where needed.

        Args:
            people: (patient, source) of each case; patients "" are all different.
            keep: the case's own part of each name; None: ``c1``, ``c2`` ... within a patient.
        """
        numbers: dict[str, str] = {}
        taken = 0
        for (patient, source), name in self.names.items():
            number = name.partition("_")[0]
            numbers[patient or f"\0{source}"] = number
            taken = max(taken, int(number[1:]) if number[1:].isdecimal() else 0)
        cases: dict[str, int] = {}
        for name in self.names.values():
            cases[name.partition("_")[0]] = cases.get(name.partition("_")[0], 0) + 1
        for index, (patient, source) in enumerate(people):
            if (patient, source) in self.names:
                continue
            who = patient or f"\0{source}"
            if who not in numbers:
                taken += 1
                numbers[who] = f"p{taken:04d}"
            number = numbers[who]
            cases[number] = cases.get(number, 0) + 1
            own = f"c{cases[number]}" if keep is None else keep[index]
            self.names[patient, source] = f"{number}_{own}"
        return [self.names[person] for person in people]

    def write(self) -> None:
        """Writes the key file, for its owner's eyes only."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, *person) for person, name in self.names.items())
        with atomic_path(self.path) as temporary:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            temporary.write_text(text.getvalue(), encoding="utf-8")
