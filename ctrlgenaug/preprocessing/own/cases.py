"""From raw files and labels to cases: class, split and a name for each."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from pathlib import Path

from ctrlgenaug.datasets import SPLITS
from ctrlgenaug.datasets.data_file import DataFile
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.nifti import stem
from ctrlgenaug.preprocessing.own.labels import (
    Row,
    assign_rows,
    check_classes,
    identity,
    plain,
    read_rows,
    shown,
)
from ctrlgenaug.preprocessing.own.patterns import pattern
from ctrlgenaug.preprocessing.own.pseudonyms import Key
from ctrlgenaug.preprocessing.own.raw_cases import RawCase, find_raw, match_path
from ctrlgenaug.preprocessing.own.split_words import SPLIT_WORDS, VALIDATION
from ctrlgenaug.preprocessing.raw_files import reject_all, walk
from ctrlgenaug.preprocessing.stratified import stratified_split


@dataclasses.dataclass(frozen=True)
class OwnCases:
    """What a data file describes.

    Attributes:
        cases: train first; the sources of each are its raw files, then its mask, if there is one.
        rejected: what cannot be used, with the reason.
    """

    cases: list[Case]
    rejected: dict[str, str]


def find_cases(data: DataFile, home: Path) -> OwnCases:
    """The cases that a data file describes.

    Raises:
        UserError: a folder, table or column is missing, a pattern matches nothing, or no case can be used.
    """
    raw = find_raw(data, home)
    rows: dict[int, Row] = {}
    rejected: dict[str, str] = {}
    source = home / (data.table.file or data.raw.folder)
    if data.table.file:
        rows, rejected = assign_rows(raw, read_rows(data, home), data, source)
        reject_all(len(rows), rejected, source)
    else:
        rows = {index: Row(0, {}) for index in range(len(raw))}
    known = {
        index: raw[index].parts | {k: v for k, v in row.values.items() if v} for index, row in rows.items()
    }
    where = {
        index: f"line {row.line} of {source.name}" if row.line else shown(raw[index], index, data)
        for index, row in rows.items()
    }
    unclassed = check_classes(
        [(where[index], said.get("class", "")) for index, said in known.items()], data, str(source)
    )
    rejected |= unclassed
    kept = [index for index in sorted(known) if where[index] not in unclassed]
    classes = {index: data.class_of.get(known[index]["class"], known[index]["class"]) for index in kept}
    spelled: dict[str, str] = {}
    patients = {
        index: spelled.setdefault(identity(patient), patient)
        for index in kept
        for patient in (_patient(raw[index], known[index]),)
    }
    splits = _splits(kept, known, classes, patients, where, data, source)
    kept = [index for index in kept if splits[index] != "none"]
    names = dict(zip(kept, _name(kept, raw, known, patients, data, home), strict=True))
    masks = _masks([raw[index] for index in kept], data, home)
    cases = []
    for index, mask in zip(kept, masks, strict=True):
        if len(mask) > 1:
            what = names[index] if data.pseudonyms else raw[index].relative
            listed = (
                ""
                if data.pseudonyms
                else f", {' and '.join(path.relative_to(home).as_posix() for path in mask[:2])}"
            )
            rejected[what] = f"fits several masks{listed}. Mend raw.mask, or move one away."
            continue
        text = known[index].get("text", "")
        cases.append(Case(names[index], splits[index], classes[index], (*raw[index].files, *mask), text))
    return OwnCases(sorted(cases, key=lambda case: SPLITS.index(case.split)), rejected)


def _patient(case: RawCase, said: dict[str, str]) -> str:
    return said.get("patient") or case.ids.get("patient") or case.ids.get("study", "")


def _splits(
    kept: list[int],
    known: dict[int, dict[str, str]],
    classes: dict[int, str],
    patients: dict[int, str],
    where: dict[int, str],
    data: DataFile,
    source: Path,
) -> dict[int, str]:
    """The split of each case: what column or path says, else stratified by class over patients."""
    words = {index: known[index].get("split", "").lower() for index in kept}
    if any(words.values()):
        meanings = SPLIT_WORDS | {word.lower(): split for word, split in data.split.values.items()}
        present = set(words.values())
        ambiguous = present & set(VALIDATION) - {word.lower() for word in data.split.values}
        if ambiguous and present & {"test", "testing"}:
            raise UserError(
                f"says both {sorted(ambiguous)[0]} and test",
                f"Write to split.values what the first means: {{{sorted(ambiguous)[0]}: train}} (or test, or none)",
                source,
            )
        unknown = [index for index in kept if words[index] not in meanings]
        if unknown:
            rows = ", ".join(where[index] for index in unknown[:5])
            problem = (
                f"says split {known[unknown[0]].get('split', '')!r} ({rows}{' ...' * (len(unknown) > 5)})"
            )
            raise UserError(problem, "Use train and test, or write split.values", source)
        splits = {index: meanings[words[index]] for index in kept}
        _one_split_a_patient(splits, patients, where, source)
        return splits
    people: dict[str, list[int]] = defaultdict(list)
    for index in kept:
        people[patients[index] or f"\0{index}"].append(index)
    labels = [
        Counter(classes[index] for index in members).most_common(1)[0][0] for members in people.values()
    ]
    _, test = stratified_split(labels, data.split.test_fraction, data.split.seed, source)
    chosen = list(people.values())
    in_test = {index for position in test for index in chosen[position]}
    return {index: "test" if index in in_test else "train" for index in kept}


def _one_split_a_patient(
    splits: dict[int, str], patients: dict[int, str], where: dict[int, str], source: Path
) -> None:
    seen: dict[str, tuple[str, int]] = {}
    for index, split in splits.items():
        before, first = seen.setdefault(patients[index], (split, index))
        if patients[index] and before != split and "none" not in (before, split):
            problem = f"puts one patient into train and test ({where[first]} and {where[index]})"
            raise UserError(problem, "Give all scans of a patient to one split", source)


def _name(
    kept: list[int],
    raw: list[RawCase],
    known: dict[int, dict[str, str]],
    patients: dict[int, str],
    data: DataFile,
    home: Path,
) -> list[str]:
    own = [_own_name(raw[index], known[index], index) for index in kept]
    if not data.pseudonyms and not data.knows_patients:
        return [check_name(name) for name in own]
    key = Key.read(home / f"{data.name}_key.csv")
    people = [(patients[index], raw[index].ids.get("series") or raw[index].relative) for index in kept]
    if raw[0].ids:  # several multi-frame files may belong to one series
        shared = Counter(people)
        people = [
            (who, raw[i].relative) if shared[who, what] > 1 else (who, what)
            for i, (who, what) in zip(kept, people, strict=True)
        ]
    names = key.assign(people, None if data.pseudonyms else own)
    key.write()
    return names


def _own_name(case: RawCase, said: dict[str, str], index: int) -> str:
    text = case.parts.get("case") or stem(case.relative.rpartition("/")[2]) or plain(said.get("case", ""))
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or f"case{index + 1:04d}"


def _masks(raw: list[RawCase], data: DataFile, home: Path) -> list[tuple[Path, ...]]:
    """The masks that fit each case, as raw.mask says; a case without one gets a path that its reader will miss."""
    if not data.raw.mask:
        return [()] * len(raw)
    wanted = pattern(data.raw.mask)
    fixed = re.split(r"[*?\[{]", data.raw.mask)[0].rpartition("/")[0]
    files = {path.relative_to(home).as_posix(): path for path in walk(home / fixed)}
    found: list[tuple[Path, ...]] = []
    for case in raw:
        of_case = wanted.fill(case.parts)
        matches = tuple(path for relative, path in files.items() if match_path(of_case, relative) is not None)
        found.append(matches or (home / data.raw.mask.replace("{case}", case.parts.get("case", "?")),))
    return found
