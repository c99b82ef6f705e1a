"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError

TEMPORARY_PREFIX = ".unfinished-"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` (file or folder); renames it to ``path`` only if the block succeeds.

    The suffix is kept, because encoders choose the container by it. The temporary name holds nothing of the target's
    stem, so that the longest legal file name still works.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())  # a power cut must not leave a renamed but empty file
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fingerprint(paths: Iterable[str | Path], length: int = 16) -> str:
    """A short SHA-256 over the contents of ``paths`` in the order given: tells two sets of weights apart."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:length]


def check_name(name: str, path: str | Path | None = None) -> str:
    """Returns ``name`` if it is a bare file name; a `UserError` if it could leave its folder.

    Names come from metadata and archives, which are untrusted.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UserError(f"holds {name!r}, which is not a plain file name", "Mend the entry", path)
    return name


def verified(check: Callable[[Path], Any], path: str | Path) -> bool:
    """Whether ``path`` exists and ``check`` reads it without a `UserError`."""
    path = Path(path)
    if not path.is_file():
        return False
    try:
        check(path)
    except UserError:
        return False
    return True
