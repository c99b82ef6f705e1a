"""Which raw files there are and which of them belong together, as a data file's ``raw`` section says."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ctrlgenaug.datasets.data_file import DataFile
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing import pictures
from ctrlgenaug.preprocessing.dicom import find_series
from ctrlgenaug.preprocessing.own.patterns import Pattern, pattern
from ctrlgenaug.preprocessing.raw_files import natural, walk

SUFFIXES = {
    "nifti": (".nii", ".nii.gz"),
    "video": (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv"),
    "frames": pictures.SUFFIXES,
    "npy": (".npy", ".npz"),
}
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")  # most have none


@dataclass(frozen=True)
class RawCase:
    """Raw files that become one case.

    Attributes:
        parts: what the path says: ``case``, ``patient``, ``class``, ``split``.
        files: in order.
        relative: the first file's path below the raw folder.
        ids: of a DICOM series; not to be shown or written.
    """

    parts: dict[str, str]
    files: tuple[Path, ...]
    relative: str
    ids: dict[str, str] = field(default_factory=dict, repr=False)


def find_raw(data: DataFile, home: Path) -> list[RawCase]:
    """The raw cases of a data set, in the natural order of their paths.

    Raises:
        UserError: no folder, or a pattern that matches nothing (it says what is there).
    """
    folder = home / data.raw.folder
    wanted = pattern(data.raw.pattern)
    if data.raw.kind != "frames" and "{number}" in data.raw.pattern:
        raise UserError("raw.pattern names {number}, which is for kind: frames", "Leave it out")
    ours = {home / name for name in _written(data)}
    made: dict[Path, bool] = {}  # folder -> whether it holds generated clips, which have a manifest
    found: list[tuple[str, dict[str, str], Path]] = []
    present: Counter[str] = Counter()
    example = ""
    for path in walk(folder):
        generated = made.setdefault(path.parent, (path.parent / "manifest.jsonl").exists())
        if generated or any(parent in ours for parent in path.parents):
            continue  # what earlier runs wrote beside the raw files
        relative = path.relative_to(folder).as_posix()
        present[path.suffix.lower() or "(no suffix)"] += 1
        example = example or relative
        parts = match_path(wanted, relative)
        if parts is not None and _of_kind(data.raw.kind, path.name):
            found.append((relative, {name: value for name, value in parts.items() if value}, path))
    if not found:
        there = ", ".join(f"{count} {suffix}" for suffix, count in present.most_common(5))
        seen = (
            f"there are {there}, e.g. {example}"
            if present and not data.pseudonyms
            else f"there are {there or 'no files'}"
        )
        raise UserError(
            f"raw.pattern {data.raw.pattern!r} matches nothing: {seen}", "Mend pattern or kind", folder
        )
    found.sort(key=lambda item: natural(item[0]))
    if data.raw.kind == "dicom":
        return _dicom(found, folder)
    if data.raw.kind == "frames":
        return _frames(found, wanted)
    return [RawCase(parts, (path,), relative) for relative, parts, path in found]


def _written(data: DataFile) -> tuple[str, ...]:
    spec = data.spec(Path(), "")
    return (
        *(spec.slices_dir, spec.frames_dir, spec.clips_dir, spec.priors_dir, spec.motion_dir),
        *(spec.trajectories_dir, f"{spec.motion_dir}_pictures"),
    )


def match_path(wanted: Pattern, relative: str) -> dict[str, str] | None:
    """The named parts of a path, as `Pattern.match`; suffixes may be in capitals, and letters composed or not."""
    text = unicodedata.normalize("NFC", relative)
    known = (suffix for suffixes in (*SUFFIXES.values(), DICOM_SUFFIXES) for suffix in suffixes)
    ending = next((suffix for suffix in known if text.lower().endswith(suffix)), "")
    base = text[: len(text) - len(ending)]
    ways = dict.fromkeys((text, base + ending, base + ending.upper()))
    return next((parts for way in ways if (parts := wanted.match(way)) is not None), None)


def _of_kind(kind: str, name: str) -> bool:
    return kind not in SUFFIXES or name.lower().endswith(SUFFIXES[kind])


def _dicom(found: list[tuple[str, dict[str, str], Path]], folder: Path) -> list[RawCase]:
    parts_of = {path: (relative, parts) for relative, parts, path in found}
    series, others = find_series(parts_of)
    if not series:
        raise UserError(
            f"none of {len(found)} files is a DICOM picture", "Check raw.folder and raw.pattern", folder
        )
    if others:
        print(f"{others} files are no DICOM pictures (tables, reports, ...) and are passed over")
    cases = []
    for item in series:
        first = min(item.files, key=lambda path: natural(parts_of[path][0]))
        relative, parts = parts_of[first]
        ids = item.ids | {"folder": first.parent.name, "file": first.stem}
        cases.append(RawCase(parts, item.files, relative, ids))
    return sorted(cases, key=lambda case: natural(case.relative))


def _frames(found: list[tuple[str, dict[str, str], Path]], wanted: Pattern) -> list[RawCase]:
    groups: dict[tuple[str, ...], list[tuple[str, dict[str, str], Path]]] = {}
    for item in found:
        parts = item[1]
        named = (parts.get(name, "") for name in ("split", "class", "patient", "case"))
        groups.setdefault((wanted.above_case(item[0]), *named), []).append(item)
    if "{case}" not in wanted.text:
        raise UserError(
            "raw.pattern of frames needs a {case}", "Write e.g. {case}/*.png or {case}_{number}.png"
        )
    cases = []
    for members in groups.values():
        ordered = sorted(members, key=lambda item: (int(item[1].get("number", 0)), natural(item[0])))
        numbers = [item[1]["number"] for item in ordered if "number" in item[1]]
        if len({int(number) for number in numbers}) < len(numbers):
            raise UserError(
                f"two frames of {ordered[0][1]['case']} have one number",
                "Mend raw.pattern",
                ordered[0][2].parent,
            )
        parts = {name: value for name, value in ordered[0][1].items() if name != "number"}
        cases.append(RawCase(parts, tuple(item[2] for item in ordered), ordered[0][0]))
    return cases
