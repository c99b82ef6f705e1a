"""Numbers in the place of names: patients and cases are called ``p0001_c1`` in files, metadata and logs.

Which number stands for whom is kept in one file beside the data set, readable by its owner alone, so that a case keeps
its number when others are added.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import atomic_path
from ctrlgenaug.preprocessing.own.labels import identity

COLUMNS = ("name", "patient", "source")
NUMBERED = re.compile("c[1-9][0-9]*")


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
            people: (patient, source) of each case; patients "" are all different, others the same whatever their
                spelling.
            keep: the case's own part of each name; None: ``c1``, ``c2`` ... within a patient.
        """
        numbers: dict[str, str] = {}
        taken = 0
        cases: dict[str, int] = {}
        spelled = {(identity(patient), source): (patient, source) for patient, source in self.names}
        for (patient, source), name in self.names.items():
            number, _, own = name.partition("_")
            numbers[identity(patient) or f"\0{source}"] = number
            taken = max(taken, int(number[1:]) if number[1:].isdecimal() else 0)
            if NUMBERED.fullmatch(own):
                cases[number] = max(cases.get(number, 0), int(own[1:]))
        names = []
        for index, (patient, source) in enumerate(people):
            who = identity(patient) or f"\0{source}"
            if who not in numbers:
                taken += 1
                numbers[who] = f"p{taken:04d}"
            number = numbers[who]
            person = spelled.setdefault((identity(patient), source), (patient, source))
            own = self.names.get(person, "").partition("_")[2]
            if keep is not None:
                own = keep[index]  # as the data file says now
            elif not NUMBERED.fullmatch(own):  # new, or from before pseudonyms were asked for
                cases[number] = cases.get(number, 0) + 1
                own = f"c{cases[number]}"
            self.names[person] = f"{number}_{own}"
            names.append(self.names[person])
        return names

    def write(self) -> None:
        """Writes the key file, for its owner's eyes only."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, *person) for person, name in self.names.items())
        with atomic_path(self.path) as temporary:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            temporary.write_text(text.getvalue(), encoding="utf-8")
