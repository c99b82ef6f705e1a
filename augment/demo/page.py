"""The demo's closing page: the report of a run, and what each step made and took.

``python -m augment.demo.page --run demo_run`` writes ``index.html`` and ``overview.png`` into the run's folder.
"""

from __future__ import annotations

import csv
from pathlib import Path

from augment.demo.goals import goals, goals_section
from augment.report.all_sections import sections
from augment.report.page import Key, Notice, Section, Table, picture, write_page
from augment.report.run_folders import RunFolders, find
from augment.report.synthesis_sections import pairs
from ctrlgenaug import datasets, steps
from ctrlgenaug.arguments import number_from_0
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.video import read_video

NOT_PART = ("Does it help?",)  # a comparison over seeds takes longer than a demo may


def folders_of(run: Path, data_name: str) -> RunFolders:
    """Where demo.sh puts its results."""
    model = run / f"sequence_model_{data_name}"
    return find(
        datasets.get(data_name),
        run,
        sequence_model=model,
        runs=run / "runs",
        filtered=run / f"{data_name}_synthetic_filtered",
        classifiers=[run / "runs/classifier", run / "runs/classifier_with_synthetic"],
        evaluation=run / "evaluation.json",
    )


def draw_overview(folders: RunFolders, target: Path) -> None:
    """Draws, for every class, a real clip above a synthetic one of its class."""
    rows = []
    for pair in pairs(folders, shown=1):
        found = [("real", pair.real), *(("synthetic", path) for path in pair.synthetic)]
        rows += [(f"{pair.cls}, {kind}", read_video(path)) for kind, path in found if path]
    if rows:
        save_picture(target, contact_sheet(rows))


def conditions_section(run: Path) -> Section:
    """The sheets of `augment.demo.pictures`: what each condition does."""
    sheets = sorted((run / "pictures").glob("patient_*.png"))
    text = (
        "Two patients whom no model was trained on. From top to bottom: the real clip; the conditions taken from it; "
        "synthetic clips from both, with two seeds; then one condition changed at a time, the seed kept."
    )
    blocks = [picture(path, f"Patient {number}") for number, path in enumerate(sheets, start=1)]
    return Section("What the conditions do", [text, *(blocks or [Notice("No pictures were drawn.")])])


def steps_section(run: Path) -> Section:
    """Every step's command, what it took and its last line."""
    with (run / "steps.tsv").open(encoding="utf-8") as handle:
        taken = [(*row, "", "")[:4] for row in csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)]
    heads = ("step", "seconds", "what it made", "command")
    text = "Every step is a command that can be run alone."
    return Section("Steps", [text, Table(heads, taken, numeric=(1,), long=(2, 3))])


def main() -> int:
    """Draws the overview and writes the page."""
    parser = steps.parser(__doc__.splitlines()[0], "python -m augment.demo.page --run demo_run")
    parser.add_argument("--run", default=".", help="the demo's folder (default: .)")
    parser.add_argument("--seconds", type=number_from_0, help="what the whole demo took")
    parser.add_argument("--data_name", default="MosMed", help="the demo's data set (default: %(default)s)")
    options = parser.parse_args()
    run = Path(options.run)
    folders = folders_of(run, options.data_name)
    draw_overview(folders, run / "overview.png")
    parts = {title: part for title, part in sections(folders).items() if title not in NOT_PART}
    first = [parts.pop(title) for title in ("Steering", "Class control", "Real beside synthetic")]
    ordered = [conditions_section(run), goals_section(run), *first, *parts.values(), steps_section(run)]
    took = f" It took {options.seconds / 60:.1f} minutes." if options.seconds else ""
    lead = (
        f"The whole method on generated patients of {options.data_name}: a miniature base model in Stable Diffusion's "
        f"place, taught for minutes.{took} All of it is drawn, and nothing of it is medical."
    )
    write_page(run / "index.html", "Ctrl-GenAug demo", lead, ordered)
    control = [block.text for block in first[1].blocks if isinstance(block, Key)]
    print(control[0] if control else "Class control was not measured.")
    for goal in goals(run):
        print(f"{'reached' if goal.reached else 'MISSING'}: {goal.what}: {goal.found} (wanted {goal.wanted})")
    print(f"page: {(run / 'index.html').resolve()}.{took}")
    return 0


if __name__ == "__main__":
    steps.run(main)
