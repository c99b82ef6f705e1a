"""A first data file for a folder that nobody has described yet: what is there, and what it probably means."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug.datasets.data_file import DataFile, Raw, class_word
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing.nifti import read_volume, stem
from ctrlgenaug.preprocessing.own import guess_labels
from ctrlgenaug.preprocessing.own.raw_cases import SUFFIXES, RawCase, find_raw
from ctrlgenaug.preprocessing.own.reading import MOST_FRAMES
from ctrlgenaug.preprocessing.own.split_words import SPLIT_WORDS
from ctrlgenaug.preprocessing.raw_files import natural, walk
from ctrlgenaug.preprocessing.tables import SUFFIXES as TABLE_SUFFIXES
from ctrlgenaug.preprocessing.volumes import Volume

MASK = re.compile(
    r"(^|[_.-])(mask|seg|segmentation|gt|label|labels|roi|annotation)s?($|[_.-])", re.IGNORECASE
)
LOOKED_AT = 5  # cases whose pixels are read
CHECKED_FOR_DICOM = 50
MOST_CLASSES = 12


@dataclass
class Guess:
    """What a folder seems to hold.

    Attributes:
        kind: of the raw files.
        pattern: of their paths.
        mask: pattern of masks, from the folder.
        seen: what was seen, in sentences.
        labels: what the table says, if there is one.
        classes: what the files' or the table's words for classes are.
        intensity: a line of the data file, or "".
        slices: likewise.
        clips: likewise.
    """

    kind: str
    pattern: str
    mask: str = ""
    seen: list[str] = field(default_factory=list)
    labels: guess_labels.Labels | None = None
    classes: list[str] = field(default_factory=list)
    intensity: str = ""
    slices: str = ""
    clips: str = ""


def guess(folder: Path, out: Path) -> tuple[str, list[str]]:
    """The text of a data file for ``folder``, to be written to ``out``; and what was seen, in sentences.

    Raises:
        UserError: nothing that could be a raw file, or nothing that could be labels.
    """
    files = {path.relative_to(folder).as_posix(): path for path in walk(folder)}
    by_kind = _by_kind(files)
    if not by_kind:
        kinds = Counter(path.suffix.lower() or "(no suffix)" for path in files.values()).most_common(5)
        there = ", ".join(f"{count} {suffix}" for suffix, count in kinds)
        problem = f"holds no NIfTI, DICOM, video, picture or npy files (there are {there or 'no files'})"
        raise UserError(problem, "Give the folder of the raw files", folder)
    kind = max(by_kind, key=lambda kind: len(by_kind[kind]))
    names, masks = _without_masks(by_kind[kind])
    found = Guess(kind, "")
    found.seen.append(
        f"{len(files)} files: " + ", ".join(f"{len(paths)} {name}" for name, paths in by_kind.items())
    )
    tables = [path for path in files.values() if path.suffix.lower() in TABLE_SUFFIXES]
    units = _units(kind, names)
    found.labels = guess_labels.best(tables, _ids(kind, folder, names, units), folder)
    found.pattern, words = _pattern(kind, names, found.labels)
    if found.labels:
        found.classes = found.labels.classes
        found.seen += found.labels.seen
    elif words:
        found.classes = words
        found.seen.append(f"folders named {', '.join(words)}, taken for classes")
    else:
        problem = "holds no labels: no table names its files, and no folders could be classes"
        raise UserError(problem, "Add a table, or sort the files into a folder for each class", folder)
    found.mask = _mask_pattern(masks, found.pattern)
    raw = find_raw(_draft(found, folder, out), folder)
    found.seen.append(f"{len(raw)} cases by the pattern {found.pattern}")
    _look(found, raw, folder)
    return _written(found, folder, out), found.seen


def _by_kind(files: dict[str, Path]) -> dict[str, list[str]]:
    found = {
        kind: [name for name in files if name.lower().endswith(suffixes)]
        for kind, suffixes in SUFFIXES.items()
    }
    known = {name for names in found.values() for name in names}
    unknown = [name for name in files if name not in known and not name.lower().endswith(TABLE_SUFFIXES)]
    named = [name for name in unknown if name.lower().endswith((".dcm", ".ima", ".dicom"))]
    rest = [name for name in unknown if name not in set(named)][:CHECKED_FOR_DICOM]
    if named or any(_is_dicom(files[name]) for name in rest):
        found["dicom"] = named if named else unknown
    return {kind: names for kind, names in found.items() if names}


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _without_masks(names: list[str]) -> tuple[list[str], list[str]]:
    masks = [
        name
        for name in names
        if MASK.search(stem(name.rpartition("/")[2])) or MASK.search(name.partition("/")[0])
    ]
    if not masks or len(masks) >= len(names):
        return names, []
    return [name for name in names if name not in set(masks)], masks


def _units(kind: str, names: list[str]) -> list[str]:
    """What the cases may be called: names without suffixes, or folders where each holds several files."""
    if kind in ("dicom", "frames"):
        parents = Counter(name.rpartition("/")[0] for name in names)
        if len(parents) > 1 and min(parents.values()) > 1 and _numbered(names):
            return [parent.rpartition("/")[2] for parent in parents]
        if kind == "frames":
            return list(dict.fromkeys(re.sub(r"[_-]?[a-zA-Z]*\d+$", "", _bare(name)) for name in names))
    return [_bare(name) for name in names]


def _bare(name: str) -> str:
    return (
        stem(name.rpartition("/")[2]) if name.endswith(".gz") else name.rpartition("/")[2].rpartition(".")[0]
    )


def _numbered(names: list[str]) -> bool:
    """Whether a folder's files are numbered frames of one case: only their digits differ."""
    shapes: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        shapes.setdefault(folder, set()).add(re.sub(r"\d+", "#", file))
    return all(len(found) == 1 for found in shapes.values())


