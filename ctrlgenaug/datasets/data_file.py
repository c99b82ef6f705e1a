"""The file that describes a data set: what is where, how it is read, split and cut (docs/your_own_data.md).

The published data sets are described the same way, in ``configs/data/``; what no general rule covers (MosMedData's
registry, ACDC's masks, TUSC's films) is a reader of its own, which the file names.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass, field, fields
from pathlib import Path

from ctrlgenaug.datasets.fields import read_fields
from ctrlgenaug.datasets.spec import DatasetSpec
from ctrlgenaug.errors import UserError

PAGE = "docs/your_own_data.md"
KINDS = ("nifti", "dicom", "video", "frames", "npy")
READERS = ("mosmed", "mrnet", "acdc", "tusc")
COLUMNS = ("case", "patient", "class", "split", "text", "file")
DEFAULT_PATTERNS = {
    "nifti": "**/{case}.nii*",
    "dicom": "**/*",
    "video": "**/{case}.*",
    "frames": "{case}/*",
    "npy": "**/{case}.np[yz]",
}


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(value, allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name} is {value!r}, must be one of {', '.join(allowed)}{hint}")


def class_word(text: str) -> str:
    """``text`` as a class name that can be part of a clip's name: letters, digits and hyphens, no underscore."""
    return re.sub(r"[^\w.+-]+|_+", "-", unicodedata.normalize("NFC", text)).strip("-.") or "A"


@dataclass
class Raw:
    """Where the raw files are.

    Attributes:
        kind: what they are, one of `KINDS`; empty: see ``reader``.
        folder: where they are, from the data set's home.
        pattern: which files below the folder, e.g. ``{class}/{case}.nii.gz``; ``*`` stands for anything within a
            name, ``**/`` for any folders. ``{case}``, ``{patient}``, ``{class}`` and ``{split}`` are read from the
            path, ``{number}`` orders the frames of a case. Empty: the kind's own (`DEFAULT_PATTERNS`).
        mask: likewise the masks, from the data set's home, e.g. ``masks/{case}_seg.nii.gz``.
        reader: the code that reads a published data set, one of `READERS`.
    """

    kind: str = ""
    folder: str = "."
    pattern: str = ""
    mask: str = ""
    reader: str = ""

    def __post_init__(self) -> None:
        if self.kind:
            _one_of("raw.kind", self.kind, KINDS)
            self.pattern = self.pattern or DEFAULT_PATTERNS[self.kind]
        if self.reader:
            _one_of("raw.reader", self.reader, READERS)
        if self.kind and self.reader:
            raise ValueError("raw.kind and raw.reader exclude each other")


@dataclass
class Table:
    """The table of labels.

    Attributes:
        file: .csv, .tsv or .xlsx, from the data set's home; empty: labels are in the files' paths.
        sheet: of an .xlsx; empty: the first that has the columns.
        columns: what is in which column: ``case``, ``patient``, ``class``, ``split``, ``text``, ``file``.
        match: what of a DICOM series the case column names: ``auto``, or one of `DICOM_IDS`.
    """

    file: str = ""
    sheet: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    match: str = "auto"

    DICOM_IDS = ("series", "study", "patient", "accession", "folder", "file")

    def __post_init__(self) -> None:
        for name in self.columns:
            _one_of("a key of table.columns", name, COLUMNS)
        _one_of("table.match", self.match, ("auto", *self.DICOM_IDS))
        if self.columns and not self.file:
            raise ValueError("table.columns is given without table.file")
        if self.file and not {"case", "patient", "file"} & set(self.columns):
            raise ValueError("table.columns needs case, patient or file, to find the row of a raw file")


@dataclass
class Split:
    """Which cases are for training.

    Attributes:
        test_fraction: share of the patients that are held out, where neither column nor path says so.
        seed: of that split, which is stratified by class.
        values: further words for the two, e.g. ``{internal: train, external: test}``.
    """

    test_fraction: float = 0.2
    seed: int = 33
    values: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"split.test_fraction must lie between 0 and 1, got {self.test_fraction}")
        for value in self.values.values():
            _one_of("a value of split.values", value, ("train", "test", "none"))


