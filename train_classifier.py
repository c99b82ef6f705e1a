"""Trains a sequence classifier on real clips, with or without synthetic ones, and tests it on the test split.

The best epoch is chosen on patients held out of the train split, never on the test split. The same command again
continues where it stopped, and does nothing when the run is finished.
"""

from __future__ import annotations

import sys
from pathlib import Path

from augment.classifiers import arguments
from ctrlgenaug import datasets, steps
from ctrlgenaug.number_format import percent

EXAMPLE = """python train_classifier.py --data_name MosMed --classifier i3d --paradigm joint \\
      --synthetic_dir MosMed_filtered --output_dir classifier_MosMed_joint

Writes classifier.pth, metrics.json, metrics.md, confusion_matrix.png, curves.png, predictions.csv and stats.jsonl into
--output_dir. docs/classifiers.md says what each paradigm, option and figure means."""


def main() -> None:
    parser = steps.parser(__doc__, EXAMPLE)
    group = parser.add_argument_group("data and output")
    datasets.add_data_options(group)
    group.add_argument(
        "--data_root", default=".", help="folder that holds the data set's folder (default: .)"
    )
    group.add_argument("--output_dir", help="run folder (default: classifier_{data}_{classifier}_{paradigm})")
    group.add_argument("--fresh", action="store_true", help="start over in --output_dir")
    arguments.add_all(parser)
    options = parser.parse_args()
    for line in arguments.without_effect(options):
        print(f"note: {line}", file=sys.stderr)
    spec = datasets.chosen(options)
    home, spec = arguments.real_home(spec, options)
    settings, how = arguments.run_settings(options), arguments.running(options)

    from augment.classifiers.training_run import train_and_test

    name = Path(options.classifier).stem
    folder = Path(options.output_dir or f"classifier_{spec.data_name}_{name}_{options.paradigm}")
    result = train_and_test(spec, home, settings, folder, fresh=options.fresh, **how)
    if result["skipped"]:
        print(
            f"warning: {len(result['skipped'])} files skipped, e.g. {result['skipped'][0]}", file=sys.stderr
        )
    clip, patient = result["test"]["clip"], result["test"]["patient"]
    print(
        f"test: accuracy {percent(clip['accuracy'])} %, balanced accuracy {percent(clip['balanced_accuracy'])} %, "
        f"macro F1 {percent(clip['macro_f1'])} %, AUC {percent(clip['auc'])} % over {clip['count']} clips; "
        f"balanced accuracy {percent(patient['balanced_accuracy'])} % over {patient['count']} patients"
    )
    checkpoint = folder / "classifier.pth"
    print(f"next: python noisy_data_filter.py --classifier_checkpoint {checkpoint} ..., or evaluate.py")
    tested_on = result.get("tested_on", "the test split")
    there = "was finished already" if result.get("was_there") else "is"
    print(
        f"classifier {there} in {checkpoint}, accuracy {percent(clip['accuracy'])} % on {tested_on}; "
        f"figures in {folder}/metrics.md"
    )


if __name__ == "__main__":
    steps.run(main)