def _ids(kind: str, folder: Path, names: list[str], units: list[str]) -> list[set[str]]:
    """Sets of names, of which one may be what a table calls the cases."""
    if kind != "dicom":
        return [set(units)]
    from ctrlgenaug.preprocessing.dicom import find_series

    series, _ = find_series(folder / name for name in names)
    if not series:
        raise UserError("its DICOM files hold no pictures", "Give the folder of the images", folder)
    return [{item.ids[name] for item in series} for name in series[0].ids] + [
        {item.files[0].parent.name for item in series},
        {item.files[0].stem for item in series},
    ]


def _pattern(kind: str, names: list[str], labels: guess_labels.Labels | None) -> tuple[str, list[str]]:
    """The pattern of the paths, and the names of folders that are taken for classes where no table has them."""
    parents = [name.split("/")[:-1] for name in names]
    depth = min(len(parts) for parts in parents)
    tokens = []
    words: list[str] = []
    own_folder = kind in ("frames", "dicom") and depth and _folders_are_cases(names)
    for level in range(depth):
        values = {parts[level] for parts in parents}
        if {value.lower() for value in values} <= set(SPLIT_WORDS) and len(values) > 1:
            tokens.append("{split}")
        elif own_folder and level == depth - 1 and kind == "frames":
            tokens.append("{case}")
        elif (
            labels is None
            and not words
            and 2 <= len(values) <= MOST_CLASSES
            and not (own_folder and level == depth - 1)
        ):
            tokens.append("{class}")
            words = sorted(values, key=natural)
        elif len(values) == 1:
            tokens.append(next(iter(values)))
        else:
            tokens.append("*")
    if kind == "dicom":
        used = [index for index, token in enumerate(tokens) if token.startswith("{")]
        return "/".join([*tokens[: used[-1] + 1], "**"]) if used else "**", words
    same_depth = len({len(parts) for parts in parents}) == 1
    if kind == "frames":
        last = "*" if own_folder else "{case}_{number}.*"
        if not own_folder and not all(re.search(r"_\d+\.", name) for name in names):
            last = "{case}-{number}.*" if all(re.search(r"-\d+\.", name) for name in names) else "{case}.*"
    else:
        ending = labels.ending if labels else ""
        last = "{case}" + ending + {"nifti": ".nii*", "npy": ".np[yz]", "video": ".*"}[kind]
    return "/".join([*tokens, *([] if same_depth else ["**"]), last]), words


def _folders_are_cases(names: list[str]) -> bool:
    parents = Counter(name.rpartition("/")[0] for name in names)
    return len(parents) > 1 and min(parents.values()) > 1 and _numbered(names)


def _mask_pattern(masks: list[str], of_pictures: str) -> str:
    if not masks:
        return ""
    name = masks[0].rpartition("/")[2]
    folder = "/".join(["*"] * masks[0].count("/")) if masks[0].count("/") > 1 else masks[0].rpartition("/")[0]
    match = MASK.search(_bare(name))
    own = "{case}" + (_bare(name)[match.start() :] if match and match.start() else "") if match else "{case}"
    return f"{folder}/{own}.*" if folder else f"{own}.*"


