"""TUSC's table of nodules: TI-RADS grades, descriptions and the split (method, sections 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.raw_files import reject_all
from ctrlgenaug.preprocessing.stratified import stratified_split
from ctrlgenaug.preprocessing.tables import read_table, require_columns

EXCLUDED_LEVEL = 1  # one nodule only (number 8): no class can be learnt from it

TERMS = {
    "composition": {1: "mixed cystic and solid", 2: "solid"},
    "echogenicity": {1: "isoechoic", 2: "hypoechoic", 3: "very hypoechoic"},
    "shape": {0: "wider-than-tall", 3: "taller-than-wide"},
    "margin": {0: "smooth", 2: "irregular", 3: "extra-thyroidal extension"},
    "echogenicfoci": {
        0: "",
        1: "macrocalcifications",
        2: "peripheral (rim) calcifications",
        3: "punctate echogenic foci",
        4: "punctate echogenic foci",  # points add up: 1 + 3; published under the more suspicious of the two
    },
}


@dataclass(frozen=True)
class Nodule:
    """One row of the table that has a class.

    Attributes:
        number: its id.
        cls: class name.
        split: ``train`` or ``test``.
        text: its description; "" if a code is unknown.
        problem: what is wrong with the row, or "".
    """

    number: int
    cls: str
    split: str
    text: str
    problem: str = ""

    @property
    def case(self) -> str:
        """As its frames' names begin: ``Nodule43``."""
        return f"Nodule{self.number}"


def nodule_number(annot_id: str) -> int:
    """The integer of an annot_id such as ``105_``; a ValueError if there is none."""
    return int(annot_id.strip().rstrip("_"))


def describe(codes: Mapping[str, str]) -> str:
    """The sentence for a row of the table; a ValueError that names the column and code it does not know."""
    words = {}
    for feature, terms in TERMS.items():
        code = codes[f"ti-rads_{feature}"]
        if not _is_integer(code) or int(float(code)) not in terms:
            raise ValueError(f"ti-rads_{feature} is {code!r}, known are {', '.join(map(str, terms))}")
        words[feature] = terms[int(float(code))]
    listed = [word for word in words.values() if word]
    return f"The nodule is {', '.join(listed[:-1])}, and {listed[-1]}."


def _is_integer(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False


def read_nodules(path: str | Path) -> tuple[list[Nodule], dict[str, str]]:
    """The nodules of metadata.csv, train first, in the published split's order; and bad rows with the reason.

    A row whose level or id cannot be read takes no part in the split; one whose description cannot be does.

    Raises:
        UserError: no table, missing columns, a nodule twice, or too few nodules to split.
    """
    columns = ("annot_id", *(f"ti-rads_{feature}" for feature in TERMS), "ti-rads_level")
    data = datasets.data_file(datasets.get("TUSC"))
    class_of = {cls: cls for cls in data.classes} | data.class_of  # TR4 -> TR4, TR2 -> TR2-3
    table = read_table(path, columns=columns)
    require_columns(table, columns, path)
    rows, rejected = [], {}
    for line, row in zip(table.lines, table.records(), strict=True):
        level = row["ti-rads_level"].upper().removeprefix("TR")
        try:
            number = nodule_number(row["annot_id"])
            if not _is_integer(level) or not 1 <= int(float(level)) <= 5:
                raise ValueError(f"ti-rads_level is {row['ti-rads_level']!r}, known are 1 to 5")
        except ValueError as error:
            rejected[f"line {line} of {Path(path).name}"] = f"{path}: {error}. Mend the line."
            continue
        if int(float(level)) == EXCLUDED_LEVEL:
            continue
        try:
            text, problem = describe(row), ""
        except ValueError as error:
            text, problem = "", f"{path}: {error}. Mend line {line}."
        rows.append((number, class_of[f"TR{int(float(level))}"], text, problem))
    if len({number for number, *_ in rows}) < len(rows):
        numbers = [number for number, *_ in rows]
        twice = sorted({number for number in numbers if numbers.count(number) > 1})
        raise UserError(f"lists nodule {twice[0]} more than once", "Keep one line of each nodule", path)
    reject_all(len(rows), rejected, path)
    train, test = stratified_split(
        [cls for _, cls, _, _ in rows], data.split.test_fraction, data.split.seed, path
    )
    return [
        Nodule(rows[i][0], rows[i][1], split, *rows[i][2:])
        for split, indices in (("train", train), ("test", test))
        for i in indices
    ], rejected
