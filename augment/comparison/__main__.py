"""Trains classifiers in many arms (real clips alone, rivals, synthetic clips) over seeds, and compares them."""

from __future__ import annotations

import argparse
from pathlib import Path

from augment.classifiers import arguments
from augment.classifiers.settings import LARGEST_SEED, PARADIGMS, check_range
from augment.classifiers.zoo import known
from augment.comparison.arms import BASELINE, BEST_RIVAL, GROUPS, choose, settings_of
from augment.comparison.runs import RESULTS, Plan, check_clips, check_earlier, collect, run_all
from augment.comparison.table import write_table
from ctrlgenaug import datasets, steps
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import write_jsonl

EXAMPLE = """bash reproduce.sh MosMed --classifiers "i3d slowfast" --arms all --patients CT-234=6 \\
      --synthetic sequence_model_MosMed/cond_im_synthesis_mp4 --filtered MosMed_filtered --steps 2000

Runs are {output}/{classifier}/{arm}/seed_{n}; started again, finished ones are kept and an unfinished one goes on.
Ends with results.jsonl, table.md, table.json and gains.png. docs/small_data.md explains the arms."""

# flags of train_classifier.py that belong to an arm or a run here, and what decides them
OWN = {
    "paradigm": "--paradigms or --arms",
    "synthetic_dir": "--synthetic, --semantic, --filtered",
    "classifier": "--classifiers",
    "seed": "--seeds",
}


def main() -> int:
    parser = steps.parser(__doc__, EXAMPLE)
    group = parser.add_argument_group("comparison")
    group.add_argument("data", metavar="DATA", help="data set's name, or a data file")
    group.add_argument(
        "--data_root", default=".", help="folder that holds the data set's folder (default: .)"
    )
    group.add_argument("--classifiers", default="i3d", help="names (default: i3d)")
    group.add_argument("--seeds", default="0 1 2", help='of the trainings (default: "0 1 2")')
    several = "; one of several generators each: the training of seed s takes number s modulo how many"
    for flag, clips in (
        ("--synthetic", "all synthetic clips"),
        ("--semantic", "those that the filter's semantic level keeps"),
        ("--filtered", "those that both levels keep"),
    ):
        group.add_argument(
            flag,
            type=Path,
            nargs="+",
            metavar="FOLDER",
            help=f"folder of {clips}{several if clips[0] == 'a' else ''}",
        )
    group.add_argument(
        "--arms",
        help=f"by name, or in groups: {', '.join(GROUPS)}, all (default: the --paradigms with each folder given)",
    )
    group.add_argument(
        "--paradigms", default="joint pretrain_finetune", help='(default: "joint pretrain_finetune")'
    )
    group.add_argument("--output", type=Path, help="(default: reproduce_{data})")
    group.add_argument("--table_only", action="store_true", help="train nothing, only make the table again")
    arguments.add_all(parser)
    options = parser.parse_args()
    for flag, instead in OWN.items():
        if getattr(options, flag) != parser.get_default(flag):
            raise UserError(f"--{flag} is not of this command", f"Use {instead}")
    spec = datasets.get(options.data)
    output = options.output or Path(f"reproduce_{spec.data_name}")
    failed = []
    if not options.table_only:
        failed = _run(options, spec, output)
    results = collect(output, may_be_empty=bool(failed))
    if not results:
        raise UserError(f"no run could be finished. {failed[0]}")
    write_jsonl(output / RESULTS, results)
    rows = write_table(output, results)
    print((output / "table.md").read_text(encoding="utf-8"))
    for line in failed:
        print(f"not run: {line}")
    print(f"table of {len(results)} runs in {len(rows)} arms in {output / 'table.md'}")
    return 1 if failed else 0


def _run(options: argparse.Namespace, spec: DatasetSpec, output: Path) -> list[str]:
    given = {"unfiltered": options.synthetic, "semantic": options.semantic, "filtered": options.filtered}
    folders = {level: clips for level, clips in given.items() if clips}
    if len({len(clips) for clips in folders.values()}) > 1:
        raise UserError(
            "--synthetic, --semantic and --filtered name different numbers of folders", "Give one a generator"
        )
    if options.arms:
        wanted = options.arms.split()
        arms = choose(wanted)
        lacking = [arm.name for arm in arms if arm.level not in ("none", *folders) and arm.name not in wanted]
        if lacking:  # of a group: said, not an error
            print(f"left out, because their clips are not given: {', '.join(lacking)}")
        arms = [arm for arm in arms if arm.name not in lacking]
    else:
        paradigms = options.paradigms.split()
        for name in paradigms:
            if name not in PARADIGMS or name == BASELINE:
                raise UserError(
                    f"{name!r} is no paradigm with synthetic clips", f"Known: {', '.join(PARADIGMS[1:])}"
                )
        arms = [
            arm
            for arm in choose(["synthetic", "transfer"])
            if arm.name == BASELINE or (arm.paradigm in paradigms and arm.level in folders)
        ]
    seeds = _seeds(options.seeds)
    base = arguments.run_settings(options)
    if BEST_RIVAL in (arm.name for arm in arms) and not base.validation_fraction:
        problem = f"{BEST_RIVAL} takes the rival that is best on validation clips, and there are none"
        raise UserError(problem, "Leave --validation_fraction 0 out, or the arm")
    for arm in arms:  # an arm that makes no sense is found before hours of training
        if arm.name != BEST_RIVAL:
            settings_of(arm, base, "any", 0, {level: clips[0] for level, clips in folders.items()})
    classifiers = _classifiers(options.classifiers)
    plan = Plan(spec, spec.home_in(options.data_root), base, classifiers, seeds, arms, folders, output)
    check_clips(plan)
    check_earlier(plan)
    return run_all(plan, arguments.running(options))


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split()]
    except ValueError:
        raise UserError(f"--seeds {text!r} are no numbers", 'Give e.g. "0 1 2"') from None
    if not seeds:
        raise UserError("--seeds names none", 'Give e.g. "0 1 2"')
    for seed in seeds:
        check_range("seeds", seed, 0, LARGEST_SEED)
    return list(dict.fromkeys(seeds))


def _classifiers(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split()))
    for name in names:
        if name not in known() and not (name.endswith(".py") and Path(name).is_file()):
            raise UserError(
                f"{name!r} is not a known classifier", f"Known: {', '.join(known())}, or a config .py"
            )
    folders = [Path(name).stem if name.endswith(".py") else name for name in names]
    if not names or len(set(folders)) < len(names):
        raise UserError(
            f"--classifiers {text!r} names none, or two alike", "Give e.g. i3d, or rename a config"
        )
    return names


if __name__ == "__main__":
    steps.run(main)
