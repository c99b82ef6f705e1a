"""reproduce.sh from nothing to its table, again at no cost; the table's arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from clip_home import make_home, make_synthetic

from ctrlgenaug.classifiers.table import collect, markdown, summarise_runs
from ctrlgenaug.errors import UserError


def result(value, rare=None):
    figures = {"accuracy": value, "balanced_accuracy": value, "macro_f1": value, "auc": None}
    figures["per_class"] = {
        "CT-0": {"count": 8, "sensitivity": value},
        "CT-234": {"count": 2, "sensitivity": rare},
    }
    return {"test": {"patient": figures, "clip": figures}}


def test_mean_deviation_and_paired_gain():
    runs = {
        ("i3d", "joint"): {0: result(0.70, 0.5), 1: result(0.90, 1.0), 7: result(0.5, 0.0)},
        ("i3d", "baseline"): {0: result(0.60, 0.5), 1: result(0.85, 0.0)},
    }
    rows = summarise_runs(runs)
    assert [row["setting"] for row in rows] == ["baseline", "joint"]
    joint = rows[1]["accuracy"]
    assert joint["mean"] == pytest.approx(70) and joint["deviation"] == pytest.approx(20)
    assert joint["gain"] == pytest.approx(7.5) and joint["gain_deviation"] == pytest.approx(12.5**0.5)
    assert rows[0]["accuracy"]["gain"] is None and rows[1]["auc"]["mean"] is None
    rare = rows[1]["sensitivity"]["CT-234"]
    assert rare["count"] == 2 and rare["mean"] == pytest.approx(50) and rare["deviation"] == pytest.approx(50)
    assert rare["gain"] == pytest.approx(50) and rare["gain_deviation"] == pytest.approx(5000**0.5)
    text = markdown(rows, "patient")
    assert "| classifier | setting | seeds | CT-0, n = 8 | CT-234, n = 2 |" in text
    assert "| i3d | baseline | 2 | 72.5 ± 17.7 | 25.0 ± 35.4 |" in text
    assert "| i3d | joint | 3 | 70.0 ± 20.0 (+7.5 ± 3.5) | 50.0 ± 50.0 (+50.0 ± 70.7) |" in text
    assert "| i3d | joint | 3 | 70.0 ± 20.0 | 70.0 ± 20.0 | 70.0 ± 20.0 | – | +7.5 ± 3.5 |" in text


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        collect(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        ["baseline"],
        pytest.param(
            ["baseline", "joint_filtered", "pretrain_finetune_filtered"], marks=pytest.mark.slow
        ),  # seven starts of Python
    ],
)
def test_the_script_runs_what_is_given_and_skips_what_is_done(tmp_path, repository, settings):
    root = make_home(tmp_path, train=2, test=1, clips=1)
    make_synthetic(root, root / "filtered", each=1)
    command = ["bash", repository / "reproduce.sh", "MosMed", "--classifiers", "tiny", "--seeds", "0"]
    command += ["--filtered", "filtered"] if len(settings) > 1 else []
    command += ["--output", "out"]
    command += ["--", "--input_size", "32", "--epochs", "1", "--device", "cpu", "--validation_fraction", "0"]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}

    def run():
        return subprocess.run(
            list(map(str, command)),
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=280,
        )

    first = run()
    assert first.stdout.strip().endswith(f"table of {len(settings)} runs in out/table.md")
    rows = json.loads((root / "out/table.json").read_text())
    assert [row["setting"] for row in rows] == settings
    before = {path: path.stat().st_mtime_ns for path in root.glob("out/tiny/*/*/classifier.pth")}
    assert len(before) == len(settings)
    assert run().stdout.count("was finished already") == len(settings)
    assert before == {path: path.stat().st_mtime_ns for path in before}

    wrong = subprocess.run(
        ["bash", str(repository / "reproduce.sh"), "MosMed", "--seedz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2 and "unknown option --seedz" in wrong.stderr
