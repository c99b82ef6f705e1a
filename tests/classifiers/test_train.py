"""train_classifier.py as a user runs it, and the loop's exact continuation."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from clip_home import SPEC

from augment import classifiers
from augment.classifiers import clip_items
from augment.classifiers.clip_items import ClipReader
from augment.classifiers.settings import FitSettings, RunSettings
from augment.classifiers.stages import Stage, plan_stages
from augment.classifiers.train import Fit, predict
from augment.classifiers.training_run import train_and_test
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video

COMMON = ("--data_name", "MosMed", "--classifier", "tiny", "--input_size", "32", "--device", "cpu")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def test_the_script_learns_reports_and_is_done_once(root, tmp_path, run_script):
    run = tmp_path / "run"
    command = (*COMMON, "--epochs", "12", "--output_dir", run, "--class_weights", "--balanced_sampling")
    result = run_script("train_classifier.py", *command, cwd=root, env=ONE_THREAD)
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith(f"classifier is in {run}/classifier.pth")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["clip"]["accuracy"] > 0.8
    assert metrics["test"]["clip"]["count"] == 18 and metrics["test"]["patient"]["count"] == 9
    assert metrics["clips"]["train"] == {"CT-0": 10, "CT-1": 10, "CT-234": 10}
    assert metrics["clips"]["validation"] == {"CT-0": 2, "CT-1": 2, "CT-234": 2}
    for name in ("metrics.md", "confusion_matrix.png", "curves.png", "stats.jsonl"):
        assert (run / name).stat().st_size > 0
    assert not (run / "state.pt").exists()

    # the checkpoint gives the very predictions that were reported
    model, info = classifiers.load(run / "classifier.pth")
    assert info["classes"] == list(SPEC.classes) and info["settings"]["fit"]["class_weights"]
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    folder = root / SPEC.home / SPEC.clips_dir
    logits = classifiers.score(model, (read_video(folder / row["file_name"]) for row in rows))
    found = classifiers.probabilities(logits)
    reported = np.array([[float(row[f"p_{cls}"]) for cls in SPEC.classes] for row in rows])
    np.testing.assert_allclose(found, reported, atol=2e-4)

    written = (run / "classifier.pth").stat().st_mtime_ns
    again = run_script("train_classifier.py", *command, cwd=root, env=ONE_THREAD)
    assert "was finished already" in again.stdout and (run / "classifier.pth").stat().st_mtime_ns == written


def test_a_run_belongs_to_its_clips(root, tmp_path):
    """Finished or not, it is not taken for one of other clips under the same path."""
    home = shutil.copytree(root, tmp_path / "home")
    settings = RunSettings(
        classifier="tiny",
        input_size=32,
        epochs=1,
        paradigm="joint",
        synthetic_dirs=(str(home / "synthetic"),),
        fit=FitSettings(max_steps=1),
    )

    def train():
        return train_and_test(SPEC, home / SPEC.home, settings, tmp_path / "run")

    train()
    assert train()["was_there"]
    noted = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert noted["synthetic clips"].startswith("36 files, ") and noted["real clips"].startswith("54 files, ")
    first = sorted((home / "synthetic").glob("*.mp4"))[0]
    first.write_bytes(first.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"synthetic clips: 36 files, \w+ there, 36 files, \w+ now.*--fresh"):
        train()
    shutil.rmtree(home / "synthetic")
    assert train()["was_there"]  # a finished run is one without its clips, too
    old = {key: value for key, value in noted.items() if "clips" not in key}
    (tmp_path / "run" / "settings.json").write_text(json.dumps(old))  # as earlier versions noted it
    assert train()["was_there"]
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(UserError, match="synthetic: is not a folder"):
        train()


def test_a_run_belongs_to_its_clips_classes_splits_and_start(root, tmp_path):
    """Labels that were corrected, clips moved to the other split, classes named in another order, a start that was
    trained again: files and their sizes are the same, and what was learned is not."""
    home = shutil.copytree(root / SPEC.home, tmp_path / "home" / SPEC.home)
    start = tmp_path / "start.pth"
    classifiers.save(start, classifiers.build("tiny", 3, 32), "tiny", SPEC.classes, "MosMed")
    settings = RunSettings(
        classifier="tiny", input_size=32, epochs=1, pretrained=str(start), fit=FitSettings(max_steps=1)
    )

    def train(spec=SPEC):
        return train_and_test(spec, home, settings, tmp_path / "run")

    def refused(said, spec=SPEC):
        with pytest.raises(
            UserError, match=rf"made with other settings \({said}: .* there, .* now; see.*--fresh"
        ):
            train(spec)

    train()
    assert train()["was_there"]
    refused("clips by class", dataclasses.replace(SPEC, classes=SPEC.classes[::-1]))
    metadata = {split: SPEC.metadata_path(home / SPEC.clips_dir, split) for split in ("train", "test")}
    content = {split: path.read_text() for split, path in metadata.items()}
    metadata["train"].write_text(content["train"].replace('"CT-1"', '"CT-0"', 2))
    refused("clips by class")
    lines = content["train"].splitlines(keepends=True)
    metadata["train"].write_text("".join(lines[:-2]))  # the last patient
    metadata["test"].write_text("".join(lines[-2:]) + content["test"])
    refused("clips by class")
    for split, path in metadata.items():
        path.write_text(content[split])
    assert train()["was_there"]
    another = classifiers.build("tiny", 3, 32)
    next(another.parameters()).data += 1
    classifiers.save(start, another, "tiny", SPEC.classes, "MosMed")
    refused("pretrained weights")


def test_joint_and_pretraining(root, tmp_path):
    synthetic = (str(root / "synthetic"),)
    fit = FitSettings(max_steps=3)
    common = {"classifier": "tiny", "input_size": 32, "epochs": 2, "synthetic_dirs": synthetic, "fit": fit}
    joint = train_and_test(
        SPEC,
        root / SPEC.home,
        RunSettings(paradigm="joint", synthetic_ratio=0.5, **common),
        tmp_path / "joint",
    )
    with pytest.raises(UserError, match=r"other settings \(.*paradigm: joint there, baseline now.*--fresh"):
        train_and_test(SPEC, root / SPEC.home, RunSettings(), tmp_path / "joint")
    other = RunSettings(paradigm="joint", synthetic_ratio=0.5, **common | {"fit": FitSettings(max_steps=4)})
    with pytest.raises(UserError, match=r"other settings \(fit.max_steps: 3 there, 4 now; see"):
        train_and_test(SPEC, root / SPEC.home, other, tmp_path / "joint")
    assert joint["clips"]["synthetic"] == {"CT-0": 5, "CT-1": 5, "CT-234": 5}
    assert joint["synthetic_left_out"] == 6  # made from held-out patients' conditions
    train_and_test(
        SPEC, root / SPEC.home, RunSettings(paradigm="pretrain_finetune", **common), tmp_path / "pretrained"
    )
    stages = [json.loads(line) for line in (tmp_path / "pretrained/stats.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in stages] == ["pretrain", "finetune"]
    assert stages[1]["lr"] == pytest.approx(stages[0]["lr"] / 10)


def test_paradigms_say_what_they_need():
    how = {"epochs": 1, "pretrain_epochs": 1, "lr": 1e-3, "finetune_lr": 1e-4}
    with pytest.raises(UserError, match="needs synthetic clips"):
        plan_stages("joint", [1], [], **how)
    with pytest.raises(UserError, match="real clips alone"):
        plan_stages("baseline", [1], [2], **how)
    assert [(s.items, s.lr) for s in plan_stages("pretrain_finetune", [1], [2], **how)] == [
        ([2], 1e-3),
        ([1], 1e-4),
    ]
    assert plan_stages("joint", [1], [2], **how)[0].items == [1, 2]


class Stop(Exception):
    """Ends a run from inside, as a kill would."""


def _fit(root, folder, settings=None, stop_after=None):
    real = clip_items.real_items(SPEC, root / SPEC.home, "train")
    learn, choose = clip_items.hold_out(real, 0.2, 0)
    torch.manual_seed(11)
    model = classifiers.build("tiny", 3, 32)
    folder.mkdir(exist_ok=True)
    rows = []

    def report(row):
        rows.append(row)
        if len(rows) == stop_after:
            raise Stop

    fit = Fit(
        model,
        [Stage("one", learn[::2], 2, 1e-3), Stage("two", learn, 3, 1e-3)],
        choose,
        3,
        settings or FitSettings(seed=4),
        folder,
        {"input_size": 32, "num_frames": 8},
        report,
    )
    try:
        fit.run()
    except Stop:
        return None
    return fit


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """An undisturbed run."""
    torch.set_num_threads(1)
    return _fit(root, tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_a_stopped_run_continues_exactly(root, whole, tmp_path, stop_after):
    assert _fit(root, tmp_path / "parts", stop_after=stop_after) is None
    parts = _fit(root, tmp_path / "parts")
    for key, value in whole.model.weights().items():
        torch.testing.assert_close(parts.model.weights()[key], value, rtol=0, atol=0, msg=key)

    def without_time(rows):
        return [{key: value for key, value in row.items() if key != "clips_per_second"} for row in rows]

    assert without_time(parts.progress.rows) == without_time(whole.progress.rows)


def test_the_best_epoch_is_what_remains(root, whole):
    rows = [row for row in whole.progress.rows if row["stage"] == "two"]
    best = max(rows, key=lambda row: (row["validation_balanced_accuracy"], -row["validation_loss"]))
    assert whole.progress.best_epoch == best["epoch"]
    reader = ClipReader(
        clip_items.hold_out(clip_items.real_items(SPEC, root / SPEC.home, "train"), 0.2, 0)[1], 32, 8
    )
    labels, logits = predict(whole.model, reader, "cpu", 4)
    found = classifiers.probabilities(logits)
    assert -np.log(found[np.arange(len(labels)), labels]).mean() == pytest.approx(
        best["validation_loss"], rel=1e-3
    )


def test_patience_ends_a_stage(root, tmp_path):
    # with a learning rate of 0 nothing but batch statistics changes, so an early epoch stays the best
    real = clip_items.real_items(SPEC, root / SPEC.home, "train")
    learn, choose = clip_items.hold_out(real, 0.2, 0)
    model = classifiers.build("tiny", 3, 32)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            layer.momentum = 0.0
    settings = FitSettings(patience=2)
    stage = Stage("real", learn[::4], 30, 0.0)
    fit = Fit(
        model, [stage], choose, 3, settings, tmp_path, {"input_size": 32, "num_frames": 8}, lambda row: None
    )
    assert len(fit.run().rows) == 3


def test_class_weights_and_balanced_order():
    fit = Fit.__new__(Fit)
    fit.settings, fit.num_classes, fit.device = (
        FitSettings(class_weights=True, balanced_sampling=True),
        3,
        "cpu",
    )
    labels = np.array([0] * 90 + [1] * 10)
    np.testing.assert_allclose(fit._loss(labels).class_weights, [100 / 180, 100 / 20, 0], rtol=1e-6)
    drawn = labels[np.concatenate([fit._order(labels, (0, 0, epoch)) for epoch in range(50)])]
    assert 0.45 < drawn.mean() < 0.55


def test_bad_input_is_one_line(root, tmp_path, run_script):
    def fails(*arguments):
        result = run_script("train_classifier.py", *arguments, cwd=root, code=2, env=ONE_THREAD)
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
        return result.stderr

    assert "Did you mean MosMed" in fails("--data_name", "MosMedd")
    assert "Run the step that writes it first" in fails("--data_root", str(tmp_path))
    with pytest.raises(UserError, match="--epochs 0 is out of range"):
        RunSettings(epochs=0)
    with pytest.raises(UserError, match="needs synthetic clips"):
        train_and_test(SPEC, root / SPEC.home, RunSettings("tiny", "joint", input_size=32), tmp_path / "x")


def test_a_damaged_state_says_what_to_do(root, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="Delete it to start over"):
        _fit(root, tmp_path / "run")
