"""Who is in a phantom data set: patients with their class, length, split and random stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.movement import drift, shifted
from ctrlgenaug.steps import for_each_case


@dataclass(frozen=True)
class Patient:
    """One synthetic patient.

    Attributes:
        number: from 1, in the order of the raw tables.
        cls: the class as the raw format spells it, e.g. ``CT-3``.
        slices: slices of a volume, or frames of a film.
        seed: the data set's.
        test: whether it belongs to the test split, in formats whose folders say so.
        movement: pixels that the view drifts from one slice to the next, at most on average.
    """

    number: int
    cls: str
    slices: int
    seed: int
    test: bool = False
    movement: float = 0

    def generator(self, purpose: str) -> np.random.Generator:
        """A random stream for ``purpose``, independent of all other patients."""
        return shapes.generator(self.seed, f"{purpose} {self.cls} {self.number}")

    def moved(self, purpose: str, *stacks: np.ndarray) -> list[np.ndarray]:
        """``stacks`` (slices, H, W) of the same slices, as the patient's movement shifts them, by whole pixels."""
        if not self.movement:
            return list(stacks)
        places = drift(self.generator(f"movement {purpose}"), len(stacks[0]), self.movement)
        return [shifted(stack, np.rint(places)) for stack in stacks]


def share(cases: int, weights: Mapping[str, float], least: int = 0) -> dict[str, int]:
    """Divides ``cases`` among classes in proportion to ``weights`` (largest remainders), at least ``least`` to each."""
    total = sum(weights.values())
    exact = {cls: cases * weight / total for cls, weight in weights.items()}
    counts = {cls: int(value) for cls, value in exact.items()}
    by_remainder = sorted(exact, key=lambda cls: exact[cls] - counts[cls], reverse=True)
    for cls in by_remainder[: cases - sum(counts.values())]:
        counts[cls] += 1
    for cls in counts:
        while counts[cls] < least:
            counts[max(counts, key=lambda other: counts[other])] -= 1
            counts[cls] += 1
    return counts


def enrol(
    counts: Mapping[str, int], seed: int, slices: tuple[int, int], *, shuffle: bool, movement: float = 0
) -> list[Patient]:
    """The patients of a data set.

    Args:
        counts: patients a class.
        seed: the data set's.
        slices: fewest and most slices.
        movement: of all patients.
        shuffle: mix the classes, or keep them in blocks as MosMedData does.

    Returns:
        patients numbered from 1; of each class the last fifth (at least one) is marked for the test split.
    """
    rng = shapes.generator(seed, "cohort")
    entries = [(cls, i >= count - max(1, count // 5)) for cls, count in counts.items() for i in range(count)]
    if shuffle:
        entries = [entries[i] for i in rng.permutation(len(entries))]
    lengths = rng.integers(slices[0], slices[1] + 1, len(entries))
    return [
        Patient(number, cls, int(length), seed, test, movement)
        for number, ((cls, test), length) in enumerate(zip(entries, lengths, strict=True), start=1)
    ]


def write_each(
    write: Callable[..., None], out: Path, patients: list[Patient], *arguments: object, num_workers: int = 1
) -> None:
    """Runs ``write(out, patient, *arguments)`` for every patient, side by side; the first failure stops all."""
    for_each_case(
        write,
        [str(patient.number) for patient in patients],
        [(out, patient, *arguments) for patient in patients],
        num_workers=num_workers,
        strict=True,
        description="drawing patients",
        unit="patient",
    )
