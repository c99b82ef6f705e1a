"""Steps (a) and (b) of every data set: killed in the middle and started again, with one worker and with four.

All ways must end in the same bytes as one undisturbed process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctrlgenaug.preprocessing.ledger import LEDGER


def contents(home: Path, folders: tuple[str, ...]) -> dict[str, bytes]:
    """Every visible result file in ``folders``, with its bytes."""
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((home / folder).glob("[!.]*"))
    }


def start(repository: Path, script: str, home: Path, num_workers: int) -> subprocess.Popen[str]:
    """Starts a step in ``home``."""
    return subprocess.Popen(
        [sys.executable, str(repository / script), "--num_workers", str(num_workers)],
        cwd=home,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cases_in(folder: Path) -> int:
    """How many cases the ledger in ``folder`` has."""
    ledger = folder / LEDGER
    return sum(line != b"" for line in ledger.read_bytes().splitlines()) if ledger.exists() else 0


def wait_for_a_case(process: subprocess.Popen[str], folder: Path) -> None:
    """Until the first case is finished."""
    deadline = time.monotonic() + 120
    while not cases_in(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that ``process`` started (Linux)."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "data_name",
    ["MosMed", "MRNet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ACDC", "TUSC"))],
)
def test_killed_and_continued_by_four_workers_gives_the_same_bytes(
    data_name, finished, phantom, writers, repository, run_script
):
    home = phantom(data_name)
    for script, folders in writers[data_name].items():
        process = start(repository, script, home, num_workers=2)
        wait_for_a_case(process, home / folders[0])
        helpers = children(process)
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        deadline = time.monotonic() + 60
        while not all(map(gone, helpers)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(helpers) >= 2 and all(map(gone, helpers)), (
            "a killed run's workers must not go on beside the next"
        )
        for folder in folders:  # metadata say that a step is finished
            assert not list((home / folder).glob("*_metadata.jsonl"))
        whole = cases_in(home / folders[0])
        with (home / folders[0] / LEDGER).open("ab") as handle:
            handle.write(b'\n{"case": "torn", "made')  # as if killed in the middle of a line
        result = run_script(script, "--num_workers", 4, cwd=home)
        assert whole >= 1 and f"{whole} of " in result.stdout and "are finished already" in result.stdout
        expected = contents(finished(data_name), folders)
        assert len(expected) > 4 and contents(home, folders) == expected
        assert not [path for folder in folders for path in (home / folder).glob(".unfinished-*")]


def test_two_runs_at_once(finished, phantom, repository, run_script):
    """The second is refused at once, and the first does not notice."""
    home, script = phantom("MosMed"), "MosMedData/extract_all_slices.py"
    process = start(repository, script, home, num_workers=1)
    wait_for_a_case(process, home / "MosMed_all_slices")
    process.send_signal(signal.SIGSTOP)  # so that it is in the middle for sure
    try:
        assert "another run is writing" in run_script(script, cwd=home, code=2).stderr
    finally:
        process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert contents(home, ("MosMed_all_slices",)) == contents(finished("MosMed"), ("MosMed_all_slices",))
