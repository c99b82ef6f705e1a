"""Shared by all tests: the ``--slow`` switch and a way to run the real scripts as a user does."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow cases too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository root, where the scripts are."""
    return ROOT


@pytest.fixture(scope="session")
def run_script():
    """``run_script("generate.py", "--flag", ..., cwd=folder)``: runs a script by path, returns the CompletedProcess.

    Fails the test unless the exit code is ``code`` (None: any).
    """

    def run(script, *arguments, cwd, code=0, timeout=300, env=None):
        result = subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"OMP_NUM_THREADS": "2", **os.environ, **(env or {})},
        )
        if code is not None and result.returncode != code:
            pytest.fail(
                f"{script} exited with {result.returncode}, expected {code}\n--- stdout\n{result.stdout[-3000:]}"
                f"\n--- stderr\n{result.stderr[-3000:]}"
            )
        return result

    return run


@pytest.fixture(scope="session")
def on_two_nodes():
    """``on_two_nodes(["VAE-Seq.py", "--flag", ...], ..., cwd=folder)``: scripts with ``--cluster`` on two Ray nodes.

    They stand in a network namespace that has nothing but loopback. Returns the CompletedProcess of all of them.
    """
    pytest.importorskip("ray")
    if not shutil.which("unshare") or os.geteuid() != 0:
        pytest.skip("needs a network namespace")

    def run(*commands, cwd):
        told = json.dumps([[str(ROOT / script), *map(str, arguments)] for script, *arguments in commands])
        inside = f'ip link set lo up && exec "{sys.executable}" "{ROOT / "tests/foundations/on_two_nodes.py"}" "$0"'
        result = subprocess.run(
            ["unshare", "--net", "sh", "-c", inside, told],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=1800,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result

    return run


@pytest.fixture(scope="session")
def call_script():
    """Like `run_script`, in this process: the same script without the seconds that a Python and its libraries take.

    For the second case of a script on; the first one belongs to `run_script`. An exception that the script lets
    through fails the test.
    """

    def call(script, *arguments, cwd, code=0, env=None):
        command, out, err = [str(ROOT / script), *map(str, arguments)], io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(cwd))
            stack.enter_context(mock.patch.object(sys, "argv", command))
            stack.enter_context(mock.patch.dict(os.environ, env or {}))
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            try:
                runpy.run_path(command[0], run_name="__main__")
                ended = 0
            except SystemExit as end:
                ended = end.code or 0
        if code is not None and ended != code:
            pytest.fail(
                f"{script} ended with {ended}, expected {code}\n--- stdout\n{out.getvalue()[-3000:]}"
                f"\n--- stderr\n{err.getvalue()[-3000:]}"
            )
        return subprocess.CompletedProcess(command, ended, out.getvalue(), err.getvalue())

    return call
