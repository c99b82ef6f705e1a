"""Step (b), the same for all data sets: frames and metadata in, sampled frames and clips out (method, section 3)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path

import numpy as np

from ctrlgenaug import steps
from ctrlgenaug.arguments import whole_number
from ctrlgenaug.avi import grey_avi
from ctrlgenaug.datasets import IMAGE_SIZE, SPLITS, DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import exclusive
from ctrlgenaug.plain_data import write_jsonl
from ctrlgenaug.preprocessing import batch, ledger
from ctrlgenaug.preprocessing.batch import Case
from ctrlgenaug.preprocessing.png import read_png_and_bytes
from ctrlgenaug.preprocessing.published_split import GivenSplit, read_split
from ctrlgenaug.preprocessing.raw_files import find
from ctrlgenaug.preprocessing.sampling import Sampling, uniform_clips


def read_cases(spec: DatasetSpec, folder: Path, split: str) -> list[Case]:
    """The cases that the metadata of ``split`` in ``folder`` list, in order; their sources: their frames, ascending."""
    cases: dict[str, Case] = {}
    frames: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for row in spec.rows(folder, split):
        name, number = spec.parse_frame(row.name)
        if name in cases and cases[name].cls != row.cls:
            raise UserError(
                f"gives {name} two classes, {cases[name].cls} and {row.cls}",
                "Run the reading step again",
                spec.metadata_path(folder, split),
            )
        cases[name] = Case(name, split, row.cls, (), row.text)
        frames[name].append((number, folder / row.file_name))
    return [
        dataclasses.replace(case, sources=tuple(path for _, path in sorted(frames[name], key=itemgetter(0))))
        for name, case in cases.items()
    ]


def sample(
    spec: DatasetSpec,
    folder: str | Path,
    sampling: Sampling,
    *,
    splits: Sequence[str] = SPLITS,
    num_workers: int = 1,
    strict: bool = False,
    given: GivenSplit | None = None,
    next_step: str = "",
) -> int:
    """Cuts clips from the frames in ``folder`` and writes them, and the frames they hold, into the folders beside it.

    Args:
        spec: the data set.
        folder: what step (a) wrote.
        sampling: how clips are cut.
        splits: which splits to do.
        num_workers: processes; the output does not depend on it.
        strict: stop at the first bad case.
        given: a split whose order the metadata's rows take.
        next_step: the command to name at the end.

    Returns:
        the exit code: 0, or 1 if a case failed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError("is not a folder", "Run the reading step first, or give its output folder", folder)
    home = folder.resolve().parent
    by_split = {
        split: read_cases(spec, folder, split)
        for split in SPLITS
        if split in splits or spec.metadata_path(folder, split).exists()
    }
    everything = [case for cases in by_split.values() for case in cases]
    batch.check_unique(everything)  # a case in both splits would leak test data into training
    cases = [case for case in everything if case.split in splits]
    if not cases:
        raise UserError("its metadata name no frame", "Run the reading step again", folder)
    frames_dir, clips_dir = home / spec.frames_dir, home / spec.clips_dir
    stats = ledger.listing(folder)
    with ExitStack() as locks:
        for place in (clips_dir, frames_dir):
            locks.enter_context(exclusive(place))
        done = batch.work_through(
            cases,
            {case.name: [_fingerprint(case, stats), dataclasses.asdict(sampling)] for case in cases},
            _sample_case,
            lambda case: (spec, sampling),
            folder=clips_dir,
            root=home,
            metadata=[
                spec.metadata_path(place, split) for split in splits for place in (frames_dir, clips_dir)
            ],
            num_workers=num_workers,
            strict=strict,
            description=f"sampling {spec.data_name}",
        )
        _remove_departed(clips_dir, home, {case.name for case in everything})
        for split in splits:
            for place in (frames_dir, clips_dir):
                rows, case_of = [], {}
                for case in done.of_split(split):
                    for name in _files_in(place.name, done.files[case.name]):
                        rows.append(case.row(spec, name))
                        case_of[Path(name).stem] = case.name
                write_jsonl(spec.metadata_path(place, split), given.rows(rows, case_of) if given else rows)
    return _report(spec, done, sampling, clips_dir, next_step)


def _fingerprint(case: Case, stats: dict[str, os.stat_result]) -> str:
    """Changes whenever a frame of the case is added, removed or written again."""
    seen = [
        (path.name, stats[path.name].st_size, stats[path.name].st_mtime_ns)
        if path.name in stats
        else path.name
        for path in case.sources
    ]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _files_in(folder_name: str, files: Sequence[str]) -> list[str]:
    return [name.partition("/")[2] for name in files if name.partition("/")[0] == folder_name]


