"""How every step of the pipeline runs: errors in one line, cases side by side, a bad case skipped and counted."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ctrlgenaug import cluster
from ctrlgenaug.arguments import whole_number
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import is_disk_full, printable
from ctrlgenaug.leases import LeaseResult, Reports, work_through
from ctrlgenaug.processes import default_workers
from ctrlgenaug.progress import progress, say

PACKAGES = ("ctrlgenaug", "cond2img", "cond2video", "augment")
EXIT_SOME_FAILED = 1
EXIT_ERROR = 2
EXIT_PIPE = 141


def describe(error: BaseException) -> str:
    """One line for a user: our own errors as they are, a full disk by its remedy, the rest with their type."""
    if isinstance(error, UserError):
        return str(error)
    where = printable(getattr(error, "filename", None) or "output")
    if is_disk_full(error):
        return f"{where}: the disk is full. Free some space and run the same command again."
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}: permission denied. Choose a folder you may write."
    if isinstance(error, OSError) and error.errno:
        return f"{where}: {error.strerror}. Check the disk, the path and its links."
    reason = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {reason or 'no details'}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on a GPU or not (without importing torch)."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text))
    )


class _Notes(logging.Handler):
    """Prints what the packages log, such as what of a checkpoint was renamed or starts fresh, beside progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"note: {record.getMessage()}")


def _show_notes() -> None:
    if os.environ.get("RANK", "0") != "0":  # one of several processes that all load the same
        return
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(logging.INFO)
        logger.handlers = [_Notes()]


def run(main: Callable[[], int | None]) -> NoReturn:
    """Calls a script's ``main`` and leaves with its exit code; errors a user can mend become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not end a run
    _show_notes()
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_PIPE
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        code = 130
    except Exception as error:
        if not (isinstance(error, UserError | OSError) or is_disk_full(error)):
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        code = EXIT_ERROR
    raise SystemExit(code)


@dataclass
class Outcome:
    """What became of a batch of cases.

    Attributes:
        results: the workers' return values by case, in the order of the cases.
        failures: one line why, by case.
        counts: free counters for the closing summary.
    """

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def exit_code(self) -> int:
        """0 if every case went well, else 1."""
        return EXIT_SOME_FAILED if self.failures else 0

    def closing_line(self, made: str) -> str:
        """The last line of a step: what it made, and how many cases failed."""
        failed = f"; {len(self.failures)} failed (listed above)" if self.failures else ""
        return f"{made}{failed}"


def for_each_case(
    worker: Callable[..., Any],
    cases: Sequence[str],
    arguments: Iterable[tuple[Any, ...]],
    *,
    num_workers: int = 0,
    strict: bool = False,
    description: str = "",
    unit: str = "case",
    on_result: Callable[[Any], None] | None = None,
    folders: Sequence[str | Path] = (),
) -> Outcome:
    """Runs ``worker(*arguments[i])`` for every case, with a progress bar; a failed case is reported and skipped.

    Args:
        worker: a module-level function (it is sent to other processes).
        cases: names for reports, unique.
        arguments: one tuple a case.
        num_workers: processes; 0 or 1 runs in this one.
        strict: stop at the first failure instead.
        description: the progress bar's title.
        unit: what a case is called in the progress bar.
        on_result: called in this process with each return value as it comes, e.g. to note it for resuming.
        folders: what is read and written, which every machine of a cluster must see.

    A worker that dies costs its own case alone, if that kills it a second time.

    Raises:
        UserError: with ``strict``, the first failure; a machine of the cluster that does not see a folder.
        OSError: a full disk, always: no later case could be written either.
    """
    outcome = Outcome()
    jobs = dict(zip(cases, arguments, strict=True))
    bar = progress(total=len(jobs), description=description, unit=unit)

    def done(case: str, value: Any) -> None:
        try:
            outcome.results[case] = value
            if on_result is not None:
                on_result(value)
        except Exception as error:
            failed(case, error)
        else:
            bar.update()

    def failed(case: str, error: Exception | str) -> None:
        if isinstance(error, Exception) and is_disk_full(error):
            raise error
        reason = describe(error) if isinstance(error, Exception) else error
        if strict:
            raise error if isinstance(error, UserError) else UserError(reason, path=case)
        outcome.failures[case] = reason
        say(f"skipped {case}: {reason}")
        bar.update()

    with bar:
        if (num_workers <= 1 and cluster.chosen() is None) or len(jobs) <= 1:
            for case, args in jobs.items():
                try:
                    value = worker(*args)
                except Exception as error:
                    failed(case, error)
                else:
                    done(case, value)
        else:
            devices = ["cpu"] * max(1, min(num_workers, len(jobs)))
            reports = Reports(
                lambda job, value, _: done(job[0], value), lambda job, error: failed(job[0], error), note
            )
            executor = cluster.executor(_CaseTool, {"worker": worker}, devices, note, folders)
            work_through(executor, list(jobs.items()), reports)
    outcome.results = {case: outcome.results[case] for case in jobs if case in outcome.results}
    return outcome


def note(text: str) -> None:
    """A remark above the progress bar."""
    say(f"note: {text}")


class _CaseTool:
    """A worker's tool: calls a function for each case of a lease."""

    def __init__(self, device: str, worker: Callable[..., Any]) -> None:
        self.worker = worker

    def __call__(self, lease: Sequence[tuple[int, tuple[str, tuple[Any, ...]]]]) -> LeaseResult:
        result = LeaseResult()
        for number, (_, args) in lease:
            try:
                result.done[number] = self.worker(*args)
            except Exception as error:
                result.refused[number] = portable(error)
        return result


def portable(error: Exception) -> Exception | str:
    """An error as another process can have it: one of ours as it is, a full disk as such, any other as a line."""
    if isinstance(error, UserError):
        return error
    if is_disk_full(error):
        where = getattr(error, "filename", None)
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), where and str(where))
    return describe(error)


def add_batch_options(parser: argparse.ArgumentParser, *, workers: bool = True) -> None:
    """Adds the flags that every batch step shares: ``--num_workers`` and ``--strict``."""
    group = parser.add_argument_group("running")
    if workers:
        group.add_argument(
            "--num_workers",
            type=whole_number,
            default=default_workers(),
            help="processes side by side (default: %(default)s); the output does not depend on it",
        )
        cluster.add_option(group)
    group.add_argument(
        "--strict", action="store_true", help="stop at the first bad case instead of skipping it"
    )


def parser(description: str, example: str = "") -> argparse.ArgumentParser:
    """An argument parser with defaults shown and an example at the end of ``--help``."""
    return argparse.ArgumentParser(
        description=description,
        epilog=f"example:\n  {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
