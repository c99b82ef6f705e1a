"""What the readers of the published data sets share: one command line, one way from raw files to frames."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.extraction import Reader, extract
from ctrlgenaug.preprocessing.published_split import read_split
from ctrlgenaug.preprocessing.raw_files import reject_all


@dataclass(frozen=True)
class Found:
    """What there is to read.

    Attributes:
        cases: in the split's order.
        read: how the frames of one are read; a module-level function or a `functools.partial` of one.
        output: the folder to write if none is given.
        source: the file or folder that named the cases.
        rejected: cases known to be bad, with the reason.
        settings: options that change the frames; other ones mean that all is read again.
    """

    cases: Sequence[Case]
    read: Reader
    output: Path
    source: Path
    rejected: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawReader:
    """One reading step of one data set.

    Attributes:
        data_name: the data set.
        script: its script below the repository.
        description: for ``--help``.
        add_options: adds the flags that are its own.
        find: from the parsed flags to what there is to read.
        next_step: the command to name at the end.
        reads_raw: whether it reads raw files, whose order another split may decide.
    """

    data_name: str
    script: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    find: Callable[[argparse.Namespace], Found]
    next_step: str
    reads_raw: bool = True

    @property
    def spec(self) -> DatasetSpec:
        """The data set's names."""
        return datasets.get(self.data_name)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Parses the command line and runs the step; returns its exit code."""
        home, _, script = self.script.partition("/")
        parser = steps.parser(self.description, f"cd {home} && python {script} --num_workers 8")
        self.add_options(parser)
        parser.add_argument(
            "--output", help="folder to write (default: beside the input, with the published name)"
        )
        if self.reads_raw:
            parser.add_argument(
                "--published_split",
                nargs="+",
                metavar="FILE",
                help="train_metadata.jsonl and test_metadata.jsonl of somebody else (or their folder): cases, split "
                "and the order of the rows are theirs",
            )
        steps.add_batch_options(parser)
        options = parser.parse_args(arguments)
        found = self.find(options)
        reject_all(len(found.cases), dict(found.rejected), found.source)
        given = (
            read_split(self.spec, options.published_split)
            if getattr(options, "published_split", None)
            else None
        )
        return extract(
            self.spec,
            given.cases(found.cases) if given else found.cases,
            found.read,
            options.output or found.output,
            settings=found.settings,
            rejected=found.rejected,
            given=given,
            num_workers=options.num_workers,
            strict=options.strict,
            next_step=self.next_step,
        )
