"""Exact resume, any number of processes, signals, losses that are not finite: the real loop on a toy model."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from cond2img.config import LDMConfig, VAEConfig
from cond2video.config import SequenceConfig
from ctrlgenaug import steps
from ctrlgenaug.errors import UserError
from ctrlgenaug.training import cli, loader, settings
from ctrlgenaug.training.records import Records

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import toy as toy_module  # noqa: E402

LAUNCHER = HERE.parents[1] / "scripts" / "launch.py"
STEPS = 12
SETTINGS = (
    *(f"max_train_steps={STEPS}", "train_batch_size=3", "gradient_accumulation_steps=2"),
    *("tracker=null", "checkpointing_steps=2", "checkpoints_to_keep=9", "log_steps=3", "lr_warmup_steps=3"),
    *("dataloader_num_workers=0", "validation_steps=4", "schedule_batch_size=6"),
)


def toy(cwd, *overrides, code=0, processes=1, **environment):
    """Runs toy.py in ``cwd``; returns its output."""
    cwd.mkdir(exist_ok=True)
    command = [sys.executable]
    if processes > 1:
        (cwd / "toy.yaml").write_text("output_dir: run\n")
        command += [str(LAUNCHER), str(HERE / "toy.py"), "toy.yaml"]
        environment |= {"NUM_PROCESSES": str(processes)}
    else:
        command += [str(HERE / "toy.py")]
    result = subprocess.run(
        [*command, *SETTINGS, *overrides],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == code, result.stderr[-3000:]
    return result.stdout + result.stderr


def weights(cwd, step=STEPS):
    return load_file(cwd / "run" / f"checkpoint-{step}" / "unet" / "model.safetensors")


def stats(cwd):
    rows = [json.loads(line) for line in (cwd / "run" / "stats.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("samples_per_s", "peak_memory_gb")} for row in rows]


def assert_same_run(one, other):
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert stats(one) == stats(other)
    for name in ("train_loss.txt", "test_offset.txt", "config.yaml"):
        assert (one / "run" / name).read_text() == (other / "run" / name).read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("uninterrupted")
    toy(cwd)
    return cwd


def test_killed_at_three_random_points_ends_bit_for_bit_equal(uninterrupted, tmp_path):
    # 24 micro-batches in all, a checkpoint every 4: a kill at an odd one is in the middle of an accumulation
    chosen = random.Random(os.environ.get("PYTEST_SEED", "training"))
    # the first kill is before the first checkpoint: the records start over as well
    for kill_at in (1, *(chosen.choice([5, 6, 7, 9]) for _ in range(3))):
        toy(tmp_path, code=-signal.SIGKILL, TOY_KILL_AT=str(kill_at))
    newest = max((tmp_path / "run").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    state = newest / "training_state.pt"
    state.write_bytes(state.read_bytes()[:-100])  # what a dying disk leaves
    output = toy(tmp_path)
    assert f"damaged checkpoint not used: {Path('run') / newest.name}" in output
    assert "continuing from" in output
    assert_same_run(uninterrupted, tmp_path)


def test_balanced_classes_resume_exactly_and_belong_to_the_run(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ("balance_classes=true", "max_train_steps=null", "num_train_epochs=2", "train_batch_size=4")
    # 8 and 2 samples are 16 an epoch: two of them are 4 steps of 2 x 4
    told = toy(whole, *settings)
    assert "10 samples, every class equally often: 16 an epoch" in told and "2.0 epochs" in told
    assert json.loads((whole / "run" / "stats.jsonl").read_text().splitlines()[-1])["samples"] == 32
    toy(killed, *settings, code=-signal.SIGKILL, TOY_KILL_AT="6")
    toy(killed, *settings)
    a, b = weights(whole, 4), weights(killed, 4)
    assert all(torch.equal(a[name], b[name]) for name in a)
    refused = toy(killed, *settings[1:], code=2)
    assert "balance_classes: True, now False" in refused


def test_the_run_folder_tells_the_story(uninterrupted):
    run = uninterrupted / "run"
    rows = stats(uninterrupted)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert all({"loss", "lr", "grad_norm", "samples", "offset"} <= row.keys() for row in rows)
    assert [row["samples"] for row in rows] == [18, 36, 54, 72]
    assert (run / "loss_curve.png").stat().st_size > 1000
    assert [json.loads(line)["step"] for line in (run / "validated.jsonl").read_text().splitlines()] == [
        4,
        8,
        12,
    ]
    assert "saved run/checkpoint-12" in (run / "log.txt").read_text()
    assert "lr_warmup_steps: 3" in (run / "config.yaml").read_text()


def test_two_processes_equal_one_and_one_stop_request_stops_both(tmp_path):
    # global batch 12 on both; the stop request reaches one process of two, the run goes on with one
    one, two = tmp_path / "one", tmp_path / "two"
    settings = ("dropout=0", "log_steps=1", "schedule_batch_size=12")
    toy(one, *settings, "train_batch_size=6")
    output = toy(two, *settings, "checkpointing_steps=100", processes=2, code=143, TOY_TERM_AT="10")
    assert "stopped on request at step 5" in output
    assert "Traceback" not in output
    assert (two / "run" / "checkpoint-5").is_dir()
    toy(two, *settings, "train_batch_size=6")
    rows = list(zip(stats(one), stats(two), strict=True))
    assert len(rows) == STEPS
    for a, b in rows:
        assert a["lr"] == pytest.approx(b["lr"], rel=1e-6)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4), a["step"]
    a, b = weights(one), weights(two)
    # BatchNorm's statistics among them. The bias before it has no gradient but rounding, which Adam magnifies.
    for name in a.keys() - {"layers.0.bias"}:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5)


def test_an_error_of_all_processes_is_told_once(tmp_path):
    output = toy(tmp_path, "resume_from_checkpoint=checkpoint-7", processes=2, code=2)
    assert output.count("error:") == 1 and "checkpoint-7/manifest.json: does not exist" in output
    assert "Traceback" not in output


@pytest.fixture
def train_here(monkeypatch):
    """Trains the toy in this process, which saves the seconds of an import; signal handlers are put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}

    def train(cwd, nan_at="", **fields):
        cwd.mkdir(exist_ok=True)
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("TOY_NAN_AT", nan_at)
        settings = {"output_dir": "run", "max_train_steps": 6, "train_batch_size": 3, "tracker": None}
        settings |= {
            "gradient_accumulation_steps": 2,
            "dataloader_num_workers": 0,
            "checkpointing_steps": 100,
        }
        return cli.train(toy_module.ToyConfig(**{**settings, **fields}), toy_module.ToyStage)

    yield train
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_one_bad_batch_is_skipped_two_in_a_row_stop_with_their_names(tmp_path, train_here):
    assert train_here(tmp_path / "one", nan_at="5") == 0
    log = (tmp_path / "one" / "run" / "log.txt").read_text()
    assert "step 3 skipped: the loss is nan; batch: toy" in log
    for value in weights(tmp_path / "one", step=6).values():
        assert torch.isfinite(value).all()
    with pytest.raises(UserError, match=r"step 4.*batch: toy\d\d, toy"):
        train_here(tmp_path / "two", nan_at="5,7")


