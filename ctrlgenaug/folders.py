"""Folders that one run at a time writes, with one set of settings."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError
from ctrlgenaug.files import TEMPORARY_PREFIX, fingerprint, read_text, remove, write_text
from ctrlgenaug.plain_data import read_json, write_json

LOCK = ".lock"
SUMS_FILE = "SHA256SUMS"
SETTINGS = "settings.json"  # what a folder's files are made with
# What file systems answer that know no locks (some cluster and FUSE file systems)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)


def remove_leftovers(folder: str | Path) -> int:
    """Removes what a killed run left unfinished in ``folder``; returns how many. Call only under its lock."""
    leftovers = list(Path(folder).glob(f"{TEMPORARY_PREFIX}*"))
    for item in leftovers:
        remove(item)
    return len(leftovers)


@contextlib.contextmanager
def exclusive(folder: str | Path) -> Iterator[None]:
    """Holds ``folder`` for one writing run, by a lock on ``.lock`` in it that vanishes with the run, even a killed one.

    Where the file system knows no locks, the run says so once and goes on.

    Raises:
        UserError: another run holds the folder, or ``.lock`` is a link or no file.
    """
    folder = Path(folder)
    make_folder(folder)
    with _locked(folder / LOCK):
        remove_leftovers(folder)
        try:
            yield
        except BaseException:  # workers that were stopped in the middle of a file leave it behind
            with contextlib.suppress(OSError):
                remove_leftovers(folder)
            raise


def make_folder(folder: str | Path) -> None:
    """Makes ``folder`` and those above it; a `UserError` if a file is in the way."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError("is not a folder, or lies below a file", "Choose another folder", folder) from None


def beside(folder: Path, ending: str) -> Path:
    """``{folder}_{ending}``: also of ``.`` and ``..``, which have no name to be lengthened."""
    named = folder if folder.name not in ("", "..") else folder.resolve()
    return named.with_name(f"{named.name}_{ending}")


def refuse_link(folder: Path) -> None:
    """A `UserError` if a folder that a run empties is a link, which may lead anywhere."""
    if folder.is_symlink():
        raise UserError("is a link where this run keeps a folder of its own", "Remove it", folder)


def is_held(folder: Path) -> bool:
    """Whether a run holds ``folder`` (`exclusive`) now."""
    with contextlib.suppress(FileNotFoundError, UserError):
        descriptor = _open_lock(folder / LOCK, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    while True:
        descriptor = _open_lock(path)
        try:
            held = _try_lock(descriptor, path)
            if held and not _still_there(descriptor, path):
                continue  # the run that held it removed it in between
            try:
                yield
            finally:
                if held:
                    with contextlib.suppress(OSError):
                        path.unlink()  # before the lock is given up, so that nobody else's is removed
            return
        finally:
            os.close(descriptor)


def _open_lock(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    # never through a link, and without emptying what is there; a pipe must not keep the run waiting
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    remedy = "Remove it, if no run is writing the folder"
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError("is a link or a folder where this run keeps its lock", remedy, path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError("is no regular file; this run keeps its lock there", remedy, path)
    return descriptor


def _try_lock(descriptor: int, path: Path) -> bool:
    """Whether the lock was taken; False where the file system knows none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        remedy = "Wait for it to end, or choose another folder"
        raise UserError("another run is writing this folder", remedy, path.parent) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"warning: {path.parent}: this file system knows no locks ({error.strerror}); "
            "do not let two runs write the folder at once",
            file=sys.stderr,
        )
        return False
    return True


def _still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def fingerprint_folder(
    folder: str | Path, suffixes: tuple[str, ...] = (".safetensors", ".bin", ".json")
) -> str:
    """`fingerprint` of a model folder's weights and configs, in name order; hidden files are no part of a model."""
    files = (path for path in Path(folder).rglob("*") if path.suffix in suffixes)
    visible = (
        path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return fingerprint(sorted(visible))


def write_sums(folder: str | Path) -> None:
    """Notes the SHA-256 of every file below ``folder`` in its SHA256SUMS, as ``sha256sum`` writes it."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    lines = (f"{fingerprint([path], 64)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_text(folder / SUMS_FILE, "".join(lines))


def check_sums(folder: str | Path) -> None:
    """Checks ``folder`` against the SHA256SUMS in it or in the folder above; without one there is nothing to check.

    Raises:
        UserError: a file is missing, damaged or was changed; the first one is named.
    """
    folder = Path(folder)
    root = next((place for place in (folder, folder.parent) if (place / SUMS_FILE).is_file()), None)
    if root is None:
        return
    remedy = f"Copy it again from where it came from, or delete {SUMS_FILE} if it was changed on purpose"
    for line in read_text(root / SUMS_FILE).splitlines():
        expected, _, name = line.partition("  ")
        path = root / name
        if not path.is_relative_to(folder):
            continue
        if not path.is_file():
            raise UserError(f"is missing, but listed in {SUMS_FILE}", remedy, path)
        if fingerprint([path], 64) != expected:
            raise UserError(f"is damaged: its checksum is not the one in {SUMS_FILE}", remedy, path)


def claim_folder(
    folder: str | Path,
    settings: Mapping[str, Any],
    *,
    name: str = SETTINGS,
    notes: Mapping[str, Any] | None = None,
    pattern: str | Sequence[str] = "*.npy",
    before: Mapping[str, Any] | None = None,
    in_use: bool = False,
    remedy: str = "Use the same settings, choose another folder, or delete this one",
) -> None:
    """Notes in ``folder/name`` what its files are made with, so that a later run cannot mix in others.

    Call under `exclusive`. A folder that holds no file yet is free for any settings.

    Args:
        folder: where the files go.
        settings: JSON values, nested ones allowed.
        name: the file that notes them.
        notes: written beside the settings, for the reader; they may differ.
        pattern: of the files that the settings made; or several.
        before: what files were made with before a setting existed, which their folder's ``name`` does not have.
        in_use: another run is at work there, so that the folder is not free even if it holds no file.
        remedy: what the user should do about other settings.

    Raises:
        UserError: files matching ``pattern`` are there that were made with other or unknown settings.
    """
    path = Path(folder) / name
    wanted = json.loads(json.dumps(settings))  # tuples become lists, as they come back from disk
    patterns = [pattern] if isinstance(pattern, str) else pattern
    if not in_use and not any(file for one in patterns for file in Path(folder).glob(one)):
        write_json(path, wanted | dict(notes or {}))
        return
    if not path.is_file():
        if in_use:
            write_json(path, wanted | dict(notes or {}))
            return
        unknown = "Choose another folder, or move its files away"
        raise UserError(f"holds files but no {name} that says how they were made", unknown, folder)
    noted = read_json(path)
    known = _flat(dict(before or {})) | _flat(noted if isinstance(noted, dict) else {})
    differing = [
        f"{key}: {known.get(key)} there, {value} now"
        for key, value in _flat(wanted).items()
        if key not in known or known[key] != value
    ]
    if differing:
        raise UserError(f"was made with other settings ({'; '.join(differing)}; see {name})", remedy, folder)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings of settings side by side, so that a difference is named by itself: ``fit.lr``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else {f"{prefix}{key}": value}
        )
    return flat
