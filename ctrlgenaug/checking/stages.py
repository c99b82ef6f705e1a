"""The five stages of a data set, each checked as a whole: raw files, frames, clips, image priors, motion."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctrlgenaug import datasets, steps
from ctrlgenaug.checking import measures
from ctrlgenaug.checking.findings import ERROR, NOTE, WARNING, StageCheck
from ctrlgenaug.checking.measures import Measure
from ctrlgenaug.conditions.image_priors import frame_digest
from ctrlgenaug.conditions.motion_extraction import is_of
from ctrlgenaug.datasets import SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.preprocessing import ledger
from ctrlgenaug.preprocessing.batch import Case, source_folder
from ctrlgenaug.preprocessing.clips import read_cases
from ctrlgenaug.preprocessing.own.cases import find_cases
from ctrlgenaug.preprocessing.raw_files import is_litter
from ctrlgenaug.preprocessing.readers.registry import READERS, find_in

STAGES = ("raw", "frames", "clips", "priors", "motion")
DRAWN = 24  # cases on a contact sheet
FEW_CASES = 10  # of a class in training: fewer teach little
SATURATED = 0.3  # share of white pixels that is more than a picture has
EMPTY = 0.995  # share of black pixels
CASE_COLUMNS = ("case", "split", "class", "frames", "size", "spacing", "values", "white %", "black %")


@dataclass(frozen=True)
class Question:
    """What is to be checked, and how.

    Attributes:
        spec: the data set.
        home: its folder.
        num_workers: processes.
    """

    spec: DatasetSpec
    home: Path
    num_workers: int = 1


def check(question: Question, stages: Sequence[str]) -> list[StageCheck]:
    """Checks ``stages`` in order; one that has no folder yet says so."""
    ways: dict[str, Callable[[Question], StageCheck]] = {
        "raw": check_raw, "frames": check_frames, "clips": check_clips, "priors": check_priors, "motion": check_motion
    }  # fmt: skip
    checks = [ways[stage](question) for stage in stages]
    told: set[str] = set()
    for stage in checks:  # that a class has few cases is reported once
        stage.findings = [finding for finding in stage.findings if finding.names or finding.text not in told]
        told |= {finding.text for finding in stage.findings}
    return checks


def _drawn(cases: Sequence[Case]) -> set[str]:
    """Names of the cases on the contact sheet, of every class alike."""
    of_class: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        of_class[case.cls].append(case.name)
    each = max(DRAWN // max(len(of_class), 1), 1)
    return {
        names[int(i)]
        for names in of_class.values()
        for i in np.unique(np.linspace(0, len(names) - 1, min(each, len(names))).round().astype(int))
    }


def _measured(
    stage: StageCheck, question: Question, cases: Sequence[Case], work: Callable[..., Measure],
    arguments: Callable[[Case, bool], tuple[Any, ...]],
) -> Mapping[str, Measure]:  # fmt: skip
    """Measures all cases and notes what is wrong with their pixels, their classes and their splits."""
    drawn = _drawn(cases)
    outcome = steps.for_each_case(
        work,
        [case.name for case in cases],
        [arguments(case, case.name in drawn) for case in cases],
        num_workers=question.num_workers,
        description=f"checking {stage.name}",
        folders=source_folder(cases),
    )
    for name, reason in outcome.failures.items():
        stage.add(ERROR, f"cannot be used: {reason}", [name])
    found: dict[str, Measure] = outcome.results
    stage.header = CASE_COLUMNS
    for case in cases:
        if case.name not in found:
            continue
        item = found[case.name]
        stage.rows.append(
            (case.name, case.split, case.cls, item.frames, item.size, item.spacing, f"{item.low:g} to {item.high:g}",
             f"{100 * item.bright:.1f}", f"{100 * item.dark:.1f}")
        )  # fmt: skip
        if item.strip is not None:
            stage.pictures.append((f"{case.name}  {case.cls}  {case.split}", item.strip))
    _judge_pixels(stage, found)
    _judge_duplicates(stage, found, {case.name: case.split for case in cases})
    _judge_classes(stage, question.spec, [case for case in cases if case.name in found])
    _judge_patients(stage, question.spec, cases)
    return found


def _judge_pixels(stage: StageCheck, found: Mapping[str, Measure]) -> None:
    if not found:
        return
    partly = [name for name, item in found.items() if 0 < item.constant < item.frames]
    stage.add_if(WARNING, "{n} hold frames without any contrast", partly)
    stage.add_if(
        ERROR,
        "{n} hold nothing but constant frames",
        [n for n, item in found.items() if item.constant == item.frames],
    )
    stage.add_if(
        WARNING,
        f"{{n}} are white in more than {SATURATED:.0%} of their pixels: check the window",
        [n for n, i in found.items() if i.bright > SATURATED],
    )
    stage.add_if(
        WARNING,
        "{n} are nearly all black: check window and crop",
        [n for n, i in found.items() if i.dark > EMPTY and i.constant < i.frames],
    )
    sizes = Counter(item.size.partition(" x ")[2] if item.spacing else item.size for item in found.values())
    if len(sizes) > 1 and stage.name == "raw":
        stage.add(
            NOTE,
            f"{len(sizes)} different sizes: "
            + ", ".join(f"{size} ({n})" for size, n in sizes.most_common(5)),
        )
    ways = Counter(item.spacing.rpartition(" ")[2] for item in found.values() if item.spacing)
    if len(ways) > 1:
        stage.add(NOTE, "orientations " + ", ".join(f"{way} ({n})" for way, n in ways.most_common()))


def _judge_duplicates(stage: StageCheck, found: Mapping[str, Measure], split_of: Mapping[str, str]) -> None:
    same: dict[str, list[str]] = defaultdict(list)
    for name, item in found.items():
        same[item.digest].append(name)
    for names in same.values():
        if len(names) > 1:
            across = len({split_of[name] for name in names}) > 1
            text = "{n} have equal pixels" + (" and lie in train and test" if across else "")
            stage.add(ERROR if across else WARNING, text, names)


def _judge_classes(stage: StageCheck, spec: DatasetSpec, cases: Sequence[Case]) -> None:
    for cls in spec.classes:
        for split in SPLITS:
            count = sum(case.cls == cls and case.split == split for case in cases)
            stage.counts[f"{split} {cls}"] = count
            if count == 0:
                stage.add(ERROR if split == "train" else WARNING, f"class {cls} has no case in {split}")
            elif split == "train" and count < FEW_CASES:
                stage.add(WARNING, f"class {cls} has only {count} cases in train (docs/small_data.md)")


def _judge_patients(stage: StageCheck, spec: DatasetSpec, cases: Sequence[Case]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits[spec.patient(spec.clip_name(case.name, 1))].add(case.split)
    both = [patient for patient, found in splits.items() if len(found) > 1]
    stage.add_if(ERROR, "{n} patients lie in train and test", both)


def check_raw(question: Question) -> StageCheck:
    """The raw files, read as step (a) reads them."""
    stage, spec = StageCheck("raw"), question.spec
    data = datasets.data_file(spec)
    work: Any
    rest: Any
    if data.raw.kind:
        own = find_cases(data, question.home)
        cases, rejected = own.cases, own.rejected
        work, rest = measures.raw_of_own, data
    elif data.raw.reader:
        try:
            found = find_in(READERS[data.raw.reader], question.home)
        except UserError as error:
            stage.missing = str(error)
            return stage
        cases, rejected = list(found.cases), dict(found.rejected)
        work, rest = measures.raw_of_published, found.read
    else:
        stage.missing = f"{spec.data_name} has no raw files"
        return stage
    for name, reason in rejected.items():
        stage.add(ERROR, reason.rstrip("."), [name])
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    stage.add_if(ERROR, "{n} cases have a name that another one has", twice)
    cases = list({case.name: case for case in cases}.values())
    found_cases = _measured(stage, question, cases, work, lambda case, draw: (case, rest, draw))
    needed = data.clips.frames_per_clip
    short = [name for name, item in found_cases.items() if item.frames < needed]
    fate = "become one clip each, padded with black" if data.clips.pad_short_cases else "are dropped"
    stage.add_if(WARNING, f"{{n}} have fewer than {needed} frames and {fate}", short)
    return stage


def _metadata_cases(stage: StageCheck, spec: DatasetSpec, folder: Path) -> list[Case] | None:
    """The cases of a folder's metadata; None if it is not there or cannot be read."""
    if not folder.is_dir():
        stage.missing = f"{folder} is not there yet"
        return None
    cases: list[Case] = []
    for split in SPLITS:
        if not spec.metadata_path(folder, split).is_file():
            stage.add(WARNING, f"{folder.name} has no {split}_metadata.jsonl: the step has not ended")
            continue
        try:
            cases += read_cases(spec, folder, split)
        except UserError as error:
            stage.add(ERROR, str(error).rstrip("."))
    both = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    stage.add_if(ERROR, "{n} cases lie in train and test", both)
    return list({case.name: case for case in cases}.values())


