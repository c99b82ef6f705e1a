"""Cases for workers in other processes, some of which end badly."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctrlgenaug.errors import UserError


def work(folder: str, case: str, pause: float = 0.0) -> str:
    """Writes a file of the case's name; "kills" ends its process each time, "kills_once" the first time only."""
    with (Path(folder) / f"tries_{case}").open("a") as handle:
        handle.write("x")
    tries = (Path(folder) / f"tries_{case}").stat().st_size
    time.sleep(pause)
    if case.startswith("kills_once") and tries == 1:
        os._exit(3)
    if case == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if case == "raises":
        raise ValueError("bad luck")
    if case == "refuses":
        raise UserError("is damaged", "Copy it again", case)
    if case == "fills_disk":
        raise OSError(errno.ENOSPC, "No space left on device", "output")
    (Path(folder) / f"{case}.bin").write_bytes(case.encode() * 100)
    return case.upper()


class Upper:
    """A model that answers in capitals, three items together; ``marks`` is a folder of what happened."""

    def __init__(self, device: str, marks: str) -> None:
        self.marks = Path(marks)
        self.marks.mkdir(exist_ok=True)
        self._mark("opened", "x")

    def __call__(self, items: Sequence[str]) -> Iterator[str | UserError]:
        if len(items) > 2 and items[0].startswith("big"):
            raise RuntimeError("CUDA out of memory")
        for start in range(0, len(items), 3):
            batch = items[start : start + 3]
            self._mark("batches", " ".join(batch) + "\n")
            for item in batch:
                if item == "kills":
                    os._exit(3)
                if item == "raises":
                    raise ValueError("bad luck")
                if item == "fills_disk":
                    raise OSError(errno.ENOSPC, "No space left on device", "output")
                yield UserError("is damaged", "Copy it again", item) if item == "refused" else item.upper()

    def _mark(self, name: str, text: str) -> None:
        with (self.marks / name).open("a") as handle:
            handle.write(text)


def refuse_to_open(device: str, marks: str) -> Upper:
    raise UserError("is no model", "Give another", marks)