def _draft(found: Guess, folder: Path, out: Path) -> DataFile:
    """A data file that is enough to list the raw cases."""
    draft = DataFile(name=out.stem if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", out.stem) else "Draft")
    draft.raw = Raw(kind=found.kind, pattern=found.pattern)
    draft.pseudonyms = found.kind == "dicom"
    return draft


def _look(found: Guess, raw: list[RawCase], folder: Path) -> None:
    """Reads a few cases, evenly spread, and says what their pixels are like."""
    chosen = [raw[int(i)] for i in np.unique(np.linspace(0, len(raw) - 1, LOOKED_AT).astype(int))]
    values: list[tuple[float, float]] = []
    counts, kinds, spacings, region = [], set(), set(), False
    modalities: set[str] = set()
    for case in chosen:
        try:
            stack, spacing, has_region, modality = _pixels(found.kind, case)
        except UserError as error:
            found.seen.append(f"one case cannot be read: it {error.problem}")
            continue
        counts.append(len(stack))
        kinds.add(f"{stack.shape[2]} x {stack.shape[1]} {stack.dtype}")
        values.append((float(stack.min()), float(stack.max())))
        spacings |= {spacing} if spacing else set()
        region, modalities = region or has_region, modalities | ({modality} if modality else set())
    if not counts:
        raise UserError("none of the cases that were looked at can be read", "Check the files", folder)
    shown = f"{min(counts)} to {max(counts)} slices or frames of {', '.join(sorted(kinds))}"
    found.seen.append(
        f"{len(counts)} cases were read: {shown}, values {min(v[0] for v in values):g} to {max(v[1] for v in values):g}"
    )
    if spacings:
        found.seen.append("spacing " + "; ".join(sorted(spacings)))
    if min(low for low, _ in values) <= -500 or "CT" in modalities:
        found.intensity = (
            "intensity: {window: [-1000, 400]}  # HU: lungs; soft tissue [-160, 240], bone [-450, 1050]"
        )
        found.seen.append("values below -500: Hounsfield units")
    elif any("uint8" not in kind for kind in kinds):
        found.intensity = (
            "intensity: {percentiles: [0.5, 99.5]}  # of the values above 0; or window: [low, high]"
        )
    if region:
        found.slices = "slices: {crop: region}  # the ultrasound image without the machine's margins"
    if int(np.median(counts)) < 15:
        found.clips = (
            "clips: {frames_per_clip: 8, clip_sampling_interval: 0}  # cases are short: every frame counts"
        )


def _pixels(kind: str, case: RawCase) -> tuple[np.ndarray, str, bool, str]:
    """(n, H, W), the spacing in words, whether an ultrasound region is known, and the modality."""
    if kind == "nifti":
        volume = read_volume(case.files[0], not_finite=0)
        return volume.voxels.transpose(2, 1, 0), _spacing(volume), False, ""
    from ctrlgenaug.preprocessing.own.reading import read_raw

    read, region = read_raw(case.files, _plain_data(kind))
    modality = ""
    if kind == "dicom":
        from ctrlgenaug.preprocessing.dicom import find_series

        modality = find_series(case.files[:1])[0][0].modality
    if isinstance(read, Volume):
        return read.voxels.transpose(2, 1, 0), _spacing(read), region is not None, modality
    return read[:MOST_FRAMES], "", region is not None, modality


def _plain_data(kind: str) -> Any:
    draft = DataFile(name="Draft")
    draft.raw = Raw(kind=kind)
    draft.intensity.percentiles = [0.5, 99.5]  # so that films keep their size
    return draft


def _spacing(volume: Volume) -> str:
    return f"{' x '.join(f'{size:.2g}' for size in volume.spacing)} mm, {volume.orientation}"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z][\w.+-]*", text) and text.lower() not in YAML_WORDS else f'"{text}"'


YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def _written(found: Guess, folder: Path, out: Path) -> str:
    """The data file, with a comment where a choice is likely to be wrong."""
    relative = os.path.relpath(folder, out.parent.resolve() if out.parent != Path() else Path.cwd())
    classes = [class_word(word) for word in found.classes]
    lines = [
        f"# {out.stem}: a first guess, made from what is in the folder. docs/your_own_data.md explains every field."
    ]
    lines += [f"# Seen: {line}." for line in found.seen]
    lines += [
        f"name: {out.stem}",
        f"classes: [{', '.join(map(_quoted, dict.fromkeys(classes)))}]  # in the order of their ids",
    ]
    changed = [(word, cls) for word, cls in zip(found.classes, classes, strict=True) if word != cls]
    if changed:
        lines.append(
            "class_of: {" + ", ".join(f"{_quoted(word)}: {_quoted(cls)}" for word, cls in changed) + "}"
        )
    lines += [
        "raw:",
        f"  kind: {found.kind}",
        f"  folder: {_quoted(relative) if relative != '.' else '.'}",
        f'  pattern: "{found.pattern}"',
    ]
    if found.mask:
        lines.append(
            f'  mask: "{"" if relative == "." else relative + "/"}{found.mask}"  # not used unless slices asks for it'
        )
    if found.labels:
        table = os.path.relpath(
            found.labels.path, out.parent.resolve() if out.parent != Path() else Path.cwd()
        )
        lines += ["table:", f"  file: {_quoted(table)}", "  columns:"]
        lines += [f"    {what}: {_quoted(column)}" for what, column in found.labels.columns.items()]
    if not (found.labels and "split" in found.labels.columns) and "{split}" not in found.pattern:
        lines.append("split: {test_fraction: 0.2, seed: 33}  # by patient, stratified by class")
    lines += [line for line in (found.intensity, found.slices, found.clips) if line]
    return "\n".join(lines) + "\n"