def check_frames(question: Question) -> StageCheck:
    """All frames, and the sampled ones, against their metadata."""
    stage, spec = StageCheck("frames"), question.spec
    for folder in (question.home / spec.slices_dir, question.home / spec.frames_dir):
        cases = _metadata_cases(stage, spec, folder)
        if cases is None:
            continue
        _compare(stage, folder, {path.name for case in cases for path in case.sources}, ".png")
        for case in cases:
            numbers = [spec.parse_frame(path.stem)[1] for path in case.sources]
            if folder.name == spec.slices_dir and numbers[-1] - numbers[0] + 1 != len(numbers):
                stage.add(ERROR, "frames are missing between the first and the last", [case.name])
        if folder.name == spec.slices_dir or not (question.home / spec.slices_dir).is_dir():
            _measured(stage, question, cases, measures.frames_of, lambda case, draw: (case.sources, draw))
        else:
            outcome = steps.for_each_case(
                measures.frames_of,
                [case.name for case in cases],
                [(case.sources, False) for case in cases],
                num_workers=question.num_workers,
                description="checking sampled frames",
                folders=[folder],
            )
            for name, reason in outcome.failures.items():
                stage.add(ERROR, f"cannot be used: {reason}", [f"{folder.name}/{name}"])
        stage.missing = ""
    return stage


