"""Small synthetic patients in the raw formats of the four data sets, with class-dependent findings.

They stand in for the real data in the demo and the tests. They look like the real thing; they are no medical data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.folders import claim_folder, exclusive
from ctrlgenaug.phantom import chest, cohort, heart, knee, thyroid
from ctrlgenaug.plain_data import write_json

RECORD = "phantom.json"  # written last: its presence says that the data set is whole


@dataclass(frozen=True)
class Format:
    """What the raw format of one data set asks of its phantom.

    Attributes:
        frequencies: how often each raw class occurs in the real data.
        merged: raw classes that the split treats as one; each group needs two patients.
        fewest: patients below which the split cannot give every class to both parts.
        slices: default fewest and most slices or frames.
        shuffle: whether classes are mixed in the tables' order.
        write: writes patients and tables below a folder.
        first_step: the command that reads the data, for the closing line.
        cropped: whether that command crops each frame to the finding.
        options: which only this format has, with their defaults.
    """

    frequencies: Mapping[str, int]
    merged: tuple[tuple[str, ...], ...]
    fewest: int
    slices: tuple[int, int]
    shuffle: bool
    write: Callable[..., None]
    first_step: str
    cropped: bool = False
    options: Mapping[str, int] = field(default_factory=dict)


# By the reader that a data set's file names (`ctrlgenaug.datasets.data_file.Raw`).
BY_READER = {
    "mosmed": Format(
        {"CT-0": 254, "CT-1": 684, "CT-2": 125, "CT-3": 45, "CT-4": 2},
        (("CT-0",), ("CT-1",), ("CT-2", "CT-3", "CT-4")),
        11,
        (20, 60),
        False,
        chest.write,
        "MosMedData/extract_all_slices.py",
        options={"in_plane": 512},
    ),
    "mrnet": Format(
        {"0": 988, "1": 262}, (("0",), ("1",)), 4, (15, 52), True, knee.write, "MRNet/extract_all_slices.py"
    ),
    "acdc": Format(
        dict.fromkeys(heart.GROUPS, 30),
        tuple((group,) for group in heart.GROUPS),
        10,
        (8, 18),
        True,
        heart.write,
        "ACDC/extract_all_slices.py",
    ),
    "tusc": Format(
        {"TR2": 1, "TR3": 1, "TR4": 2, "TR5": 2},  # each class alike: the films are what matters here
        (("TR2", "TR3"), ("TR4",), ("TR5",)),
        7,
        (20, 70),
        True,
        thyroid.write,
        "TUSC/extract_all_images.py",
        cropped=True,
    ),
}


def formats() -> dict[str, Format]:
    """The data sets that can be drawn, by their names: those whose files name a reader of `BY_READER`."""
    readers = {name: datasets.data_file(datasets.get(name)).raw.reader for name in datasets.data_names()}
    return {name: BY_READER[reader] for name, reader in readers.items() if reader in BY_READER}


def class_counts(data_name: str, cases: int, balance: bool = False) -> dict[str, int]:
    """How many of ``cases`` patients each raw class gets: as often as in the real data, or as many of each.

    Classes that the split merges count as one class; each gets at least two patients, because the split is stratified.
    """
    form = formats()[data_name]
    if cases < form.fewest:
        raise UserError(
            f"{cases} cases of {data_name} cannot be split into train and test with every class in both",
            f"Give --cases {form.fewest} or more, or --class_counts",
        )
    weights = {
        " ".join(group): 1.0 if balance else float(sum(form.frequencies[cls] for cls in group))
        for group in form.merged
    }
    counts: dict[str, int] = {}
    for group, number in cohort.share(cases, weights, least=2).items():
        members = group.split()
        counts |= cohort.share(number, {cls: 1 if balance else form.frequencies[cls] for cls in members})
    return {cls: counts[cls] for cls in form.frequencies}


def make_phantom(
    data_name: str,
    out: str | Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    slices: tuple[int, int] | None = None,
    movement: float = 0,
    num_workers: int = 1,
    **options: int,
) -> bool:
    """Writes a phantom data set in the raw format of ``data_name`` below ``out``.

    Args:
        data_name: one of `formats`.
        out: the folder; the data set's home, e.g. ``MosMedData``.
        counts: patients a raw class.
        seed: the same seed gives the same patients.
        slices: fewest and most slices or frames of a patient; None takes the format's.
        movement: pixels that the view drifts from one slice to the next, at most on average.
        num_workers: processes; the data do not depend on it.
        **options: what the format alone knows, e.g. ``in_plane`` for MosMed.

    Returns:
        False if the folder already held exactly this data set, so that nothing was done.

    Raises:
        UserError: unknown data set or class, or the folder holds another phantom data set.
    """
    if data_name not in formats():
        raise UserError(f"no phantom of {data_name!r}", f"Choose one of {', '.join(formats())}")
    form, out = formats()[data_name], Path(out)
    unknown = set(counts) - set(form.frequencies)
    if unknown or min(counts.values(), default=0) < 0:
        raise UserError(
            f"{data_name} has no class {', '.join(sorted(unknown)) or 'with fewer than 0 patients'}",
            f"Use {', '.join(form.frequencies)}",
        )
    slices = slices or form.slices
    if not 1 <= slices[0] <= slices[1]:
        raise UserError(f"--slices {slices[0]},{slices[1]} is not a range", "Write FEWEST,MOST, e.g. 20,24")
    if movement and form.cropped:
        problem = f"a moving view would not be seen in {data_name}, whose frames are cropped to the finding"
        raise UserError(problem, "Leave out --movement")
    record = {
        "data_name": data_name, "counts": dict(counts), "seed": seed, "slices": list(slices), **form.options,
        "movement": movement, **options,
    }  # fmt: skip
    before = {"movement": 0, **form.options}  # of a folder whose record is older than these settings
    with exclusive(out):
        if (out / RECORD).exists():
            claim_folder(out, record, name=RECORD, before=before, in_use=True, remedy="Choose another --out")
            return False
        patients = cohort.enrol(counts, seed, slices, shuffle=form.shuffle, movement=movement)
        form.write(out, patients, num_workers=num_workers, **options)
        write_json(out / RECORD, record)
    return True
