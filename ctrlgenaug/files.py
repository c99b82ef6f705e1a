"""Files that appear whole or not at all, and what is asked of one before it is read."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ctrlgenaug.errors import UserError

TEMPORARY_PREFIX = ".unfinished-"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# How network and FUSE file systems say that they do not know an operation, or leave it to root.
NOT_SUPPORTED = (
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.ENOTTY,
    errno.EPERM,
    errno.EACCES,
    errno.EROFS,
)
LITTLE_SPACE = 1 << 20  # bytes left on a disk, below which a failed write is put down to that


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary name beside ``path`` (file or folder); renames it to ``path`` only if the block succeeds.

    The suffix is kept, because encoders choose the container by it. The temporary name holds nothing of the target's
    stem, so that the longest legal file name still works. A link to a file is replaced, never written through.

    Args:
        path: the target.
        durable: wait until the file is on the disk; otherwise a power cut may leave it empty.

    Raises:
        UserError: a folder, or a link to one, is in the place of a file; or the file system does not rename.
        OSError: ENOSPC with ``path``, whatever the library that wrote the block's file made of a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}{path.suffix}"
    try:
        yield temporary
        if durable and temporary.is_file():
            sync(temporary)
        rename(temporary, path)
    except Exception as error:
        if is_disk_full(error, path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        remove(temporary)


def rename(source: Path, target: Path) -> None:
    """Gives ``source`` the name ``target``, in place of a file or an empty folder of that name."""
    if target.is_dir() and (target.is_symlink() or not source.is_dir()):
        what = "a link to a folder" if target.is_symlink() else "a folder"
        raise UserError(f"is {what}, and this run would write there", "Move it away", target)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        problem = f"cannot be given its name by this file system ({error.strerror})"
        raise UserError(problem, "Choose a folder on another disk", target) from error


def sync(path: Path) -> None:
    """Waits until a file's content is on the disk, where the file system can say so."""
    with path.open("rb") as handle:
        sync_handle(handle.fileno())


def sync_handle(descriptor: int) -> None:
    """`os.fsync`, passed over where the file system does not know it (some network and FUSE file systems)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise


def allocate(path: Path) -> None:
    """Gives every byte of a file its place on the disk: on a full one, a write through a mapping ends the process.

    Raises:
        OSError: ENOSPC with ``path``, which is removed.
    """
    try:
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, os.fstat(handle.fileno()).st_size)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            remove(path)
            raise OSError(error.errno, error.strerror, str(path)) from error


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; never what a link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """Whether ``error`` says, in one library's words or another's, that the disk is full; or ``folder``'s disk is."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_FULL:
            return True
        text = str(seen).lower()
        if "no space left" in text or "disk quota exceeded" in text or "os error 28" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    if folder is None:
        return False
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free < LITTLE_SPACE
    return False


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Appends a line of text in one write, so that several processes may append at once; never through a link.

    Raises:
        UserError: ``path`` is a link or no regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise UserError(
            "is a link, a folder or a pipe, and this run would write there", "Remove it", path
        ) from None
    data = (line + "\n").encode()
    try:
        with contextlib.suppress(OSError):  # for network file systems, where appending alone is not enough
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        while data:
            data = data[os.write(descriptor, data) :]
        if durable:
            sync_handle(descriptor)
    except OSError as error:
        raise type(error)(
            error.errno, error.strerror, str(path)
        ) from error  # a descriptor's errors name no file
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


# --- reading ----------------------------------------------------------------------------------------------------------


def check_file(path: str | Path, remedy: str = "Copy it again", *, may_be_empty: bool = False) -> int:
    """The size in bytes of a regular file (or of the one that a link leads to).

    Every reader asks this first: a pipe would wait for ever, and image libraries crash on names that are no UTF-8.

    Raises:
        UserError: missing, empty, unreadable, a folder, a pipe or another special file, or of a name that is no UTF-8.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise UserError("has a name that is not UTF-8", "Rename it", printable(path)) from None
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("does not exist", remedy, path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read ({reason})", remedy, printable(path)) from None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise UserError(f"is {what}", "Put the file itself there", path)
    if not status.st_size and not may_be_empty:
        raise UserError("is empty (0 bytes)", remedy, path)
    return status.st_size


def printable(path: str | Path) -> str:
    """A path as text that every terminal takes, bytes that are no UTF-8 spelled out."""
    return os.fspath(path).encode(errors="backslashreplace").decode()


def read_text(path: str | Path, remedy: str = "Run the step that writes it first") -> str:
    """The text of a UTF-8 file, with or without a byte order mark; its line ends are \\n.

    Raises:
        UserError: as of `check_file`, or not UTF-8.
    """
    check_file(path, remedy, may_be_empty=True)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", "Save it as UTF-8", path) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", remedy, path) from None


def text_lines(text: str) -> list[str]:
    """The lines of ``text``, which end at \\n only.

    ``str.splitlines`` ends them at U+2028, U+2029 and U+0085 too, which JSON leaves inside a line as they are.
    """
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def fingerprint(paths: Iterable[str | Path], length: int = 16) -> str:
    """A short SHA-256 over the contents of ``paths`` in the order given: tells two sets of weights apart."""
    digest = hashlib.sha256()
    for path in paths:
        check_file(path, may_be_empty=True)
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
