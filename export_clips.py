"""Writes synthetic clips in the formats of other tools and labs, with a table of labels and a card."""

from __future__ import annotations

import argparse
from pathlib import Path

from augment.export.card import NO_LICENSE
from augment.export.folder import Export, export
from augment.export.formats import FORMATS
from ctrlgenaug import datasets, steps
from ctrlgenaug.folders import beside

EXAMPLE = """python export_clips.py --synthetic sequence_model_MosMed/cond_im_synthesis_mp4 --format nifti
  python export_clips.py --data Brain/Brain.yaml --synthetic Brain/filtered --format dicom --license CC-BY-4.0 \\
      --evaluation evaluation.json --output Brain_synthetic_dicom"""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    parser.add_argument(
        "--synthetic", required=True, metavar="DIR", help="folder of generated or filtered clips"
    )
    parser.add_argument("--format", required=True, choices=FORMATS, help="what to write")
    parser.add_argument("--output", help="folder to write (default: DIR_FORMAT beside the clips)")
    datasets.add_data_options(parser)
    parser.add_argument(
        "--data_root",
        default=".",
        help="folder that holds the data set's home, which knows the spacing (default: .)",
    )
    card = parser.add_argument_group("the card (README.md)")
    card.add_argument("--license", default=NO_LICENSE, help="under which others may use the clips")
    card.add_argument("--evaluation", type=Path, help="evaluate.py's JSON, to be quoted")
    steps.add_batch_options(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    spec, source = datasets.chosen(options), Path(options.synthetic)
    target = Path(options.output or beside(source, options.format))
    request = Export(
        source,
        target,
        options.format,
        options.license,
        options.evaluation,
        options.num_workers,
        options.strict,
    )
    outcome = export(request, spec, spec.home_in(options.data_root))
    made, kept = outcome.counts["made"], outcome.counts["kept"]
    gone = outcome.counts["removed"]
    removed = f", {gone} removed because their clips are gone" if gone else ""
    print(outcome.closing_line(f"{made} clips exported, {kept} were there already{removed}, in {target}"))
    return outcome.exit_code()


if __name__ == "__main__":
    steps.run(main)
