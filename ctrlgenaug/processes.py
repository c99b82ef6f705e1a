"""Processes beside this one: how many make sense, and that they leave with their parent."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from ctrlgenaug.errors import UserError

LARGEST_POOL = 8  # worker processes by default: beyond it a disk is the limit
PROCESS_STATUS = Path("/proc/self/status")
CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # "max 100000" or "QUOTA PERIOD", in microseconds


def usable_cpus() -> int:
    """The processors that this process may use: its affinity (SLURM, taskset) and its container's limit count."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_LIMIT.read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no container, or the older kind
    return max(1, count)


def environment_number(name: str, default: int, environment: Mapping[str, str] = os.environ) -> int:
    """A whole number of 0 or more that a launcher or scheduler has put into the environment.

    Raises:
        UserError: something else stands there.
    """
    text = environment.get(name, "").strip() or str(default)
    if not (text.isascii() and text.isdecimal()):
        raise UserError(
            f"the environment says {name}={text}, which is not a number", f"Unset {name}, or mend it"
        )
    return int(text)


def default_workers() -> int:
    """How many worker processes or threads a step starts unless told otherwise."""
    return min(LARGEST_POOL, usable_cpus())


def peak_memory() -> int:
    """The most memory that this process has held at once so far, in bytes."""
    with contextlib.suppress(OSError):
        # ru_maxrss outlives an exec, so that it would count what the parent held
        for line in PROCESS_STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def start_worker() -> None:
    """To be called first in a worker process: it leaves the keyboard to its parent, and leaves with it.

    The workers of a killed run would wait for ever, hold its GPUs, and write beside the run that continues it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
