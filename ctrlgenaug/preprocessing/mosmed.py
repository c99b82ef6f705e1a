"""MosMed's raw format: the registry, the split, the volumes (method, sections 1 and 2)."""

from __future__ import annotations

import zlib
from pathlib import Path, PurePosixPath

import nibabel
import numpy as np
import pandas
from sklearn.model_selection import train_test_split

from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import check_name
from ctrlgenaug.preprocessing.intensity import HU_WINDOW, shrink, window
from ctrlgenaug.preprocessing.slices import Case

CATEGORIES = {"CT-0": "CT-0", "CT-1": "CT-1", "CT-2": "CT-234", "CT-3": "CT-234", "CT-4": "CT-234"}
IN_PLANE = 512  # pixels of a raw slice


def read_registry(path: str | Path, root: str | Path) -> list[Case]:
    """The cases of a registry (.xlsx or .csv), split 80/20 by class, in the split's order: first train, then test.

    Args:
        path: columns ``_, category, file, ...`` in this order, with a header row.
        root: the folder that the files' paths are relative to (they may begin with ``/`` all the same).

    Raises:
        UserError: unreadable, an unknown category, a name that occurs twice, or too few cases a class to split.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("does not exist", "Give the registry with --registry", path)
    try:
        if path.suffix.lower() == ".csv":
            table = pandas.read_csv(path, encoding="utf-8-sig", dtype=str)
        else:
            table = pandas.read_excel(path, dtype=str)
    except Exception as error:  # a damaged workbook can raise nearly anything
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise UserError(f"is not a readable registry ({reason[0]})", "Download it again", path) from None
    if table.shape[1] < 3 or table.empty:
        raise UserError("has no rows of (id, category, file)", "Download it again", path)
    names, classes, files = [], [], []
    for number, (category, file) in enumerate(zip(table.iloc[:, 1], table.iloc[:, 2], strict=True), start=2):
        if category not in CATEGORIES:
            raise UserError(
                f"row {number} has category {category!r}", f"Use one of {', '.join(CATEGORIES)}", path
            )
        relative = PurePosixPath(str(file).lstrip("/"))
        if ".." in relative.parts:
            raise UserError(f"row {number} leaves the data folder ({file!r})", "Mend the row", path)
        name = check_name(relative.name, path).removesuffix(".gz").removesuffix(".nii")
        names.append(name)
        classes.append(CATEGORIES[category])
        files.append(Path(root) / relative)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice:
        raise UserError(f"names {twice} twice", "Remove one of the rows", path)
    try:
        parts = train_test_split(range(len(names)), test_size=0.2, random_state=33, stratify=classes)
    except ValueError as error:
        raise UserError(f"cannot be split 80/20 by class ({error})", "Add cases", path) from None
    return [
        Case(names[i], classes[i], split, files[i])
        for split, part in zip(("train", "test"), parts, strict=True)
        for i in part
    ]


def read_volume(case: Case) -> np.ndarray:
    """A study as frames (n, 256, 256) uint8, windowed to [-1000, 400] HU and turned upright.

    Raises:
        UserError: missing, truncated, not NIfTI, of the wrong size, constant, or with values that are not finite.
    """
    path = case.source
    if not path.is_file():
        raise UserError("does not exist, though the registry names it", "Download it, or remove the row", path)
    remedy = "Download it again"
    try:
        image = nibabel.load(path)
        if len(image.shape) != 3 or image.shape[:2] != (IN_PLANE, IN_PLANE) or image.shape[2] < 1:
            size = " x ".join(map(str, image.shape))
            raise UserError(f"is {size} voxels, expected {IN_PLANE} x {IN_PLANE} x slices", remedy, path)
        volume = np.asarray(image.dataobj, np.float32)  # (W, H, n)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        reason = str(error).splitlines()[:1] or [type(error).__name__]
        raise UserError(f"is not a readable NIfTI volume ({reason[0]})", remedy, path) from None
    if not np.isfinite(volume).all():
        raise UserError("holds values that are not finite", remedy, path)
    if volume.min() == volume.max():
        raise UserError(f"is constant ({volume.flat[0]:g} HU everywhere)", remedy, path)
    upright = np.rot90(window(volume, *HU_WINDOW))  # what scipy's rotate by 90 degrees does to these voxels
    frames = (shrink(upright, IMAGE_SIZE) * np.float32(255)).astype(np.uint8)
    return np.ascontiguousarray(frames.transpose(2, 0, 1))
