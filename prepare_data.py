"""Steps (a) and (b) for a data set of your own: raw files to frames and clips, as one data file describes them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ctrlgenaug import datasets, steps
from ctrlgenaug.errors import UserError

EXAMPLE = """python prepare_data.py --guess Brain --out Brain/Brain.yaml  (look at a folder, write a first data file)
  python check_data.py --data Brain/Brain.yaml                 (look at every file before any work)
  python prepare_data.py --data Brain/Brain.yaml               (make Brain_all_slices/, Brain_data/, Brain_volume/)

The fields of a data file, with five complete examples, are in docs/your_own_data.md. MosMed, MRNet, ACDC and TUSC have
scripts of their own in their folders; see docs/data.md."""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    datasets.add_data_options(parser, "one of --data, --data_name and --guess is needed")
    parser.add_argument("--guess", metavar="FOLDER", help="look at a folder and write a first data file")
    parser.add_argument("--out", metavar="FILE", help="the data file that --guess writes, NAME.yaml")
    steps.add_batch_options(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    if options.guess:
        return guess(Path(options.guess), options.out)
    if not (options.data or options.data_name):
        raise UserError("no data set is given", "Give --data FILE.yaml, or --guess FOLDER --out FILE.yaml")

    from ctrlgenaug.preprocessing.own.prepare import prepare

    return prepare(datasets.chosen(options), num_workers=options.num_workers, strict=options.strict)


def guess(folder: Path, out: str | None) -> int:
    """Writes a first data file for ``folder`` to ``out``, says what it saw, and reads the file back."""
    from ctrlgenaug.files import write_text
    from ctrlgenaug.preprocessing.own import guess as guessing

    if not out:
        raise UserError("--guess needs --out", "Give the data file to write, e.g. --out MyData.yaml")
    target = Path(out)
    if target.exists():
        raise UserError("exists already", "Choose another --out, or move it away", target)
    text, seen = guessing.guess(folder, target)
    for line in seen:
        print(f"seen: {line}")
    write_text(target, text)
    datasets.load(target)
    print(f"wrote {target}; read it, then: python check_data.py --data {shlex.quote(str(target))}")
    return 0


if __name__ == "__main__":
    steps.run(main)