def test_a_new_run_does_not_mix_with_an_old_one(tmp_path, train_here):
    train_here(tmp_path)
    with pytest.raises(UserError, match="another run"):
        train_here(tmp_path, resume_from_checkpoint=None)


def test_a_finished_run_does_nothing_more(tmp_path, train_here):
    train_here(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("checkpoint-*/*/*")}
    train_here(tmp_path)
    assert "step 6 of 6" in (tmp_path / "run" / "log.txt").read_text()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("checkpoint-*/*/*")}


def test_another_batch_size_goes_on_at_the_same_sample(tmp_path, train_here):
    # 60 samples, 6 a step
    train_here(tmp_path, max_train_steps=None, num_train_epochs=6, checkpointing_steps=5)
    run = tmp_path / "run"
    shutil.rmtree(run / "checkpoint-10")
    train_here(tmp_path, max_train_steps=None, num_train_epochs=6, train_batch_size=1)
    assert (run / "checkpoint-20").is_dir()  # 30 samples in 5 steps of 6, then 30 in 15 steps of 2
    assert json.loads((run / "stats.jsonl").read_text().splitlines()[-1])["samples"] == 60


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"learning_rate": 1e-3}, "learning_rate: 0.0001, now 0.001"),
        ({"seed": 1}, "seed: 3407, now 1"),
        ({"dropout": 0.2}, "dropout: 0.1, now 0.2"),
        ({"lr_scheduler": "linear", "adam_beta1": 0.5}, "lr_scheduler: cosine, now linear; adam_beta1: 0.9, now 0.5"),
        ({"ema": True}, "ema: False, now True"),
    ],
)  # fmt: skip
def test_a_begun_or_finished_run_refuses_other_settings(tmp_path, train_here, changed, named):
    train_here(tmp_path)
    config = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UserError, match=re.escape(named)):
        train_here(tmp_path, **changed)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == config


def test_a_run_goes_on_with_other_records_and_for_longer(tmp_path, train_here):
    train_here(tmp_path)
    train_here(tmp_path, max_train_steps=8, log_steps=1, checkpointing_steps=7, validation_steps=50)
    assert (tmp_path / "run" / "checkpoint-8").is_dir()
    assert "note: max_train_steps: 6, now 8" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize("schema", [VAEConfig, LDMConfig, SequenceConfig])
