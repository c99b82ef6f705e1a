"""What is particular to a data set: folders, classes, naming rules and sampling defaults (method, section 1).

Nothing else knows that MosMed lives in MosMedData or how a clip's name becomes its prior's. Specs come from the files
in ``configs/data/`` and from a user's own data file (`ctrlgenaug.datasets.data_file`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name
from ctrlgenaug.plain_data import read_jsonl

IMAGE_SIZE = 256  # pixels, height and width of every frame
SPLITS = ("train", "test")
logger = logging.getLogger(__name__)
_told_of_repetition: set[Path] = set()  # metadata files whose repeated rows have been named to the user
REGISTERED = Path(__file__).resolve().parents[2] / "configs" / "data"  # data files that are known by name


@dataclass(frozen=True)
class Clip:
    """One row of a clip metadata file.

    Attributes:
        name: file name without suffix, e.g. ``study_0001_s01``.
        file_name: as in the metadata, e.g. ``study_0001_s01.avi``.
        cls: the class as the data set spells it, e.g. ``CT-234``.
        text: the description, or "" where the data set has none.
    """

    name: str
    file_name: str
    cls: str
    text: str = ""


@dataclass(frozen=True)
class DatasetSpec:
    """What is particular to one data set.

    Attributes:
        data_name: its name on command lines and in configs.
        home: its folder: below the data root, or an absolute path where the data set is a user's own.
        classes: class names in the order of their ids; empty where only clips' names tell (`with_classes_of`).
        slices_dir: step (a)'s folder of all slices or frames, below ``home`` (as are all folders here).
        frames_dir: the sampled frames.
        clips_dir: the sampled clips.
        priors_dir: image priors, one .npy a frame.
        motion_dir: motion fields, one .npy a clip.
        trajectories_dir: trajectories, one .npy a clip.
        frame_tag: what precedes the number in a frame's name, e.g. ``_slice``.
        clip_tag: what precedes the first frame's number in a clip's name, e.g. ``_s``.
        digits: zero padding of those numbers.
        frames_per_clip: frames a clip covers in its case, before striding.
        clip_sampling_interval: frames left out between two that are kept.
        required_clip_num: frames of a clip.
        max_clips: most clips of one case.
        pad_short_cases: whether a case too short for one clip is padded with black (else it is dropped).
        integer_classes: whether metadata write the class as a number.
        has_text: whether metadata rows carry a text.
        numbered_from_one: whether the frames of a case are numbered from 1 (else by the raw data's own numbers).
        patient_tag: what ends the patient's part of a case name, where a patient has several cases.
        published: (metric, figure) pairs of the paper's synthetic clips, where it has them.
        file: the data file that it was read from.
    """

    data_name: str
    home: str
    classes: tuple[str, ...]
    slices_dir: str
    frames_dir: str
    clips_dir: str
    priors_dir: str
    motion_dir: str
    trajectories_dir: str
    frame_tag: str = "_slice"
    clip_tag: str = "_s"
    digits: int = 2
    frames_per_clip: int = 15
    clip_sampling_interval: int = 1
    required_clip_num: int = 8
    max_clips: int = 10
    pad_short_cases: bool = True
    integer_classes: bool = False
    has_text: bool = False
    numbered_from_one: bool = True
    patient_tag: str = ""
    published: tuple[tuple[str, float], ...] = ()
    file: Path | None = None

    @property
    def is_registered(self) -> bool:
        """Whether its name alone says everywhere which data set this is; else its ``file`` must be given."""
        return self.file is None or self.file.parent == REGISTERED

    # --- classes -------------------------------------------------------------------------------------------------

    def class_id(self, cls: str | int) -> int:
        """The id of class ``cls``; a `UserError` naming the known ones if there is none."""
        if str(cls) not in self.classes:
            remedy = f"Use one of {', '.join(self.classes)}" if self.classes else self._name_the_classes()
            raise UserError(f"{cls!r} is not a class of {self.data_name}", remedy)
        return self.classes.index(str(cls))

    def with_classes_of(self, file_names: Iterable[str]) -> DatasetSpec:
        """This spec; where its classes are not known, with those that ``{clip}_{class}_{seed}.mp4`` names tell."""
        if self.classes:
            return self
        parts = [name.rsplit(".", 1)[0].rsplit("_", 2) for name in file_names]
        found = sorted({part[1] for part in parts if len(part) == 3 and part[1]})
        if not found:
            problem = f"the classes of {self.data_name} are not known, and no clip's name tells one"
            raise UserError(problem, self._name_the_classes())
        return replace(self, classes=tuple(found))

    def _name_the_classes(self) -> str:
        return f"Write `classes: [...]` into {self.file or 'its data file'}"

    def metadata_class(self, cls: str) -> str | int:
        """``cls`` as this data set's metadata files write it."""
        return int(cls) if self.integer_classes else cls

    # --- names ---------------------------------------------------------------------------------------------------

    def frame_name(self, case: str, number: int) -> str:
        """Name, without suffix, of frame ``number`` of ``case``: ``study_0001_slice01``."""
        return f"{case}{self.frame_tag}{number:0{self.digits}d}"

    def clip_name(self, case: str, first: int) -> str:
        """Name, without suffix, of the clip of ``case`` that starts at frame ``first``: ``study_0001_s01``."""
        return f"{case}{self.clip_tag}{first:0{self.digits}d}"

    def _split(self, name: str, tag: str) -> tuple[str, int]:
        if not tag:  # a set of which only synthetic clips are known, whose names say nothing about frames
            return name, 0
        match = re.fullmatch(rf"(.+){re.escape(tag)}(\d+)", name)
        if match is None:
            raise UserError(
                f"{name!r} is not named like {self.data_name}'s files (CASE{tag}NUMBER)", "Check --data_name"
            )
        return match[1], int(match[2])

    def parse_frame(self, name: str) -> tuple[str, int]:
        """(case, number) of a frame name without suffix."""
        return self._split(name, self.frame_tag)

    def parse_clip(self, name: str) -> tuple[str, int]:
        """(case, first frame's number) of a clip name without suffix."""
        return self._split(name, self.clip_tag)

    def patient(self, clip_name: str) -> str:
        """Who a clip shows: clips of one patient never lie on both sides of a split."""
        case, _ = self.parse_clip(clip_name)
        return case.split(self.patient_tag)[0] if self.patient_tag else case

    def first_frame(self, clip_name: str) -> str:
        """Name, without suffix, of a clip's first frame, whose embedding is the clip's image prior."""
        return self.frame_name(*self.parse_clip(clip_name))

    # --- files, below the data root (the folder that holds the data set's home, or the home itself) ---------------

    def home_in(self, data_root: str | Path = ".") -> Path:
        """The data set's home folder: ``data_root`` itself where it holds the clips, else ``data_root/home``."""
        root = Path(data_root)
        return (
            root
            if (root / self.clips_dir).is_dir() or (root / self.slices_dir).is_dir()
            else root / self.home
        )

    def prior_path(self, home: Path, frame_name: str) -> Path:
        """Image prior of a frame."""
        return home / self.priors_dir / f"{frame_name}.npy"

    def motion_path(self, home: Path, clip_name: str) -> Path:
        """Motion field of a clip."""
        return home / self.motion_dir / f"{clip_name}.npy"

    def trajectory_path(self, home: Path, clip_name: str) -> Path:
        """Trajectories of a clip."""
        return home / self.trajectories_dir / f"{clip_name}.npy"

    def metadata_path(self, folder: str | Path, split: str) -> Path:
        """Metadata of ``split`` in ``folder``."""
        return Path(folder) / f"{split}_metadata.jsonl"

    def rows(
        self,
        folder: str | Path,
        split: str,
        *,
        file_column: str = "file_name",
        class_column: str = "cls",
        text_column: str | None = None,
    ) -> Iterator[Clip]:
        """The metadata rows of ``split`` in ``folder`` (frames or clips), in file order, classes and names checked.

        ``text_column`` None means ``text`` where the data set has one.
        """
        path = self.metadata_path(folder, split)
        text_column = text_column or ("text" if self.has_text else None)
        required = (file_column, class_column) + ((text_column,) if text_column else ())
        class_of: dict[str, str] = {}
        repeated = 0
        for number, row in enumerate(read_jsonl(path, required), start=1):
            file_name, cls = check_name(str(row[file_column]), path), str(row[class_column])
            if class_of.setdefault(file_name, cls) != cls:
                problem = f"gives {file_name} two classes, {class_of[file_name]} and {cls}"
                raise UserError(problem, "Remove one of the rows", path)
            repeated += len(class_of) + repeated < number
            if cls not in self.classes:
                raise UserError(
                    f"holds class {cls!r}, which {self.data_name} does not have",
                    f"Use one of {', '.join(self.classes)}, or check --data_name",
                    path,
                )
            yield Clip(Path(file_name).stem, file_name, cls, str(row[text_column]) if text_column else "")
        if repeated and path not in _told_of_repetition:
            _told_of_repetition.add(path)
            logger.warning("%s: %d rows repeat another one's file", path, repeated)

    def all_rows(self, folder: str | Path, split: str = "both") -> list[Clip]:
        """The rows of a split in ``folder``, each name once; ``both`` stands for the splits that exist."""
        splits = [name for name in SPLITS if self.metadata_path(folder, name).is_file()]
        if split != "both" or not splits:
            splits = [split if split != "both" else SPLITS[0]]  # which raises the error if it does not exist
        return list({row.name: row for name in splits for row in self.rows(folder, name)}.values())

    def clips(self, home: Path, split: str = "train") -> list[Clip]:
        """The clips of ``split``, in metadata order; a `UserError` if there are none."""
        clips = list(self.rows(home / self.clips_dir, split))
        if not clips:
            path = self.metadata_path(home / self.clips_dir, split)
            raise UserError("names no clip", "Run the sampling step for this split first", path)
        return clips
