"""Which data sets there are: those of ``configs/data/``, and a user's own by their data files."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ctrlgenaug.datasets.data_file import DataFile, read_data_file
from ctrlgenaug.datasets.spec import REGISTERED, DatasetSpec
from ctrlgenaug.errors import UserError

# Data files in use, for the processes that this one starts: they know the data set by its name.
IN_USE = "CTRLGENAUG_DATA"

_known: dict[Path, tuple[float, DatasetSpec]] = {}


def _files() -> dict[str, Path]:
    """Name -> file of the registered data sets, then of those in use, which win."""
    files = {
        path.stem: path for path in sorted(REGISTERED.glob("*.yaml"), key=lambda path: path.name.lower())
    }
    return files | {
        Path(path).stem: Path(path) for path in os.environ.get(IN_USE, "").split(os.pathsep) if path
    }


def load(path: str | Path) -> DatasetSpec:
    """The spec of a data file, which from now on is known by its name, here and in processes started later.

    Raises:
        UserError: no such file, or a field in it is wrong.
    """
    path = Path(path).absolute()
    try:
        changed = path.stat().st_mtime
    except OSError:
        raise UserError("does not exist", "Give the path of a data file (.yaml)", path) from None
    if path not in _known or _known[path][0] != changed:
        data = read_data_file(path)
        if data.name != path.stem:
            raise UserError(
                f"is named {path.stem}, but describes {data.name}", f"Call it {data.name}.yaml", path
            )
        _known[path] = changed, data.spec(path, _home(path, data))
    if not _known[path][1].is_registered:
        others = [item for item in os.environ.get(IN_USE, "").split(os.pathsep) if item and item != str(path)]
        os.environ[IN_USE] = os.pathsep.join([*others, str(path)])
    return _known[path][1]


def _home(path: Path, data: DataFile) -> str:
    """The data set's home: below the data root if it is registered, else beside (or from) its file.

    A link in ``configs/data/`` registers a data set that stays where its file is.
    """
    if path.parent == REGISTERED and not path.is_symlink():
        return data.home or data.name
    return str(path.resolve().parent / (data.home or ""))


def data_file(spec: DatasetSpec) -> DataFile:
    """What the file of ``spec`` says beyond names: where raw files are and how they are read."""
    if spec.file is None:
        raise UserError(f"{spec.data_name} has no data file", "Give --data FILE")
    return read_data_file(spec.file)


def data_names() -> list[str]:
    """The names of all known data sets."""
    return list(_files())


def get(name: str) -> DatasetSpec:
    """A data set by its name (upper or lower case) or by its data file; a `UserError` with the nearest name if none.

    A name that is not registered is looked for as ``NAME.yaml`` in the working directory.
    """
    if name.lower().endswith((".yaml", ".yml")):
        return load(name)
    by_lower = {known.lower(): path for known, path in _files().items()}
    if name.lower() in by_lower:
        return load(by_lower[name.lower()])
    here = Path(f"{name}.yaml")
    if "/" not in name and here.is_file():
        return load(here)
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"Did you mean {by_lower[near[0]].stem}? " if near else ""
    known = ", ".join(data_names())
    raise UserError(f"{name!r} is not a known data set", f"{hint}Known: {known}; or give --data FILE.yaml")


def of_folder(folder: str | Path) -> DatasetSpec:
    """The spec whose frames, clips or slices folder is called like ``folder``; a `UserError` if none is.

    A data file beside the folder counts as well.
    """
    folder = Path(folder).resolve()
    prefix = folder.name.partition("_")[0]
    beside = folder.parent / f"{prefix}.yaml"
    files = ([beside] if beside.is_file() else []) + list(_files().values())
    for spec in map(load, files):
        if folder.name in (spec.clips_dir, spec.frames_dir, spec.slices_dir, Path(spec.home).name):
            return spec
    raise UserError("does not belong to a known data set", "Give --data_name or --data", folder)
