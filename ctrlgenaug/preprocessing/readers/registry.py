"""The readers of the published data sets by the names that their data files give them."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.readers import acdc, mosmed, mrnet, tusc
from ctrlgenaug.preprocessing.readers.reader import Found, RawReader

READERS: dict[str, RawReader] = {
    "mosmed": mosmed.READER,
    "mrnet": mrnet.READER,
    "acdc": acdc.READER,
    "tusc": tusc.IMAGES,
}


def find_in(reader: RawReader, home: Path) -> Found:
    """What there is to read in a home folder, by the reader's own defaults; paths are absolute."""
    if not home.is_dir():
        raise UserError("is not a folder", "Run where the data set's home is, or give --data_root", home)
    parser = argparse.ArgumentParser()
    reader.add_options(parser)
    with contextlib.chdir(home):
        found = reader.find(parser.parse_args([]))
        cases = [
            case.__class__(
                case.name, case.split, case.cls, tuple(path.absolute() for path in case.sources), case.text
            )
            for case in found.cases
        ]
        return Found(cases, found.read, found.output, found.source.absolute(), found.rejected, found.settings)
