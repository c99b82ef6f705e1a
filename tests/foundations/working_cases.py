"""Cases for workers in other processes, some of which end badly."""

from __future__ import annotations

import errno
import os
import signal
import time
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
