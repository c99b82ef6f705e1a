"""A short base training, by its own command, sees steering appear."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from augment.demo.weights import BASE
from ctrlgenaug.folders import check_sums


def last(path):
    return float(path.read_text().split()[-1])


@pytest.mark.slow
def test_a_short_base_training_comes_to_follow_its_prior(tmp_path, repository):
    command = [sys.executable, "-m", "augment.demo.base", "--short"]
    command += ["--scratch", str(tmp_path / "scratch"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    run = tmp_path / "scratch" / "runs" / "image"
    figures = {kind: last(run / f"test_{kind}_850.txt") for kind in ("own", "other", "none")}
    assert figures["own"] < 0.85 * figures["other"], figures  # of patients that it never saw
    assert figures["own"] < figures["none"] < 0.7, figures
    check_sums(tmp_path / "out")
    names = {path.relative_to(BASE).as_posix() for path in BASE.rglob("*") if path.is_file()}
    assert names == {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
