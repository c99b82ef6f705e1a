"""How every step of the pipeline runs: errors in one line, cases side by side, a bad case skipped and counted."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ctrlgenaug.arguments import whole_number
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import is_disk_full, printable
from ctrlgenaug.processes import default_workers, start_worker
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

    Raises:
        UserError: with ``strict``, the first failure.
        OSError: a full disk, always: no later case could be written either.
    """
    outcome = Outcome()
    jobs = dict(zip(cases, arguments, strict=True))
    bar = progress(total=len(jobs), description=description, unit=unit)

    def settle(case: str, compute: Callable[[], Any]) -> None:
        try:
            outcome.results[case] = compute()
            if on_result is not None:
                on_result(outcome.results[case])
        except Exception as error:
            if is_disk_full(error):
                raise
            if strict:
                raise (
                    error if isinstance(error, UserError) else UserError(describe(error), path=case)
                ) from error
            outcome.failures[case] = describe(error)
            say(f"skipped {case}: {describe(error)}")
        bar.update()

    with bar:
        if num_workers <= 1 or len(jobs) <= 1:
            for case, args in jobs.items():
                settle(case, lambda args=args: worker(*args))
        else:
            # spawn: a forked child inherits the locks of OpenCV's and torch's threads and can hang on them
            pool = ProcessPoolExecutor(
                min(num_workers, len(jobs)), multiprocessing.get_context("spawn"), initializer=start_worker
            )
            try:
                futures = {pool.submit(worker, *args): case for case, args in jobs.items()}
                for future in as_completed(futures):
                    settle(futures[future], future.result)
            finally:
                pool.shutdown(cancel_futures=True)
    outcome.results = {case: outcome.results[case] for case in jobs if case in outcome.results}
    return outcome


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
