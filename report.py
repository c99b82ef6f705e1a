"""Makes one page that shows a whole run: data, training, synthetic clips, filter, evaluation, classifiers.

Everything is found by the names that the steps use by default, in the working directory. What is missing is said on the
page, with the step that makes it. Pictures are embedded: the page is one file and opens offline.
"""

from __future__ import annotations

from datetime import date

from ctrlgenaug import datasets, steps

EXAMPLE = """python report.py --data_name MosMed

  python report.py --data_name ACDC --filtered ACDC_strict --evaluation strict.json --output strict.html"""


def main() -> None:
    parser = steps.parser(__doc__, EXAMPLE)
    datasets.add_data_options(parser)
    parser.add_argument("--data_root", default=".", help="holds the data set's folder (default: .)")
    parser.add_argument("--output", default="report.html", help="(default: report.html)")
    where = parser.add_argument_group("where results lie, if not at their default folders")
    where.add_argument("--sequence_model", help="(default: sequence_model_{data})")
    where.add_argument("--runs", help="holds vae, ldm, sequence_ldm (default: runs/{data}, else runs)")
    where.add_argument("--synthetic", help="(default: the newest {sequence_model}/cond_*_synthesis_mp4)")
    where.add_argument(
        "--filtered", help="(default: {data}_filtered, {data}_synthetic_filtered, {synthetic}_filtered)"
    )
    where.add_argument("--classifiers", nargs="+", help="run folders (default: classifier_{data}*)")
    where.add_argument("--reproduce", help="reproduce.sh's folder (default: reproduce_{data})")
    where.add_argument("--evaluation", help="evaluate.py's JSON (default: evaluation.json)")
    options = parser.parse_args()
    spec = datasets.chosen(options)

    from augment.report.all_sections import sections
    from augment.report.page import write_page
    from augment.report.run_folders import find

    folders = find(
        spec,
        options.data_root,
        sequence_model=options.sequence_model,
        runs=options.runs,
        synthetic=options.synthetic,
        filtered=options.filtered,
        classifiers=options.classifiers,
        reproduce=options.reproduce,
        evaluation=options.evaluation,
    )
    parts = list(sections(folders).values())
    lead = f"A run of the whole method on {spec.data_name}, as it was on {date.today():%d %B %Y}."
    write_page(options.output, f"Ctrl-GenAug: {spec.data_name}", lead, parts)
    notices = sum(len(part.notices) for part in parts)
    said = f"; {notices} things are missing or doubtful, listed at its top" if notices else ""
    print(f"report of {spec.data_name} in {options.output}{said}")


if __name__ == "__main__":
    steps.run(main)