def test_what_is_measured_and_shown_may_change_in_any_stage(tmp_path, schema):
    """No field that is about validation or records alone may hold a run back."""
    (tmp_path / "checkpoint-1").mkdir()
    given = {"data_name": "MosMed", "pretrained_model_path": "weights", "output_dir": str(tmp_path)}
    OmegaConf.save(OmegaConf.structured(schema(**given)), tmp_path / "config.yaml")
    shown = [
        field.name
        for field in fields(schema)
        if re.match("validation_|steering_|log_|checkpoint", field.name)
    ]
    changed = {name: getattr(schema(**given), name) for name in shown}
    others = {int: lambda value: value + 1, list: lambda value: ["study_0001_slice01"]}
    changed = {name: others[type(value)](value) for name, value in changed.items() if type(value) in others}
    assert {"validation_steps", "log_steps"} <= set(changed)
    assert settings.differences(schema(**given, **changed), tmp_path) == {}
    assert settings.differences(schema(**given, learning_rate=1.0), tmp_path) == {
        "learning_rate": f"{schema(**given).learning_rate}, now 1.0"
    }


def test_other_samples_are_refused(tmp_path, train_here, monkeypatch):
    train_here(tmp_path)
    monkeypatch.setattr(toy_module.ToyData, "fingerprint", lambda self: "others")
    with pytest.raises(UserError, match="other samples"):
        train_here(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_one_line(tmp_path, train_here, monkeypatch, workers):
    monkeypatch.setenv("TOY_BAD_SAMPLE", "7")
    with pytest.raises(UserError, match="sample 7 cannot be read: OSError: no such slice") as caught:
        train_here(tmp_path, dataloader_num_workers=workers)
    assert "\n" not in str(caught.value)


def test_a_killed_worker_is_one_line():
    message = "DataLoader worker (pid 5) is killed by signal: Bus error. Workers may be out of memory.\nx"
    with (
        pytest.raises(UserError, match="was killed.*Bus error.*dataloader_num_workers=0") as caught,
        cli.told_once(),
    ):
        raise RuntimeError(message)
    assert "\n" not in str(caught.value)


def test_a_lost_connection_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="another process of this training is gone"), cli.told_once():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:4321\nmore")


def test_little_shared_memory_means_fewer_workers(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 64e6})
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda path: usage)
    records = Records(tmp_path)
    assert loader.affordable_workers(4, 1_000_000, records) == 4
    assert loader.affordable_workers(4, 10_000_000, records) == 2
    assert loader.affordable_workers(4, 268_000_000, records) == 0
    assert "--shm-size" in (tmp_path / "log.txt").read_text()


def test_a_full_disk_at_a_checkpoint_is_one_line(tmp_path, train_here, monkeypatch):
    def full(*arguments, **named):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed") from OSError(
            28, ""
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        train_here(tmp_path)
    assert "the disk is full" in steps.describe(caught.value)
    assert not list((tmp_path / "run").glob("*unfinished*"))


@pytest.mark.parametrize(("step", "validation"), [(8, 4), (STEPS, 5)])
def test_killed_between_a_checkpoint_and_the_figures_of_its_step(tmp_path, uninterrupted, step, validation):
    toy(tmp_path, f"validation_steps={validation}", TOY_KILL_AFTER_CHECKPOINT=str(step), code=-signal.SIGKILL)
    assert f"Iter{step}-" not in (tmp_path / "run" / "test_offset.txt").read_text()
    toy(tmp_path, f"validation_steps={validation}")
    figures = (tmp_path / "run" / "test_offset.txt").read_text()
    if validation == 4:
        assert_same_run(tmp_path, uninterrupted)
    assert figures.count(f"Iter{step}-") == 1
    toy(tmp_path, f"validation_steps={validation}")  # finished: nothing is measured twice
    assert (tmp_path / "run" / "test_offset.txt").read_text() == figures


def test_killed_in_the_middle_of_a_validation(tmp_path, uninterrupted):
    toy(tmp_path, TOY_KILL_IN_PICTURES="8", code=-signal.SIGKILL)
    assert "Iter8-" in (tmp_path / "run" / "test_offset.txt").read_text()
    toy(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


def test_figures_of_steps_that_are_trained_again_are_made_again(tmp_path, uninterrupted):
    toy(tmp_path)
    for lost in (10, 12):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{lost}")
    toy(tmp_path, TOY_KILL_AFTER_CHECKPOINT="12", code=-signal.SIGKILL)
    toy(tmp_path)
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stop_asked_for_while_the_processes_agree_is_not_lost(tmp_path, processes):
    """A signal in the moment in which a step's request is settled counts for the next step, in every process."""
    output = toy(tmp_path, TOY_TERM_WHILE_AGREEING="3", code=143, processes=processes)
    assert "stopped on request at step 4" in output
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
