"""The data set and the conditions of its clips."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from augment.report.page import Block, Notice, Section, Table, drawn, picture
from augment.report.run_folders import RunFolders
from ctrlgenaug.contact_sheet import strip
from ctrlgenaug.datasets import SPLITS, Clip, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.preprocessing.batch import SKIPPED
from ctrlgenaug.video import read_video

NAMED = 8  # examples of a long list
SHOWN = 40  # rows of the table of skipped cases


def some(names: list[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def clip_strip(path: Path, caption: str) -> Block:
    """A clip's frames in a row; a `Notice` if it cannot be read."""
    try:
        return drawn(strip(read_video(path)), caption)
    except UserError as error:
        return Notice(str(error))


def _clips(folders: RunFolders) -> dict[str, list[Clip]]:
    """The clips of each split that was sampled."""
    folder = folders.home / folders.spec.clips_dir
    splits = [split for split in SPLITS if folders.spec.metadata_path(folder, split).is_file()]
    return {split: list(folders.spec.rows(folder, split)) for split in splits}


def _cases_of_frames(spec: DatasetSpec, folder: Path) -> dict[str, str]:
    """{case: split} of the frames in ``folder``; none if it has no metadata."""
    found: dict[str, str] = {}
    for split in SPLITS:
        if spec.metadata_path(folder, split).is_file():
            found |= {spec.parse_frame(row.name)[0]: split for row in spec.rows(folder, split)}
    return found


def _skipped(folders: RunFolders) -> list[Block]:
    """What the extraction and the sampling step said of the cases that they left out."""
    spec, rows = folders.spec, []
    for folder in dict.fromkeys((spec.slices_dir, spec.frames_dir, spec.clips_dir)):
        path = folders.home / folder / SKIPPED
        if path.is_file():
            rows += [(folder, case, reason) for case, reason in read_json(path).items()]
    if not rows:
        return ["No case was skipped."]
    notice = Notice(f"{len(rows)} cases were skipped: {some([case for _, case, _ in rows])}.")
    return [notice, Table(("left out of", "case", "reason"), rows[:SHOWN], long=(2,))]


def data_section(folders: RunFolders) -> Section:
    """Cases and clips by class and split, a real clip of each class, cases that yielded no clip."""
    spec, folder = folders.spec, folders.home / folders.spec.clips_dir
    section, clips = Section("Data"), _clips(folders)
    if not any(clips.values()):
        section.blocks.append(Notice(f"No clips in {folder}. Made by the data set's sampling script."))
        return section
    rows = []
    for split, found in clips.items():
        for cls in (*spec.classes, "all"):
            chosen = [clip for clip in found if cls in (clip.cls, "all")]
            cases = {spec.parse_clip(clip.name)[0] for clip in chosen}
            patients = {spec.patient(clip.name) for clip in chosen}
            lacking = [clip.name for clip in chosen if not (folder / clip.file_name).is_file()]
            rows.append((split, cls, len(patients), len(cases), len(chosen)))
            if cls == "all" and lacking:
                section.blocks.append(Notice(f"{len(lacking)} {split} clips have no file: {some(lacking)}."))
            if not chosen:
                section.blocks.append(Notice(f"No {split} clip of class {cls}."))
    section.blocks += [
        Notice(f"The {split} split was not sampled.") for split in SPLITS if split not in clips
    ]
    section.blocks.append(Table(("split", "class", "patients", "cases", "clips"), rows, numeric=(2, 3, 4)))
    sampled = {spec.parse_clip(clip.name)[0] for found in clips.values() for clip in found}
    dropped = [case for case in _cases_of_frames(spec, folders.home / spec.slices_dir) if case not in sampled]
    if dropped:
        section.blocks.append(
            Notice(f"{len(dropped)} cases have frames but no clip: {some(dropped)}. Sampling again says why.")
        )
    section.blocks += _skipped(folders)
    for cls in spec.classes:
        first = next((clip for found in clips.values() for clip in found if clip.cls == cls), None)
        if first is not None:
            section.blocks.append(clip_strip(folder / first.file_name, f"{cls}, real: {first.name}"))
    total = Counter(clip.cls for found in clips.values() for clip in found)
    section.facts = [
        ("patients", str(len({spec.patient(clip.name) for found in clips.values() for clip in found}))),
        ("real clips", " + ".join(f"{len(found)} {split}" for split, found in clips.items())),
        ("clips of the rarest class", f"{min(total.values())} ({min(total, key=total.__getitem__)})"),
    ]
    return section


def conditions_section(folders: RunFolders) -> Section:
    """How many frames have an image prior, how many clips a motion field and trajectories; one field drawn."""
    spec, home = folders.spec, folders.home
    section = Section("Conditions")
    clips = [clip.name for found in _clips(folders).values() for clip in found]
    kinds = [
        (
            "image priors of the clips' first frames",
            spec.priors_dir,
            [spec.first_frame(name) for name in clips],
        ),
        ("motion fields", spec.motion_dir, clips),
        ("trajectories", spec.trajectories_dir, clips),
    ]
    rows = []
    for title, folder, wanted in kinds:
        found = {path.stem for path in (home / folder).glob("*.npy")}
        lacking = [name for name in wanted if name not in found]
        rows.append((title, home / folder, len(wanted) - len(lacking), len(wanted)))
        if lacking:
            step = "extract_image_priors.py" if folder == spec.priors_dir else "extract_motion_field_trajs.py"
            section.blocks.append(
                Notice(f"{title}: {len(lacking)} of {len(wanted)} missing: {some(lacking)}. Made by {step}.")
            )
    section.blocks.append(Table(("what", "folder", "there", "wanted"), rows, numeric=(2, 3), long=(1,)))
    fields = sorted((home / f"{spec.motion_dir}_pictures").glob("*.png"))
    if fields:
        section.blocks.append(picture(fields[0], f"What the video encoder saw move: {fields[0].stem}"))
    else:
        section.blocks.append("extract_motion_field_trajs.py --visualize draws the motion fields.")
    return section
