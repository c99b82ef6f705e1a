"""A folder of synthetic clips: what is there, what it was made with, and how several runs fill it side by side.

``settings.json`` says what all clips were made with, ``manifest.jsonl`` has one row for each clip. While a run works,
its rows go to a journal of its own in ``.parts/{shard}/``, so that shards on many machines never write one file; every
run that ends folds all journals into the manifest. Folders without any of this, such as the released sets, can be read
all the same: each name ``{clip}_{class}_{seed}.mp4`` speaks for itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from augment.generation.plan import Sample, parse_file_name
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import append_line, text_lines
from ctrlgenaug.folders import (
    claim_folder,
    exclusive,
    is_held,
    make_folder,
    refuse_link,
    remove_leftovers,
)
from ctrlgenaug.plain_data import parse_json, read_json, to_json, write_jsonl
from ctrlgenaug.progress import say

MANIFEST, SETTINGS, PARTS, JOURNAL = "manifest.jsonl", "settings.json", ".parts", "journal.jsonl"
SUFFIX = ".mp4"
MADE_WITH = "conditions_made_with"  # the setting that holds those of the conditions' own steps


@dataclass
class ClipList:
    """The clips of a folder.

    Attributes:
        samples: by path, in the order of their names.
        foreign: names of the MP4 files that are no clips of the data set.
    """

    samples: dict[Path, Sample] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    def of_class(self, cls: str) -> list[Path]:
        """The clips of one class."""
        return [path for path, sample in self.samples.items() if sample.cls == cls]


class SynthesisFolder:
    """A folder of synthetic clips.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # --- what is there -------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """File names of all whole clips: they appear by renaming, so what is there is whole unless emptied since."""
        return {entry.name for entry in self._entries() if _size(entry) > 0}

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        """The MP4 files, hidden ones left out; the folder is walked once."""
        if self.path.is_dir():
            with os.scandir(self.path) as entries:
                yield from (
                    entry for entry in entries if entry.name.endswith(SUFFIX) and entry.name[0] != "."
                )

    def clips(self, spec: DatasetSpec | None = None) -> ClipList:
        """The clips, and the names of what is none.

        Args:
            spec: the data set, if clips of other classes than its own are foreign.
        """
        found = ClipList()
        for name in sorted(entry.name for entry in self._entries()):
            try:
                found.samples[self.path / name] = parse_file_name(name, spec)
            except UserError:
                found.foreign.append(name)
        return found

    def settings(self) -> dict[str, Any]:
        """What all clips were made with; empty where the folder does not say.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / SETTINGS
        found = read_json(path) if path.is_file() else {}
        if not isinstance(found, dict):
            raise UserError("is not a JSON object", "Remove the folder and generate it again", path)
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """Rows of the manifest and of the journals of runs that still work, by file name."""
        sources = [self.path / MANIFEST, *sorted((self.path / PARTS).glob(f"*/{JOURNAL}"))]
        return {row["file"]: row for source in sources for row in _read_rows(source)}

    def splits(self) -> set[str]:
        """Whose conditions were used, as far as the folder says: ``train``, ``test``."""
        told = [self.settings(), *self.rows().values()]
        return {row["split"] for row in told if isinstance(row.get("split"), str)}

    def contact_sheet(self, cls: str) -> Path:
        """Where the picture of a class's clips is, or will be."""
        return self.path / f"contact_sheet_{cls}.png"

    def say_if_filled(self) -> None:
        """A note where a generation is at work in the folder now: whoever reads it sees a part of the clips."""
        if any(map(is_held, (self.path / PARTS).glob("*-of-*"))):
            say(f"note: {self.path} is being filled by generate.py now; clips that come later are left out")

    # --- filling it ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def filled_by(
        self,
        shard: tuple[int, int],
        settings: Mapping[str, Any],
        versions: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Iterator[Part]:
        """This shard's own part of the folder, locked against a second run; its journal is folded at the end.

        Args:
            shard: (index from 1, count).
            settings: what all clips are made with. A folder never mixes models, conditions or solvers.
            versions: by name of a real clip, the versions that its conditions are of (`provenance.Versions`).

        Raises:
            UserError: the same shard is being made already; the folder was made with other settings (each difference
                named), or holds clips of unknown origin.
        """
        make_folder(self.path)
        with contextlib.ExitStack() as held:
            with self.alone() as alone:
                if alone:  # so whatever lies there unfinished is a killed run's
                    remove_leftovers(self.path)
                corner = self._enter_corner(shard, held)
                self._claim(settings, corner)
            for leftover in corner.glob(f"*{SUFFIX}"):  # of a killed run
                leftover.unlink(missing_ok=True)
            part = Part(self, corner, settings, versions or {})
            try:
                yield part
            finally:
                self._fold(part)

    def _enter_corner(self, shard: tuple[int, int], held: contextlib.ExitStack) -> Path:
        corner = self.path / PARTS / f"{shard[0]}-of-{shard[1]}"
        for own in (self.path / PARTS, corner):
            refuse_link(own)  # its content is deleted
        while True:  # where locks are unknown, a shard that leaves may remove the empty parent in between
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(exclusive(corner))
                return corner

    def _claim(self, settings: Mapping[str, Any], corner: Path) -> None:
        others = [part for part in (self.path / PARTS).glob("*-of-*") if part != corner]
        claim_folder(
            self.path,
            settings,
            name=SETTINGS,
            pattern=f"*{SUFFIX}",
            # an option that is off is None, and was unknown to older versions; where nothing was known of the
            # conditions' settings, or is now, they cannot be said to be others
            before={**dict.fromkeys(settings), MADE_WITH: settings.get(MADE_WITH)},
            in_use=any(map(is_held, others)),
            remedy="Choose another --output_dir, or remove the folder",
        )

    def _fold(self, part: Part) -> None:
        """Rewrites the manifest from itself and all journals; files that are gone lose their row."""
        with self.alone() as alone:
            rows, present = self.rows(), self.names()
            for name in sorted(present - rows.keys()):
                row = part.row_of(name)
                if row is not None:
                    rows[name] = row
            write_jsonl(self.path / MANIFEST, [row for name, row in rows.items() if name in present])
            shutil.rmtree(part.scratch, ignore_errors=True)
            if alone:  # nobody can be about to start in a corner that is removed
                self._remove_abandoned()
            with contextlib.suppress(OSError):  # another shard is still at work
                (self.path / PARTS).rmdir()

    def _remove_abandoned(self) -> None:
        """Removes corners of killed runs that were divided differently."""
        for corner in (self.path / PARTS).glob("*-of-*"):
            if not corner.is_symlink():
                with contextlib.suppress(UserError), exclusive(corner):
                    shutil.rmtree(corner, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whoever enters or leaves the folder, or writes a file that all shards share, does so alone.

        Yields:
            False on file systems that know no such locks.
        """
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                yield False  # some network file systems; the next run heals the manifest
                return
            yield True
        finally:
            os.close(handle)


class Part:
    """One run's corner of a synthesis folder.

    Attributes:
        scratch: for unfinished files, on the same file system as the folder.
    """

    def __init__(
        self,
        folder: SynthesisFolder,
        scratch: Path,
        settings: Mapping[str, Any],
        versions: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.folder, self.scratch, self._versions = folder, scratch, versions
        self._settings = {name: value for name, value in settings.items() if name != MADE_WITH}
        self._planned: dict[str, Sample] = {}
        append_line(scratch / JOURNAL, "")  # closes a line that a kill tore

    def remove_outdated(self, samples: Sequence[Sample]) -> int:
        """Removes those clips of ``samples`` that are noted to be of other conditions than there are now.

        Returns:
            how many. Of clips without a note, or of conditions without one, nothing is known, and they are kept.
        """
        rows = self.folder.rows()
        outdated = [sample for sample in samples if self._is_outdated(sample, rows.get(sample.file_name))]
        for sample in outdated:
            (self.folder.path / sample.file_name).unlink(missing_ok=True)
        return len(outdated)

    def _is_outdated(self, sample: Sample, row: Mapping[str, Any] | None) -> bool:
        if row is None:
            return False
        made_from, now = row.get("made_from"), self._versions.get(sample.clip, {})
        then = made_from if isinstance(made_from, dict) else {}
        differs = row.get("prompt", self._prompt(sample)) != self._prompt(sample) or any(
            then[name] != now[name] for name in then.keys() & now.keys()
        )
        # asked last: a folder may hold a million clips, of which few or none differ
        return differs and (self.folder.path / sample.file_name).is_file()

    def missing(self, samples: Sequence[Sample]) -> list[Sample]:
        """Which of ``samples``, this run's part of the plan, are to be made."""
        self._planned = {sample.file_name: sample for sample in samples}
        present = self.folder.names()
        return [sample for sample in samples if sample.file_name not in present]

    def add(
        self,
        sample: Sample,
        device: str,
        seconds: float,
        host_bytes: int | None = None,
        gpu_bytes: int | None = None,
    ) -> None:
        """Notes that the clip of ``sample`` is in the folder now: one whole line an append.

        Args:
            sample: what was made.
            device: on which device.
            seconds, host_bytes, gpu_bytes: see `augment.generation.workers.Effort`.
        """
        row = self._row(sample, device, round(seconds, 3))
        row |= {"host_bytes": host_bytes, "gpu_bytes": gpu_bytes}
        row["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        append_line(self.scratch / JOURNAL, to_json(row))

    def row_of(self, file_name: str) -> dict[str, Any] | None:
        """The row of a clip whose own a kill prevented; None if it is none of this run's plan."""
        sample = self._planned.get(file_name)
        return None if sample is None else {**self._row(sample, None, None), "time": None}

    def _row(self, sample: Sample, device: str | None, seconds: float | None) -> dict[str, Any]:
        return {
            "file": sample.file_name,
            "clip": sample.clip,
            "class": sample.cls,
            "seed": sample.seed,
            "prompt": self._prompt(sample),
            "made_from": dict(self._versions.get(sample.clip, {})),
            **self._settings,
            "device": device,
            "seconds": seconds,
        }

    def _prompt(self, sample: Sample) -> str:
        return sample.text if "text_condition" in self._settings.get("conditions", ()) else ""


def _size(entry: os.DirEntry[str]) -> int:
    """Bytes; 0 of a link that leads nowhere, or of what was removed since the folder was walked."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a journal; a last line torn by a kill, or any other damaged line, is left out."""
    rows = []
    with contextlib.suppress(FileNotFoundError):
        for line in text_lines(path.read_text(encoding="utf-8", errors="replace")):
            with contextlib.suppress(ValueError):
                row = parse_json(line)
                if isinstance(row, dict) and isinstance(row.get("file"), str):
                    rows.append(row)
    return rows
