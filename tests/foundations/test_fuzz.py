"""Damaged files of every format: only the one-line error may come out of a loader, and nothing may crash or hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("rounds", "seed"),
    [(16, 0), pytest.param(400, 1, marks=pytest.mark.slow), pytest.param(400, 2, marks=pytest.mark.slow)],
)
def test_only_one_line_errors_come_out_of_the_loaders(tmp_path, rounds, seed):
    command = [
        sys.executable,
        str(Path(__file__).with_name("fuzz_loaders.py")),
        str(tmp_path),
        str(rounds),
        str(seed),
    ]
    with (tmp_path / "stderr").open("w") as errors:
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    last = sorted((tmp_path / "now").glob("*")) if (tmp_path / "now").exists() else []
    assert run.returncode == 0, (lines, last, (tmp_path / "stderr").read_text()[-2000:])
    count = lines.pop()
    assert not lines
    assert count["read"] > 35 * rounds and count["refused"] > 0.4 * count["read"]