def _compare(stage: StageCheck, folder: Path, listed: set[str], suffix: str) -> None:
    """Files of ``folder`` against the names that its metadata list."""
    there = {path.name for path in folder.glob(f"*{suffix}") if not is_litter(path.name)}
    stage.add_if(
        ERROR, f"{{n}} files of {folder.name} are in the metadata, but not there", sorted(listed - there)
    )
    stage.add_if(WARNING, f"{{n}} files of {folder.name} are not in the metadata", sorted(there - listed))


def _clip_cases(stage: StageCheck, question: Question) -> list[Case] | None:
    """The clips as cases, each with itself as its source; None if there are none yet."""
    spec, folder = question.spec, question.home / question.spec.clips_dir
    if not folder.is_dir():
        stage.missing = f"{folder} is not there yet"
        return None
    cases = []
    for split in SPLITS:
        if spec.metadata_path(folder, split).is_file():
            try:
                cases += [
                    Case(c.name, split, c.cls, (folder / c.file_name,), c.text)
                    for c in spec.rows(folder, split)
                ]
            except UserError as error:
                stage.add(ERROR, str(error).rstrip("."))
    return cases


def check_clips(question: Question) -> StageCheck:
    """The clips: readable, as long as they must be, and listed."""
    stage, spec = StageCheck("clips"), question.spec
    cases = _clip_cases(stage, question)
    if cases is None:
        return stage
    _compare(stage, question.home / spec.clips_dir, {case.sources[0].name for case in cases}, ".avi")
    splits: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        splits[spec.patient(case.name)].add(case.split)
    stage.add_if(
        ERROR, "{n} patients lie in train and test", [who for who, found in splits.items() if len(found) > 1]
    )
    as_cases = [Case(case.name, case.split, case.cls, case.sources, case.text) for case in cases]
    found = _measured(stage, question, as_cases, measures.clip_of, lambda case, draw: (case.sources[0], draw))
    lengths = Counter(item.frames for item in found.values())
    if len(lengths) > 1:
        usual = lengths.most_common(1)[0][0]
        stage.add(
            ERROR,
            f"{{n}} clips do not have {usual} frames",
            [n for n, i in found.items() if i.frames != usual],
        )
    return stage


