"""Raw files: where they are, which names in a folder count, and what a file may claim to hold.

What a raw file claims is untrusted: a header of 352 bytes can ask for 17 GB. Every reader asks `check_claim` before it
allocates.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ctrlgenaug.errors import UserError

# What file managers, archivers, editors and office programs leave in folders; no raw data.
LITTER = {
    "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "@eadir", "#recycle", "$recycle.bin",
    "lost+found", "__pycache__", "system volume information",
}  # fmt: skip
MOST_BYTES = (
    "CTRLGENAUG_MOST_BYTES"  # environment variable: another limit for one case's grey values in memory
)
DEFAULT_MOST_BYTES = 2 << 30
MOST_PIXELS = 1 << 26  # of one picture: 8192 x 8192
UNPACKED_BYTES, UNPACKED_TIMES = 256 << 20, 200  # a larger scan never shrinks to less than a 200th


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden (``._x``, ``.ipynb_checkpoints``) or `LITTER`."""
    return name.startswith((".", "~$")) or name.lower() in LITTER


def natural(text: str) -> list[tuple[int, int | str]]:
    """A sorting key that takes digits for numbers: frame 9 before frame 10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", text) if part]


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


def below(root: Path, name: str) -> Path:
    """``root/name`` for a ``name`` from a table, which must not climb out; links inside the root are normal.

    A leading slash stands for the root (as in MosMedData's registry), and backslashes for slashes.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise UserError(f"{name!r} leaves the data folder", "Mend the entry")
    return root.joinpath(*parts)


def walk(folder: Path) -> Iterator[Path]:
    """All files below ``folder`` in the order of their names, without litter; links are followed, loops are not.

    Raises:
        UserError: ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise UserError("is not a folder", "Check the path", folder)
    yield from _walk(folder, set())


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen = seen | {(status.st_dev, status.st_ino)}
    for name in sorted(os.listdir(folder)):
        if is_litter(name):
            continue
        path = folder / name
        if path.is_dir():
            yield from _walk(path, seen)
        else:
            yield path


def most_bytes() -> int:
    """The most memory that the grey values of one case may take."""
    text = os.environ.get(MOST_BYTES, "")
    return int(text) if text.isdigit() and int(text) else DEFAULT_MOST_BYTES


def check_memory(path: str | Path, claimed: int) -> None:
    """A `UserError` where the grey values of one case would take more than `most_bytes`."""
    if claimed > most_bytes():
        problem = f"claims {claimed / 2**30:.1f} GB of grey values"
        raise UserError(problem, f"Check the file; {MOST_BYTES} sets another limit than {most_bytes()}", path)


def check_claim(path: str | Path, claimed: int, stored: int, *, packed: bool) -> None:
    """A `UserError` where a file claims more grey values than it can hold, or than anybody wants in memory.

    Args:
        path: the file.
        claimed: bytes of grey values that its header asks for.
        stored: bytes that the file has.
        packed: whether they are compressed.
    """
    check_memory(path, claimed)
    if not packed and claimed > stored:
        problem = f"is damaged or truncated: it claims {claimed} bytes of grey values, but has {stored}"
        raise UserError(problem, "Copy it again", path)
    if packed and claimed > UNPACKED_BYTES and claimed > UNPACKED_TIMES * stored:
        problem = f"claims {claimed} bytes of grey values in a file of {stored}: no scan shrinks so far"
        raise UserError(problem, "Copy it again", path)


def check_picture(path: str | Path, height: int, width: int) -> None:
    """A `UserError` where one picture claims more than `MOST_PIXELS`, or nothing."""
    if not 0 < height * width <= MOST_PIXELS:
        raise UserError(f"claims {width} x {height} pixels", "Copy it again, or scale it down", path)


def reject_all(rows: int, rejected: dict[str, str], source: str | Path) -> None:
    """Where nothing is left to read, a `UserError` that gives the reasons first."""
    if rows or not rejected:
        return
    reasons = list(dict.fromkeys(rejected.values()))
    shown = "; ".join(reason.rstrip(".") for reason in reasons[:3]) + ("; ..." if len(reasons) > 3 else "")
    raise UserError(f"none of {len(rejected)} entries can be used: {shown}", "Mend these first", source)
