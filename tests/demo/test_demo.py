"""The demo's whole chain, by its own command, and the page it ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = 16


def quick_demo(folder: Path, repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CTRLGENAUG_ENV": "active",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["bash", str(repository / "demo.sh"), "--quick", "--out", "out", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.mark.slow
def test_quick_demo_runs_and_continues(tmp_path, repository):
    first = quick_demo(tmp_path, repository)
    assert first.returncode == 0, first.stderr[-3000:]
    out = tmp_path / "out"
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert "there is no picture" not in page and "Made by" not in page  # nothing is missing
    assert "finds the requested class in" in first.stdout
    assert page.index("What the conditions do") < page.index("Wanted and found") < page.index("Class control")
    assert "own image prior retrieved" in first.stdout
    assert len((out / "steps.tsv").read_text().splitlines()) == STEPS
    clips = {path: path.read_bytes() for path in out.glob("sequence_model_MosMed/*/*.mp4")}
    assert len(clips) == 3

    next(iter(clips)).unlink()
    again = quick_demo(tmp_path, repository)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "1 clips made, 2 were there already" in again.stdout
    assert {path: path.read_bytes() for path in out.glob("sequence_model_MosMed/*/*.mp4")} == clips


@pytest.mark.slow
@pytest.mark.parametrize("data_name", ["MRNet", "ACDC", "TUSC"])
def test_quick_demo_of_the_other_data_sets(tmp_path, repository, data_name):
    run = quick_demo(tmp_path, repository, "--data_name", data_name)
    assert run.returncode == 0, run.stderr[-3000:]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "there is no picture" not in page and "Made by" not in page  # nothing is missing
    assert "finds the requested class in" in run.stdout


def test_unknown_option_is_named(tmp_path, repository):
    result = subprocess.run(
        ["bash", str(repository / "demo.sh"), "--fast"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "unknown option --fast" in result.stderr
    assert not list(tmp_path.iterdir())


def test_unknown_data_set_is_named(tmp_path, repository):
    result = subprocess.run(
        ["bash", str(repository / "demo.sh"), "--data_name", "Brain"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "no demo of the data set Brain. Choose MosMed" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [("--seed", "x"), ("--seed", "-1"), ("--seed", "4294967296"), ("--seed",), ("--out",)]
)
def test_a_wrong_value_is_one_line_and_makes_nothing(wrong, tmp_path, repository):
    result = quick_demo(tmp_path, repository, *wrong)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {wrong[0]} needs a ") and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_refused_first_step_leaves_the_record_of_the_run_before(tmp_path, repository):
    (tmp_path / "out").mkdir()
    record = tmp_path / "out" / "steps.tsv"
    record.write_text("phantom patients\t1.0\tmade\tpython\n")
    summed = subprocess.check_output(
        ["cksum"], input=(repository / "pyproject.toml").read_bytes(), text=False
    )
    (tmp_path / ".ctrlgenaug-installed").write_text(f"{repository} {summed.decode()}")
    python = tmp_path / "python"  # finds everything installed, and refuses every step
    python.write_text(f'#!/bin/sh\n[ "$1" != -m ] || exit 2\necho "{tmp_path}"\n')
    python.chmod(0o755)
    result = subprocess.run(
        ["bash", str(repository / "demo.sh"), "--quick", "--out", "out"],
        cwd=tmp_path,
        env={**os.environ, "CTRLGENAUG_ENV": "active", "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1 and 'the step "phantom patients" failed' in result.stderr
    assert record.read_text().startswith("phantom patients")
