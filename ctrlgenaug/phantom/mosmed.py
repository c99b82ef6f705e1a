"""Phantom MosMed: dataset_registry.xlsx and studies/CT-x/study_0001.nii.gz as in the published download."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pandas

from ctrlgenaug import steps
from ctrlgenaug.files import atomic_path
from ctrlgenaug.phantom.chest import CATEGORIES, draw_volume
from ctrlgenaug.phantom.fields import generator

SPACING = (0.7, 0.7, 8.0)  # mm, the published slices are 8 mm apart
# of the classes that the method merges, the milder are the more frequent, as in the real registry
MERGED = {"CT-0": ("CT-0",), "CT-1": ("CT-1",), "CT-234": ("CT-2", "CT-2", "CT-3", "CT-2", "CT-4")}


def categories(cases: int, class_counts: Mapping[str, int] | None = None) -> list[str]:
    """The registry's categories, in its order (by category): ``class_counts`` cases a class, or equally many."""
    if class_counts is None:
        names = list(MERGED)
        class_counts = {
            name: cases // len(names) + (i < cases % len(names)) for i, name in enumerate(names)
        }
    listed = [
        grades[i % len(grades)] for name, grades in MERGED.items() for i in range(class_counts.get(name, 0))
    ]
    return sorted(listed, key=CATEGORIES.index)


def write_study(path: Path, name: str, category: str, seed: int, slices: tuple[int, int], in_plane: int) -> None:
    """Writes one volume, int16 HU in LAS order; its anatomy depends on (seed, name) alone."""
    rng = generator(seed, name)
    view = draw_volume(rng, category, int(rng.integers(slices[0], slices[1] + 1)), in_plane)  # (n, H, W)
    volume = np.rot90(view, -1, axes=(1, 2)).transpose(1, 2, 0)  # (W, H, n): to the left, to the front, upwards
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume), np.diag([-SPACING[0], *SPACING[1:], 1.0]))
    with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=1) as handle:
        handle.write(image.to_bytes())


def write(
    out: str | Path,
    cases: int,
    seed: int,
    *,
    class_counts: Mapping[str, int] | None = None,
    slices: tuple[int, int] = (20, 60),
    in_plane: int = 512,
    num_workers: int = 0,
) -> int:
    """Writes a phantom MosMed below ``out``; studies that are there already stay. Returns how many studies there are."""
    out = Path(out)
    listed = categories(cases, class_counts)
    names = [f"study_{number:04d}" for number in range(1, len(listed) + 1)]
    files = [f"studies/{category}/{name}.nii.gz" for name, category in zip(names, listed, strict=True)]
    todo = [i for i, file in enumerate(files) if not (out / file).is_file()]
    steps.for_each_case(
        write_study,
        [names[i] for i in todo],
        [(out / files[i], names[i], listed[i], seed, slices, in_plane) for i in todo],
        num_workers=num_workers,
        strict=True,
        description="phantom patients",
    )
    registry = pandas.DataFrame(
        {
            "study_id": range(1, len(listed) + 1),
            "category": listed,
            "study_file": [f"/{file}" for file in files],
            "mask_file": None,
        }
    )
    with atomic_path(out / "dataset_registry.xlsx") as temporary:
        registry.to_excel(temporary, index=False)
    return len(listed)
