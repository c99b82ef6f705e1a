"""Checks a data set in all its stages, from raw files to motion: before any work, and after a copy."""

from __future__ import annotations

import argparse
from pathlib import Path

from augment.report.check_page import write_check
from ctrlgenaug import datasets, steps
from ctrlgenaug.checking.findings import ERROR, WARNING
from ctrlgenaug.checking.stages import STAGES, Question, check
from ctrlgenaug.errors import UserError

EXAMPLE = """python check_data.py --data Brain/Brain.yaml                 (all stages that are there)
  python check_data.py --data_name MosMed --stages clips priors motion

exit code: 0 go on; 1 something must be mended first (with --strict: or looked at); 2 the check itself cannot be done"""


def parse_arguments() -> argparse.Namespace:
    parser = steps.parser(__doc__, EXAMPLE)
    datasets.add_data_options(parser)
    parser.add_argument("--data_root", default=".", help="folder that holds the data set's home (default: .)")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        help=f"what to check: {', '.join(STAGES)} (default: all that are there)",
    )
    parser.add_argument("--output", help="page to write (default: NAME_check.html in the data set's home)")
    steps.add_batch_options(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    spec = datasets.chosen(options)
    home = spec.home_in(options.data_root)
    checks = check(Question(spec, home, options.num_workers), options.stages or STAGES)
    if all(item.missing for item in checks):
        raise UserError(
            f"nothing to check: {checks[0].missing}", "Check --data_root, --data and --stages", home
        )
    for item in checks:
        if item.missing and not options.stages:
            continue
        print(f"{item.name}: {item.missing or f'{len(item.rows)} checked'}")
        for finding in item.findings:
            print(f"  {finding}")
    found = [finding.level for item in checks for finding in item.findings]
    errors, warnings = found.count(ERROR), found.count(WARNING)
    errors += sum(bool(item.missing) for item in checks) if options.stages else 0
    stop = errors or (options.strict and warnings)
    verdict = f"{errors} errors, {warnings} warnings: " + ("mend them before you go on" if stop else "go on")
    page = Path(options.output or home / f"{spec.data_name}_check.html")
    write_check(page, spec.data_name, checks, f"{verdict[0].upper()}{verdict[1:]}.")
    print(f"{verdict}; the page is {page}")
    return 1 if stop else 0


if __name__ == "__main__":
    steps.run(main)
