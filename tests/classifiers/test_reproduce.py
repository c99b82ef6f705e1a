"""What reproduce.sh runs, that a killed series continues to the same table, and the table's arithmetic."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from clip_home import make_home, make_synthetic

from augment.classifiers.table import collect, markdown, summarise_runs
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


STAND_IN = """#!/usr/bin/env bash
# A Python whose train_classifier.py only notes how it was called and leaves a result.
case $1 in
    */train_classifier.py)
        shift; echo "$*" >>calls
        while [ "$1" != --output_dir ]; do shift; done
        mkdir -p "$2" && cp result.json "$2/metrics.json" ;;
    *) exec {python} "$@" ;;
esac
"""


def test_what_the_script_runs(tmp_path, repository):
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    (tmp_path / "result.json").write_text(json.dumps(result(0.5, 0.25)))

    def reproduce(*arguments, code=0):
        done = subprocess.run(
            ["bash", str(repository / "reproduce.sh"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(python)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    flags = ("--classifiers", "i3d swin", "--seeds", "3 4", "--synthetic", "all clips", "--output", "out")
    last = reproduce("TUSC", *flags, "--data_root", "d", "--", "--epochs", "2").stdout.splitlines()[-1]
    assert last == "table of 12 runs in out/table.md"
    common = "--data_name TUSC --data_root d --classifier"
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"{common} {name} --seed {seed} --paradigm {paradigm}{clips} --output_dir "
        f"out/{name}/{paradigm}/seed_{seed} --epochs 2"
        for name in ("i3d", "swin")
        for seed in (3, 4)
        for paradigm, clips in (
            ("baseline", ""),
            ("joint", " --synthetic_dir all clips"),
            ("pretrain_finetune", " --synthetic_dir all clips"),
        )
    ]
    rows = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["setting"] for row in rows] == ["baseline", "joint", "pretrain_finetune"] * 2
    assert rows[1]["sensitivity"]["CT-234"]["mean"] == 25 and rows[1]["sensitivity"]["CT-234"]["gain"] == 0
    assert "unknown option --seedz" in reproduce("MosMed", "--seedz", code=2).stderr
    assert "--seeds needs numbers" in reproduce("MosMed", "--seeds", code=1).stderr


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_table(tmp_path, repository):
    """Two seeds, three settings: killed in the midst of a run, twice; compared with an undisturbed series."""
    root = make_home(tmp_path, train=3, test=2, clips=1)
    make_synthetic(root, root / "filtered", each=1)
    log = (root / "log").open("w+")

    def command(output):
        flags = ("--classifiers", "tiny", "--seeds", "0 1", "--filtered", "filtered", "--output", output)
        training = (
            "--input_size",
            "32",
            "--epochs",
            "6",
            "--patience",
            "0",
            "--device",
            "cpu",
            "--num_threads",
            "1",
        )
        return ["bash", str(repository / "reproduce.sh"), "MosMed", *flags, "--", *training]

    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    common = {"cwd": root, "env": environment, "text": True}

    def finished(output):
        return {path: path.stat().st_mtime_ns for path in (root / output).glob("tiny/*/*/classifier.pth")}

    def kill_during(run):
        """Starts the series and kills all of it when ``run`` has state on disk but no result."""
        process = subprocess.Popen(command("out"), stdout=log, stderr=log, start_new_session=True, **common)
        state = root / "out/tiny" / run / "state.pt"
        while not state.is_file():
            assert process.poll() is None, f"{run} was never in the midst of its training"
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (state.parent / "metrics.json").exists()

    kill_during("pretrain_finetune_filtered/seed_0")
    done = finished("out")
    assert len(done) == 2
    kill_during("joint_filtered/seed_1")
    assert len(finished("out")) == 4 and done.items() <= finished("out").items()
    done = finished("out")
    again = subprocess.run(command("out"), capture_output=True, check=True, **common)
    assert again.stdout.count("was finished already") == 4  # the others were made or continued
    assert len(finished("out")) == 6 and done.items() <= finished("out").items()
    subprocess.run(command("undisturbed"), capture_output=True, check=True, **common)
    for name in ("table.md", "table.json"):
        assert (root / "out" / name).read_text() == (root / "undisturbed" / name).read_text()
    rows = json.loads((root / "out/table.json").read_text())
    assert [(row["setting"], row["seeds"]) for row in rows] == [
        ("baseline", [0, 1]),
        ("joint_filtered", [0, 1]),
        ("pretrain_finetune_filtered", [0, 1]),
    ]
