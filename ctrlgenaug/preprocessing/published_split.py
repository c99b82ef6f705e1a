"""The order and the split of somebody else's metadata, e.g. the published ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrlgenaug.datasets import SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_jsonl
from ctrlgenaug.preprocessing.batch import Case


@dataclass(frozen=True)
class GivenSplit:
    """Which cases are whose, and in which order rows come.

    Attributes:
        split_of: case -> split.
        ranks: file name without suffix (of a frame or a clip) or case -> rank.
    """

    split_of: dict[str, str]
    ranks: dict[str, int]

    def cases(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that the split names, in its order; it says how many it does not name."""
        named = [
            dataclasses.replace(case, split=self.split_of[case.name])
            for case in cases
            if case.name in self.split_of
        ]
        if left := [case.name for case in cases if case.name not in self.split_of]:
            print(f"{len(left)} cases are not in the split given and are left out: {', '.join(left[:5])}")
        return sorted(named, key=lambda case: (SPLITS.index(case.split), self.ranks[case.name]))

    def rows(self, rows: list[dict[str, Any]], case_of: dict[str, str]) -> list[dict[str, Any]]:
        """Metadata rows in the split's order; files that it does not name come with their case.

        Args:
            rows: in the order of cases, frames ascending.
            case_of: file name without suffix -> case.
        """

        def rank(row: dict[str, Any]) -> tuple[int, int]:
            name = Path(row["file_name"]).stem
            of_case = self.ranks.get(case_of[name], len(self.ranks))
            return self.ranks.get(name, of_case), of_case

        return sorted(rows, key=rank)

    def stated(self) -> str:
        """What of this a finished step was made with, for comparison."""
        return json.dumps(self.split_of, sort_keys=True)


def read_split(spec: DatasetSpec, paths: Sequence[str | Path]) -> GivenSplit:
    """Reads ``train_metadata.jsonl`` and ``test_metadata.jsonl``, of frames or clips, by their paths or their folder.

    Raises:
        UserError: a file is missing, its name says no split, or a case is in both.
    """
    files = []
    for path in map(Path, paths):
        files += [file for split in SPLITS if (file := spec.metadata_path(path, split)).is_file()] or [path]
    split_of: dict[str, str] = {}
    ranks: dict[str, int] = {}
    for path in files:
        split = next((split for split in SPLITS if path.name.startswith(split)), None)
        if split is None:
            raise UserError("says by its name neither train nor test", "Call it train_metadata.jsonl", path)
        for row in read_jsonl(path, ("file_name",)):
            name = Path(str(row["file_name"])).stem
            case = _case_of(spec, name, path)
            if split_of.setdefault(case, split) != split:
                raise UserError(f"names {case}, which is in the other split too", "Keep it in one", path)
            ranks.setdefault(case, len(ranks))
            ranks.setdefault(name, len(ranks))
    return GivenSplit(split_of, ranks)


def _case_of(spec: DatasetSpec, name: str, path: Path) -> str:
    for parse in (spec.parse_clip, spec.parse_frame):  # TUSC's frames `Nodule4_7` are no clips `Nodule4_f7`
        try:
            return parse(name)[0]
        except UserError as error:
            problem = error
    raise UserError(problem.problem, problem.remedy, path)