def _sample_case(root: Path, case: Case, spec: DatasetSpec, sampling: Sampling) -> dict[str, int]:
    """Writes the clips of one case and the frames in them; {path below root: size}, both ascending."""
    numbers = [spec.parse_frame(path.stem)[1] for path in case.sources]
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after != before + 1:
            raise UserError(
                f"lists frame {after} after frame {before}",
                "Frames must be complete and in order: run the reading step again",
                case.name,
            )
    if numbers[0] != 1 and spec.numbered_from_one:
        raise UserError(f"starts at frame {numbers[0]}, not 1", "Run the reading step again", case.name)
    clips = uniform_clips(len(numbers), sampling)
    read = {i: read_png_and_bytes(case.sources[i]) for i in sorted({i for clip in clips for i in clip})}
    for i in set(range(len(numbers))) - set(read):  # not in a clip, but a hole all the same
        if not case.sources[i].is_file():
            raise UserError("does not exist", "Run the reading step again", case.sources[i])
    files = {}
    for i, (_, content) in read.items():
        name = f"{spec.frames_dir}/{case.sources[i].name}"
        files[name] = ledger.write_unsynced(root / name, content)
    for clip in clips:
        frames = np.zeros((sampling.required_clip_num, IMAGE_SIZE, IMAGE_SIZE), np.uint8)  # (F, H, W)
        frames[: len(clip)] = [read[i][0] for i in clip]
        name = f"{spec.clips_dir}/{spec.clip_name(case.name, numbers[clip[0]])}.avi"
        files[name] = ledger.write_unsynced(root / name, grey_avi(frames))
    return files


def _remove_departed(clips_dir: Path, home: Path, known: set[str]) -> None:
    """Removes what was sampled from cases that the data set no longer has."""
    entries = ledger.entries(clips_dir)
    departed = [entry for case, entry in entries.items() if case not in known]
    for entry in departed:
        ledger.remove_stale(home, entry)
    if departed:
        ledger.rewrite(clips_dir, [entry for case, entry in entries.items() if case in known])


def _report(
    spec: DatasetSpec, done: batch.Finished, sampling: Sampling, clips_dir: Path, next_step: str
) -> int:
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    short = []
    for case in done.cases:
        frames, clips = (
            len(_files_in(folder, done.files[case.name])) for folder in (spec.frames_dir, spec.clips_dir)
        )
        table[case.split, case.cls].update({"cases": 1, "frames": frames, "clips": clips})
        if len(case.sources) < sampling.frames_per_clip:
            short.append(case.name)
    if table:
        print(batch.summary(spec, table))
    if short:
        fate = (
            "taken whole as one clip, padded with black where needed"
            if sampling.pad_short_cases
            else "dropped"
        )
        names = ", ".join(short[:5]) + (" ..." if len(short) > 5 else "")
        print(f"{len(short)} cases have fewer than {sampling.frames_per_clip} frames and are {fate}: {names}")
    clips = sum(counts["clips"] for counts in table.values())
    verb = "wrote" if done.worked else "already complete:"
    failed = f"; {len(done.failures)} cases failed (listed above)" if done.failures else ""
    print(
        f"{verb} {clips} clips of {len(done.cases)} cases in {clips_dir}, their frames in {spec.frames_dir} "
        f"beside it{failed}; next: {next_step}"
    )
    return 1 if done.failures else 0


def main(spec: DatasetSpec, script: str, folder_flag: str = "--all_slices_dir") -> int:
    """The command line of step (b) for one data set.

    Args:
        spec: the data set.
        script: the script's path below the repository, for the help text.
        folder_flag: how the data set's script calls its input folder; the other spelling is accepted as well.
    """
    parser = steps.parser(
        f"Step (b): sample clips of equal length from the frames of {spec.data_name}. Writes {spec.frames_dir}/ (PNG) "
        f"and {spec.clips_dir}/ (AVI) with their metadata beside the folder given.",
        f"cd {spec.home} && python ../{script} {folder_flag} {spec.slices_dir} --mode train",
    )
    other = {"--all_slices_dir": "--all_frames_dir"}.get(folder_flag, "--all_slices_dir")
    parser.add_argument(
        folder_flag,
        other,
        dest="folder",
        default=spec.slices_dir,
        help="what step (a) wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--mode", choices=(*SPLITS, "both"), default="both", help="which split (default: %(default)s)"
    )
    group = parser.add_argument_group("sampling")
    for name, meaning in (
        ("frames_per_clip", "frames that a clip covers in its case"),
        ("clip_sampling_interval", "frames left out between two that are kept"),
        ("required_clip_num", "frames of a clip"),
        ("max_clips", "most clips of a case"),
    ):
        group.add_argument(
            f"--{name}",
            type=whole_number,
            default=getattr(spec, name),
            help=f"{meaning} (default: %(default)s)",
        )
    parser.add_argument(
        "--published_split",
        nargs="+",
        metavar="FILE",
        help="somebody else's train_metadata.jsonl and test_metadata.jsonl of clips (or their folder): the rows take "
        "their order",
    )
    steps.add_batch_options(parser)
    arguments = parser.parse_args()
    sampling = Sampling(
        arguments.frames_per_clip,
        arguments.clip_sampling_interval,
        arguments.required_clip_num,
        arguments.max_clips,
        spec.pad_short_cases,
    )
    return sample(
        spec,
        find(arguments.folder, spec.home),
        sampling,
        splits=SPLITS if arguments.mode == "both" else (arguments.mode,),
        num_workers=arguments.num_workers,
        strict=arguments.strict,
        given=read_split(spec, arguments.published_split) if arguments.published_split else None,
        next_step=f"extract_image_priors.py and extract_motion_field_trajs.py --clip_data_dir {spec.clips_dir}",
    )