def check_priors(question: Question) -> StageCheck:
    """The image priors: one of every clip's first frame at least, each readable and finite."""
    stage, spec = StageCheck("priors", ("prior", "holds")), question.spec
    clips = _clip_cases(stage, question)
    folder = question.home / spec.priors_dir
    if clips is None or not folder.is_dir():
        stage.missing = stage.missing or f"{folder} is not there yet"
        return stage
    needed = {spec.first_frame(clip.name) for clip in clips}
    there = {path.stem for path in folder.glob("*.npy") if not is_litter(path.name)}
    stage.add_if(ERROR, "{n} clips' first frames have no prior", sorted(needed - there))
    noted, frames = ledger.entries(folder), question.home / spec.frames_dir
    digests = {name: frame_digest(frames / f"{name}.png") for name in sorted(there & noted.keys())}
    former = [name for name, digest in digests.items() if digest not in (None, noted[name]["made_from"])]
    stage.add_if(ERROR, "{n} frames are others than their priors were made of", former)
    outcome = steps.for_each_case(
        measures.prior_of, sorted(there), [(folder / f"{name}.npy",) for name in sorted(there)],
        num_workers=question.num_workers, description="checking priors", unit="prior", folders=[folder],
    )  # fmt: skip
    for name, reason in outcome.failures.items():
        stage.add(ERROR, f"cannot be used: {reason}", [name])
    stage.rows = list(outcome.results.items())
    stage.counts = {"priors": len(there), "clips with a prior": len(needed & there)}
    if len(set(outcome.results.values())) > 1:
        stage.add(WARNING, "priors of different types: " + ", ".join(sorted(set(outcome.results.values()))))
    return stage


def check_motion(question: Question) -> StageCheck:
    """Motion fields and trajectories: one of each clip, readable, of one length."""
    stage, spec = StageCheck("motion", ("clip", "frames", "moving pixels %")), question.spec
    clips = _clip_cases(stage, question)
    if clips is None or not (question.home / spec.motion_dir).is_dir():
        stage.missing = stage.missing or f"{question.home / spec.motion_dir} is not there yet"
        return stage
    paths = {
        clip.name: (
            spec.motion_path(question.home, clip.name),
            spec.trajectory_path(question.home, clip.name),
        )
        for clip in clips
    }
    for index, what in enumerate(("motion field", "trajectories")):
        lacking = [name for name, pair in paths.items() if not pair[index].is_file()]
        stage.add_if(ERROR, f"{{n}} clips have no {what}", lacking)
    whole = {name: pair for name, pair in paths.items() if all(path.is_file() for path in pair)}
    noted = ledger.entries(question.home / spec.motion_dir)
    former = [
        clip.name
        for clip in clips
        if clip.name in noted and clip.sources[0].is_file() and not is_of(noted[clip.name], clip.sources[0])
    ]
    stage.add_if(ERROR, "{n} clips are others than their motion fields were made of", former)
    outcome = steps.for_each_case(
        measures.motion_of, list(whole), list(whole.values()),
        num_workers=question.num_workers, description="checking motion", unit="clip", folders=[question.home],
    )  # fmt: skip
    for name, reason in outcome.failures.items():
        stage.add(ERROR, f"cannot be used: {reason}", [name])
    stage.rows = [(name, frames, f"{100 * moving:.1f}") for name, (frames, moving) in outcome.results.items()]
    stage.counts = {"clips": len(clips), "with motion": len(outcome.results)}
    still = [name for name, (_, moving) in outcome.results.items() if moving == 0]
    stage.add_if(WARNING, "{n} clips do not move at all", still)
    return stage