@dataclass
class Intensity:
    """How grey values become 0 to 255. At most one field; none: 8-bit values as they are, others by percentiles.

    Attributes:
        window: values that become 0 and 255, e.g. ``[-1000, 400]`` HU.
        percentiles: percentiles, of the values above 0, that become 0 and 255.
        as_stored: take the values as they are; they must lie within 0 to 255.
        not_finite: what a NaN or infinite voxel becomes; without it such a volume is refused.
    """

    window: list[float] = field(default_factory=list)
    percentiles: list[float] = field(default_factory=list)
    as_stored: bool = False
    not_finite: float | None = None

    def __post_init__(self) -> None:
        if sum((bool(self.window), bool(self.percentiles), self.as_stored)) > 1:
            raise ValueError("intensity takes one of window, percentiles and as_stored")
        for name in ("window", "percentiles"):
            pair = getattr(self, name)
            if pair and (len(pair) != 2 or not pair[0] < pair[1]):
                raise ValueError(f"intensity.{name} must be [low, high], got {list(pair)}")
        if self.percentiles and not (self.percentiles[0] >= 0 and self.percentiles[1] <= 100):
            raise ValueError("intensity.percentiles must lie in [0, 100]")


@dataclass
class Slices:
    """How a volume or film becomes square frames.

    Attributes:
        orientation: ``LAS`` turns a volume upright by its affine; ``as_stored`` takes its axes as they are.
        axis: ``axial``, ``coronal``, ``sagittal``; ``auto`` is the axis with the thickest slices.
        crop: ``none``, ``centre`` (the largest square), ``mask`` (its bounding box), ``region`` (where the ultrasound
            machine says that the image is), ``box`` (see there).
        box: top, bottom, left, right of the part to keep, as fractions of height and width.
        margin: pixels around the mask's bounding box.
        only_masked: leave out the slices that the mask does not touch.
    """

    orientation: str = "LAS"
    axis: str = "auto"
    crop: str = "none"
    box: list[float] = field(default_factory=list)
    margin: int = 5
    only_masked: bool = False

    def __post_init__(self) -> None:
        _one_of("slices.orientation", self.orientation, ("LAS", "as_stored"))
        _one_of("slices.axis", self.axis, ("auto", "axial", "coronal", "sagittal"))
        _one_of("slices.crop", self.crop, ("none", "centre", "mask", "region", "box"))
        if (self.crop == "box") != bool(self.box):
            raise ValueError("slices.box and slices.crop: box belong together")
        if self.box and not (
            len(self.box) == 4 and 0 <= self.box[0] < self.box[1] <= 1 and 0 <= self.box[2] < self.box[3] <= 1
        ):
            raise ValueError("slices.box must be [top, bottom, left, right] in [0, 1]")
        if self.margin < 0:
            raise ValueError("slices.margin must not be negative")


@dataclass
class Clips:
    """How clips are cut from a case; see `ctrlgenaug.preprocessing.sampling.Sampling`."""

    frames_per_clip: int = 15
    clip_sampling_interval: int = 1
    required_clip_num: int = 8
    max_clips: int = 10
    pad_short_cases: bool = True


@dataclass
class Names:
    """How frames and clips are called: ``{case}{frame_tag}{number}``, ``{case}{clip_tag}{first number}``."""

    frame_tag: str | None = None
    clip_tag: str | None = None
    digits: int = 2
    patient_tag: str | None = None
    numbered_from_one: bool = True


@dataclass
class Folders:
    """Folders below the data set's home; None: the method's own names."""

    slices: str | None = None
    frames: str | None = None
    clips: str | None = None
    priors: str | None = None
    motion: str | None = None
    trajectories: str | None = None


