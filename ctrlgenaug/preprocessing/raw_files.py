"""Where a data set's raw files are: in the working directory, or in the data set's home below it."""

from __future__ import annotations

from pathlib import Path


def find(name: str | Path, home: str) -> Path:
    """``name`` as given if it exists, else ``home/name`` if that does (and a line that says so), else ``name``.

    The scripts are meant to be run inside the home folder; this lets them be run from the folder above it as well.
    """
    path = Path(name)
    below = Path(home) / path
    if path.exists() or path.is_absolute() or not below.exists():
        return path
    print(f"using {below}")
    return below
