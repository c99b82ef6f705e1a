"""The page of check_data.py: what was found in each stage, tables of all cases, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augment.report.page import Fold, Heading, Key, Notice, Section, Table, drawn, write_page
from ctrlgenaug.checking.findings import ERROR, WARNING, StageCheck
from ctrlgenaug.contact_sheet import contact_sheet

TITLES = {
    "raw": "Raw files",
    "frames": "Frames",
    "clips": "Clips",
    "priors": "Image priors",
    "motion": "Motion fields and trajectories",
}
MOST_ROWS = 2000  # of a table on the page


def write_check(path: str | Path, data_name: str, checks: Sequence[StageCheck], verdict: str) -> None:
    """Writes the page."""
    write_page(path, f"Check of {data_name}", verdict, [_section(check) for check in checks])


def _section(check: StageCheck) -> Section:
    section = Section(TITLES[check.name])
    if check.missing:
        section.blocks.append(f"Not checked: {check.missing}")
        return section
    bad = [finding for finding in check.findings if finding.level in (ERROR, WARNING)]
    section.facts.append((f"{TITLES[check.name].lower()} checked", str(len(check.rows))))
    section.blocks.append(Key(f"{len(bad)} findings." if bad else "Nothing wrong was found."))
    for finding in check.findings:
        section.blocks.append(Notice(f"{finding}.") if finding in bad else f"{finding}.")
        if len(finding.names) > 5:
            section.blocks.append(Fold(f"all {len(finding.names)}", "\n".join(finding.names)))
    if check.counts:
        section.blocks.append(Table(("what", "count"), list(check.counts.items()), numeric=(1,)))
    if check.pictures:
        section.blocks.append(
            drawn(contact_sheet(check.pictures, frame_size=64), "a few cases of each class")
        )
    if check.rows:
        section.blocks.append(Heading("All of them"))
        section.blocks.append(Table(check.header, check.rows[:MOST_ROWS]))
        if len(check.rows) > MOST_ROWS:
            section.blocks.append(f"{len(check.rows) - MOST_ROWS} more are not shown.")
    return section