@dataclass
class DataFile:
    """A data set as its file describes it.

    Attributes:
        name: the data set's name on command lines, in configs and before its folders.
        home: the folder of everything; from the file. A registered one (``configs/data/``): from the data root.
        classes: class names in the order of their ids, without underscores.
        class_of: what the table or the path says: the class that it means, where the two differ.
        integer_classes: whether metadata write the class as a number.
        texts: whether metadata carry a text, where no column says so.
        pseudonyms: whether cases get numbers instead of their files' names; None: for DICOM only.
        published: the paper's figures of its synthetic clips.
    """

    name: str = ""
    home: str | None = None
    classes: list[str] = field(default_factory=list)
    class_of: dict[str, str] = field(default_factory=dict)
    integer_classes: bool = False
    texts: bool = False
    pseudonyms: bool | None = None
    raw: Raw = field(default_factory=Raw)
    table: Table = field(default_factory=Table)
    split: Split = field(default_factory=Split)
    intensity: Intensity = field(default_factory=Intensity)
    slices: Slices = field(default_factory=Slices)
    clips: Clips = field(default_factory=Clips)
    names: Names = field(default_factory=Names)
    folders: Folders = field(default_factory=Folders)
    published: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", self.name):
            raise ValueError(f"name is {self.name!r}; give letters, digits, dots or hyphens")
        self.classes = [
            unicodedata.normalize("NFC", cls) for cls in self.classes
        ]  # as tables and paths are read
        self.class_of = {
            unicodedata.normalize("NFC", word): unicodedata.normalize("NFC", cls)
            for word, cls in self.class_of.items()
        }
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes names a class twice")
        for cls in self.classes:
            if cls != class_word(cls):
                raise ValueError(
                    f"class {cls!r} cannot be part of a clip's name; call it e.g. {class_word(cls)!r} "
                    f"and write {{{cls}: {class_word(cls)}}} to class_of"
                )
        if unknown := set(self.class_of.values()) - set(self.classes):
            raise ValueError(f"class_of leads to {', '.join(sorted(unknown))}, which classes does not name")
        if self.raw.kind and len(self.classes) < 2:
            raise ValueError("classes must name at least two classes")
        if self.raw.kind and "class" not in self.table.columns and "{class}" not in self.raw.pattern:
            raise ValueError("neither table.columns names a class column nor raw.pattern a {class}")
        if (self.slices.crop == "mask" or self.slices.only_masked) and self.raw.kind and not self.raw.mask:
            raise ValueError("slices asks for a mask, but raw.mask names none")
        if self.pseudonyms is None:
            self.pseudonyms = self.raw.kind == "dicom"

    @property
    def knows_patients(self) -> bool:
        """Whether case names begin with a patient's number."""
        return bool(self.raw.kind) and (
            "patient" in self.table.columns or "{patient}" in self.raw.pattern or self.raw.kind == "dicom"
        )

    def spec(self, path: Path, home: str) -> DatasetSpec:
        """The names and numbers that all later steps need."""
        films = self.raw.kind in ("video", "frames")
        names, clips, folders = self.names, self.clips, self.folders
        patient_tag = names.patient_tag if names.patient_tag is not None else "_" * self.knows_patients
        return DatasetSpec(
            data_name=self.name,
            home=home,
            classes=tuple(self.classes),
            slices_dir=folders.slices or f"{self.name}_all_slices",
            frames_dir=folders.frames or f"{self.name}_data",
            clips_dir=folders.clips or f"{self.name}_volume",
            priors_dir=folders.priors or f"{self.name}_data_emb",
            motion_dir=folders.motion or f"{self.name}_motion_field",
            trajectories_dir=folders.trajectories or f"{self.name}_motion_field_trajectory",
            frame_tag=names.frame_tag if names.frame_tag is not None else "_frame" if films else "_slice",
            clip_tag=names.clip_tag if names.clip_tag is not None else "_f" if films else "_s",
            digits=names.digits,
            **{item.name: getattr(clips, item.name) for item in fields(clips)},
            integer_classes=self.integer_classes,
            has_text=self.texts or "text" in self.table.columns,
            numbered_from_one=names.numbered_from_one,
            patient_tag=patient_tag,
            published=tuple(self.published.items()),
            file=path,
        )


def read_data_file(path: str | Path) -> DataFile:
    """Reads and checks a data file.

    Raises:
        UserError: missing, malformed, a field that does not exist (the nearest is named) or cannot be.
    """
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        raise UserError(
            "is not a data file (.yaml)", f"Make one with prepare_data.py --guess; see {PAGE}", path
        )
    return read_fields(DataFile, path, PAGE)
