"""reproduce.sh: which arms it runs with which settings, that a killed series continues to the same table, the table."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from clip_home import SPEC, make_home, make_synthetic

from augment.classifiers.settings import FitSettings, RunSettings
from augment.comparison import __main__ as command
from augment.comparison import runs
from augment.comparison.arms import ARMS, BEST_RIVAL, BY_NAME, GROUPS, choose, rare_class, settings_of
from augment.comparison.arms import main as arms_main
from augment.comparison.few_patients import make_home as make_few
from augment.comparison.runs import best_rival, collect
from augment.comparison.table import markdown, summarise
from ctrlgenaug.errors import UserError

CLASSES = ("CT-0", "CT-1", "CT-234")


def result(arm, seed, right, classifier="tiny", rare=6, agreement=None):
    """A row of results.jsonl: 4 test patients a class, of which the first ``right[c]`` of class c are got right."""
    labels = [c for c in range(3) for _ in range(4)]
    probabilities = []
    for index, label in enumerate(labels):
        seen = label if index % 4 < right[label] else (label + 1) % 3
        probabilities.append([0.8 if c == seen else 0.1 for c in range(3)])
    return {
        "classifier": classifier, "arm": arm, "seed": seed, "patients": {"CT-1": rare}, "rare_class": "CT-1",
        "classes": list(CLASSES), "clips": {"train": {"CT-0": 30, "CT-1": rare, "CT-234": 30}},
        "test": {"patients": [f"p{i}" for i in range(12)], "labels": labels, "probabilities": probabilities},
        "agreement": agreement or {},
    }  # fmt: skip


# --- the table of arms -------------------------------------------------------------------------------------------


def test_every_arm_is_named_once_and_belongs_somewhere():
    assert len(BY_NAME) == len(ARMS) and {arm.group for arm in ARMS} == set(GROUPS)
    assert [arm.name for arm in choose(["ceiling", "focal"])] == ["baseline", "focal", "real_x2", "real_x4"]
    assert choose(["all"]) == list(ARMS)
    with pytest.raises(UserError, match="'focale' is no arm"):
        choose(["focale"])


def test_what_an_arm_changes():
    base = RunSettings("x", patients={"CT-0": 30, "CT-1": 6}, fit=FitSettings(steps=50, seed=9))
    plain = settings_of(BY_NAME["baseline"], base, "tiny", 3, {})
    assert plain == dataclasses.replace(base, classifier="tiny", fit=FitSettings(steps=50, seed=3))
    focal = settings_of(BY_NAME["focal"], base, "tiny", 3, {})
    assert focal == dataclasses.replace(plain, fit=dataclasses.replace(plain.fit, focal_gamma=2.0))
    assert settings_of(BY_NAME["real_x4"], base, "tiny", 3, {}).patients == {"CT-0": 30, "CT-1": 24}
    joint = settings_of(BY_NAME["joint_semantic"], base, "tiny", 3, {"semantic": "folder"})
    assert (joint.paradigm, joint.synthetic_dirs) == ("joint", ("folder",)) and joint.fit == plain.fit
    both = settings_of(BY_NAME[BEST_RIVAL], base, "tiny", 3, {"filtered": "f"}, BY_NAME["oversampled"])
    assert both.fit.balanced_sampling and both.paradigm == "joint"
    for name, why in (("joint", "needs unfiltered clips"), (BEST_RIVAL, "no rival has run")):
        with pytest.raises(UserError, match=why):
            settings_of(BY_NAME[name], base, "tiny", 3, {})
    with pytest.raises(UserError, match="rare class"):
        settings_of(BY_NAME["real_x2"], RunSettings(), "tiny", 3, {})
    assert rare_class({"a": 5, "b": 2}) == "b" and rare_class({}) is None


def test_the_best_rival_is_chosen_on_validation_clips(tmp_path):
    def run(arm, seed, validation, test):
        folder = tmp_path / arm / f"seed_{seed}"
        folder.mkdir(parents=True)
        found = {"validation": {"patient": {"balanced_accuracy": validation, "auc": 0.5}}}
        found["test"] = {"patient": {"balanced_accuracy": test}}
        (folder / "metrics.json").write_text(json.dumps(found))

    assert best_rival(tmp_path) is None
    run("baseline", 0, 1.0, 1.0)  # no rival
    run("mixup", 0, 0.8, 0.2)
    run("mixup", 1, 0.6, 0.2)
    run("focal", 0, 0.65, 0.9)
    run("cutmix", 0, 0.99, 0.99)  # of one easy seed
    assert best_rival(tmp_path).name == "mixup"


def test_runs_of_different_best_rivals_are_not_averaged():
    real = [result("baseline", seed, (4, 2, 4)) for seed in (0, 1)]
    both = [
        result(BEST_RIVAL, seed, (4, 2, 4)) | {"changes": {name: 1}}
        for seed, name in enumerate(("mixing", "focal_gamma"))
    ]
    with pytest.raises(UserError, match='not run with the same rival.*--seeds "0 1"'):
        summarise([*real, *both], resamples=10)
    assert summarise([*real, *both[:1]], resamples=10)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def reproduce(monkeypatch, tmp_path, capsys):
    """Calls the command in a folder with trainings that only note their settings; returns (calls, output, code)."""
    calls = []

    def train(spec, home, settings, folder, **running):
        calls.append((spec.data_name, str(home), settings, str(folder), running))
        folder.mkdir(parents=True)
        labels = ["CT-0", "CT-1", "CT-234"] * 2
        rows = [f"c{i}.avi,p{i},{cls},{cls},0.5,0.3,0.2" for i, cls in enumerate(labels)]
        head = "file_name,patient,class,predicted,p_CT-0,p_CT-1,p_CT-234"
        (folder / "predictions.csv").write_text("\n".join([head, *rows]) + "\n")
        figures = {"per_class": dict.fromkeys(CLASSES), "balanced_accuracy": 1 / 3, "auc": 0.5}
        found = {
            "data_name": spec.data_name, "clips": {"train": {"CT-0": 9, "CT-1": 2, "CT-234": 9}}, "best_epoch": 1,
            "settings": dataclasses.asdict(settings), "test": {"patient": figures}, "skipped": [],
            "validation": {"patient": figures},
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(found))
        return found

    monkeypatch.setattr(runs, "train_and_test", train)
    monkeypatch.setattr(runs, "write_agreement", lambda *arguments: None)
    monkeypatch.setattr(command, "check_clips", lambda plan: None)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
        calls.clear()
        code = command.main()
        return list(calls), capsys.readouterr().out, code

    return call


def test_what_the_command_runs(reproduce, tmp_path):
    flags = ("--classifiers", "i3d swin", "--seeds", "3 4", "--synthetic", "all clips", "--output", "out")
    calls, said, code = reproduce("MosMed", *flags, "--data_root", "d", "--epochs", "2", "--device", "cpu")
    assert code == 0 and said.splitlines()[-1] == "table of 12 runs in 6 arms in out/table.md"
    assert [
        (settings.classifier, settings.fit.seed, settings.paradigm, settings.synthetic_dirs, folder)
        for _, _, settings, folder, _ in calls
    ] == [
        (name, seed, paradigm, clips, f"out/{name}/{paradigm}/seed_{seed}")
        for name in ("i3d", "swin")
        for seed in (3, 4)
        for paradigm, clips in (
            ("baseline", ()),
            ("joint", ("all clips",)),
            ("pretrain_finetune", ("all clips",)),
        )
    ]
    assert all(call[:2] == ("MosMed", "d/MosMedData") and call[2].epochs == 2 for call in calls)
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert len(lines) == 12 and lines[0]["test"]["labels"] == [0, 1, 2, 0, 1, 2]
    table = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["arm"] for row in table] == ["baseline", "joint", "pretrain_finetune"] * 2
    assert table[1]["gains"]["balanced_accuracy"] == {"value": 0, "low": 0, "high": 0}
    assert table[1]["verdict"] == "cannot be told apart"


def test_groups_leave_out_what_has_no_clips(reproduce):
    flags = ("--seeds", "0", "--device", "cpu", "--patients", "CT-1=2")
    calls, said, _ = reproduce("MosMed", "--arms", "rival ceiling both", *flags)
    assert f"left out, because their clips are not given: {BEST_RIVAL}" in said
    assert [call[3].split("/")[2] for call in calls][-2:] == ["real_x2", "real_x4"] and len(calls) == 11


def test_the_best_rival_comes_last_with_its_settings(reproduce):
    flags = ("--seeds", "0 1", "--filtered", "f", "--device", "cpu", "--arms", f"{BEST_RIVAL} focal")
    calls, said, _ = reproduce("MosMed", *flags)
    assert [call[3].split("/")[2] for call in calls] == ["baseline", "focal"] * 2 + [BEST_RIVAL] * 2
    assert calls[-1][2].fit.focal_gamma == 2.0 and "best rival (focal_gamma)" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--arms", "joint"), "joint needs unfiltered clips"),
        (("--arms", "real_x2"), "needs to know the rare class"),
        (("--paradigms", "baseline"), "no paradigm with synthetic clips"),
        (("--seeds", "one"), "are no numbers"),
        (("--seeds", ""), "--seeds names none"),
        (("--seeds", "0 -1"), "--seeds -1 is out of range"),
        (("--classifiers", "i3d resnett"), "'resnett' is not a known classifier"),
        (("--classifiers", "gone.py"), "'gone.py' is not a known classifier"),
        (
            ("--arms", f"focal {BEST_RIVAL}", "--filtered", "f", "--validation_fraction", "0"),
            "best on validation clips, and there are none",
        ),
        (("--seed", "3"), "--seed is not of this command. Use --seeds"),
        (("--paradigm", "joint"), "Use --paradigms"),
    ],
)
def test_nonsense_is_found_before_the_first_training(reproduce, flags, said):
    with pytest.raises(UserError, match=said):
        reproduce("MosMed", *flags)


@pytest.mark.parametrize("text", ["CT-1=6,CT-1=12", "CT-1=-3", "CT-0=30,CT-1=0"])
def test_a_class_twice_or_without_patients_is_refused(reproduce, text, capsys):
    with pytest.raises(SystemExit):
        reproduce("MosMed", "--patients", text)
    assert "names a class twice, or fewer than 1" in capsys.readouterr().err


def test_the_runs_of_a_config_are_found_again(reproduce, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/small.py").write_text("")
    calls, said, code = reproduce("MosMed", "--classifiers", f"{tmp_path}/mine/small.py", "--seeds", "0")
    assert code == 0 and "table of 1 runs in 1 arms" in said
    assert calls[0][2].classifier == f"{tmp_path}/mine/small.py"
    assert calls[0][3] == "reproduce_MosMed/small/baseline/seed_0"


def test_one_output_holds_one_setting(reproduce):
    reproduce("MosMed", "--seeds", "0", "--arms", "focal", "--steps", "9", "--patients", "CT-1=2")
    for flags, named in (
        (("--steps", "5", "--patients", "CT-1=2"), "fit.steps: 9 and 5"),
        (("--steps", "9", "--patients", "CT-1=3"), "patients: {'CT-1': 2} and {'CT-1': 3}"),
        (("--steps", "9", "--patients", "CT-1=2", "--lr", "0.1"), "lr: None and 0.1"),
    ):
        with pytest.raises(UserError, match=re.escape(named)):
            reproduce("MosMed", "--seeds", "1", "--arms", "focal ceiling", *flags)
    with pytest.raises(UserError, match="data_name: MosMed and MRNet"):
        reproduce("MRNet", "--seeds", "1", "--output", "reproduce_MosMed")
    flags = ("--steps", "9", "--patients", "CT-1=2", "--filtered", "f")
    calls, _, code = reproduce("MosMed", "--seeds", "1", "--arms", f"rival ceiling {BEST_RIVAL}", *flags)
    assert code == 0 and len(calls) == 12


def test_where_no_run_can_be_finished_the_reason_is_told(reproduce, monkeypatch):
    def fails(*arguments, **running):
        raise UserError("is broken", "Mend it")

    monkeypatch.setattr(runs, "train_and_test", fails)
    with pytest.raises(
        UserError, match="no run could be finished. i3d, baseline, seed 0: is broken. Mend it"
    ):
        reproduce("MosMed", "--seeds", "0")


def test_an_arm_that_fails_does_not_end_the_series(reproduce, monkeypatch, capsys):
    train = runs.train_and_test

    def fails(spec, home, settings, folder, **running):
        if settings.fit.focal_gamma:
            raise UserError("is broken", "Mend it")
        return train(spec, home, settings, folder, **running)

    monkeypatch.setattr(runs, "train_and_test", fails)
    calls, said, code = reproduce("MosMed", "--arms", "focal mixup", "--seeds", "0", "--device", "cpu")
    assert code == 1 and len(calls) == 2 and "not run: i3d, focal, seed 0: is broken" in said


def test_the_script_says_how_it_is_used(repository):
    def run(*arguments):
        return subprocess.run(
            ["bash", str(repository / "reproduce.sh"), *arguments],
            env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert "--phantoms" in run("--help").stdout and run().returncode == 2
    wrong = run("MosMed", "--seedz", "3")
    assert wrong.returncode == 2 and "--seedz" in wrong.stderr


# --- the table ---------------------------------------------------------------------------------------------------


def test_gains_verdicts_and_worth():
    rows = []
    for seed in (0, 1, 2):
        rows.append(result("baseline", seed, (4, 1, 4)))
        rows.append(result("real_x2", seed, (4, 2, 4), rare=12))
        rows.append(result("real_x4", seed, (4, 4, 4), rare=24))
        rows.append(result("joint", seed, (4, 3, 4)))
        rows.append(result("cutmix", seed, (4, 0, 4)))
    table = {row["arm"]: row for row in summarise(rows, 400)}
    assert list(table) == ["baseline", "cutmix", "joint", "real_x2", "real_x4"]
    joint = table["joint"]
    assert joint["gains"]["sensitivity/1"]["value"] == pytest.approx(0.5)
    assert joint["gains"]["balanced_accuracy"]["value"] == pytest.approx(0.5 / 3, abs=1e-6)
    assert joint["levels"]["sensitivity/0"]["value"] == 1 and table["baseline"]["gains"] == {}
    # half way between 2 x and 4 x the patients, on a logarithmic scale
    assert joint["worth"] == [pytest.approx(12 * 2**0.5, rel=1e-4), ""] and table["cutmix"]["worth"] == [
        6,
        "<",
    ]
    text = markdown(list(table.values()))
    assert "## tiny, seeds 0, 1, 2, rare class CT-1, 12 test patients" in text
    assert "| joint, unfiltered |" in text and "| under 6 |" in text and "| 17 |" in text
    assert "more real patients" in text


def test_other_test_patients_are_refused():
    rows = [result("joint", 0, (4, 4, 4)), result("joint", 1, (4, 4, 4))]
    rows[1]["test"]["patients"][0] = "somebody else"
    with pytest.raises(UserError, match="tested on other patients"):
        summarise(rows, 10)


def test_arms_of_other_test_patients_or_settings_are_not_compared():
    rows = [result("baseline", 0, (4, 4, 4)), result("joint", 0, (4, 4, 4))]
    rows[1]["test"]["patients"][0] = "somebody else"
    with pytest.raises(UserError, match="joint, seed 0 was tested on other patients than baseline, seed 0"):
        summarise(rows, 10)
    rows = [result("baseline", 0, (4, 4, 4)), result("joint", 0, (4, 4, 4))]
    rows[0]["in_common"], rows[1]["in_common"] = {"fit.steps": 9}, {"fit.steps": 5, "of_later": 1}
    with pytest.raises(UserError, match=r"other settings \(fit.steps: 9 and 5\)"):
        summarise(rows, 10)


def test_the_rare_class_is_the_comparisons_even_where_its_patients_are_several_times_more():
    many = result("real_x4", 0, (4, 4, 4), rare=48)
    many |= {"patients": {"CT-0": 30, "CT-1": 48, "CT-234": 30}, "rare_class": "CT-0"}
    rows = summarise([result("baseline", 0, (4, 4, 4), rare=12), many], 10)
    assert [row["rare_class"] for row in rows] == ["CT-1", "CT-1"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.csv", None),
        ("predictions.csv", ""),
        (
            "predictions.csv",
            "file_name,patient,class,predicted,p_CT-0,p_CT-1,p_CT-234\nc,p,CT-0,CT-0,nan,nan,nan\n",
        ),
        ("predictions.csv", "file_name,patient,class,predicted,p_CT-0,p_CT-1\nc,p,CT-0,CT-0,0.5,0.5\n"),
        ("metrics.json", "{}"),
        ("metrics.json", "[]"),
    ],
)
def test_a_damaged_run_is_named(reproduce, tmp_path, name, content):
    reproduce("MosMed", "--seeds", "0")
    path = tmp_path / "reproduce_MosMed/i3d/baseline/seed_0" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"seed_0: is not as the run wrote it. Delete it"):
        reproduce("MosMed", "--table_only")


def test_class_agreement_is_shown():
    found = {"semantic": {"CT-1": {"count": 10, "found": 7, "diversity": 0.5, "real_diversity": 2.0}}}
    rows = summarise([result("baseline", 0, (4, 4, 4), agreement=found)], 10)
    assert rows[0]["agreement"] == {"semantic": {"CT-1": {"count": 10, "found": 0.7, "diversity": 0.25}}}
    assert "| semantic | CT-1 | 10 | 70 | 25 |" in markdown(rows)


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        collect(tmp_path)


# --- with real trainings -----------------------------------------------------------------------------------------


def test_a_home_of_fewer_patients(tmp_path):
    root = make_home(tmp_path, train=4, test=1, clips=2)
    home, out = root / SPEC.home, tmp_path / "few" / SPEC.home
    frames = home / SPEC.frames_dir
    frames.mkdir()
    for split in ("train", "test"):
        clips = SPEC.clips(home, split)
        rows = [{"file_name": f"{SPEC.first_frame(clip.name)}.png", "cls": clip.cls} for clip in clips]
        for row in rows:
            (frames / row["file_name"]).write_bytes(b"pixels")
        SPEC.metadata_path(frames, split).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert make_few(SPEC, home, {"CT-1": 2}, out) == {"CT-0": 4, "CT-1": 2, "CT-234": 4}
    assert [clip.cls for clip in SPEC.clips(out, "train")] == ["CT-0"] * 8 + ["CT-1"] * 4 + ["CT-234"] * 8
    for folder in (SPEC.clips_dir, SPEC.frames_dir):
        names = [
            row["file_name"] for row in map(json.loads, SPEC.metadata_path(out / folder, "train").open())
        ]
        assert len(names) == 20 and all((out / folder / name).is_file() for name in names)
        assert SPEC.metadata_path(out / folder, "test").read_text().count("\n") == 6  # one patient a class
    with pytest.raises(UserError, match="9 patients of CT-0 are wanted, but there are 4"):
        make_few(SPEC, home, {"CT-0": 9}, out)
    with pytest.raises(UserError, match="-1 patients of CT-0 are none"):
        make_few(SPEC, home, {"CT-0": -1}, out)
    with pytest.raises(UserError, match="is the larger data set itself"):
        make_few(SPEC, home, {"CT-0": 2}, home)
    # another larger data set: its files, not those of before
    other = shutil.copytree(home, tmp_path / "other" / SPEC.home)
    make_few(SPEC, other, {"CT-1": 2}, out)
    links = [path for path in out.rglob("*") if path.is_symlink()]
    assert len(links) == 52 and all(path.resolve().is_relative_to(other.resolve()) for path in links)
    links[0].unlink()
    links[0].write_bytes(b"a file of its own")
    with pytest.raises(UserError, match="is a file where a link is to be"):
        make_few(SPEC, home, {"CT-1": 2}, out)


def test_arms_are_trained_tested_and_asked_about_synthetic_clips(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    flags = (
        "--classifiers tiny --seeds 0 --arms joint_filtered --filtered synthetic --input_size 32 --steps 4"
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["reproduce", "MosMed", *flags.split(), "--device", "cpu", "--output", str(tmp_path / "out")],
    )
    assert command.main() == 0
    rows = json.loads((tmp_path / "out/table.json").read_text())
    found = rows[0]["agreement"]["filtered"]
    assert set(found) == set(CLASSES) and found["CT-0"]["count"] == 12 and found["CT-0"]["diversity"] > 0
    assert np.mean([row["found"] for row in found.values()]) <= 1 and (tmp_path / "out/gains.png").is_file()
    assert rows[1]["clips"]["synthetic"]["CT-0"] == 10  # those of the held-out patient are left out


def test_other_clips_under_the_same_path_are_not_taken_for_those_of_before(
    root, tmp_path, monkeypatch, capsys
):
    """The baseline is asked about the new clips; a run that learned from the old ones is refused by name."""
    home = shutil.copytree(root, tmp_path / "home")
    monkeypatch.chdir(home)
    flags = (
        "--classifiers tiny --seeds 0 --arms joint_filtered --filtered synthetic --input_size 32 --steps 2"
    )
    argv = ["reproduce", "MosMed", *flags.split(), "--device", "cpu", "--output", str(tmp_path / "out")]

    def found():
        monkeypatch.setattr(sys, "argv", argv)
        code = command.main()
        rows = json.loads((tmp_path / "out/table.json").read_text())
        return code, rows[0]["agreement"]

    code, before = found()
    assert code == 0 and before["filtered"]["CT-1"]["count"] == 12
    measured = (tmp_path / "out/tiny/baseline/seed_0/agreement.json").read_bytes()
    assert found() == (0, before)
    assert (tmp_path / "out/tiny/baseline/seed_0/agreement.json").read_bytes() == measured

    gone, kept = sorted((home / "synthetic").glob("*_CT-1_*.mp4"))[:2]
    gone.unlink()
    shutil.copy(sorted((home / "synthetic").glob("*_CT-0_*.mp4"))[0], kept)  # drawn anew, in another way
    capsys.readouterr()
    code, after = found()
    told = "".join(capsys.readouterr())
    assert code != 0 and after["filtered"]["CT-1"]["count"] == 11
    assert re.search(r"synthetic clips: 36 files, \w{8} there, 35 files, \w{8} now", told)
    argv[argv.index("--filtered") + 1 : argv.index("--filtered") + 2] = []
    argv.remove("--filtered")
    argv[argv.index("joint_filtered")] = "oversampled"
    assert found() == (0, {})  # levels that are not part of the comparison any more


def test_the_best_rivals_arm_is_trained_anew_when_another_becomes_the_best(
    root, tmp_path, monkeypatch, capsys
):
    """As more seeds of the rivals may make another one the best."""
    monkeypatch.chdir(root)
    flags = "--classifiers tiny --seeds 0 --filtered synthetic --input_size 32 --steps 2 --arms focal+mixup+"
    flags += BEST_RIVAL
    argv = ["reproduce", "MosMed", *(word.replace("+", " ") for word in flags.split()), "--device", "cpu"]
    runs_in = tmp_path / "out/tiny"

    def best():
        monkeypatch.setattr(sys, "argv", [*argv, "--output", str(tmp_path / "out")])
        assert command.main() == 0
        fit = json.loads((runs_in / BEST_RIVAL / "seed_0/settings.json").read_text())["fit"]
        rows = {row["arm"]: row for row in json.loads((tmp_path / "out/table.json").read_text())}
        assert rows[BEST_RIVAL]["changes"] == (
            {"focal_gamma": 2.0} if fit["focal_gamma"] else {"mixing": "mixup"}
        )
        return next(iter(rows[BEST_RIVAL]["changes"])), "trained anew" in capsys.readouterr().out

    first, anew = best()
    assert not anew
    other, better = ("mixup", "mixing") if first == "focal_gamma" else ("focal", "focal_gamma")
    path = runs_in / other / "seed_0/metrics.json"
    found = json.loads(path.read_text())
    found["validation"]["patient"] |= {"balanced_accuracy": 2.0}
    path.write_text(json.dumps(found))
    assert best() == (better, True)
    assert best() == (better, False)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--patients CT-9=3", "'CT-9' is not a class of MosMed"),
        ("--patients CT-1=99", "99 patients of class 1 are wanted, but there are 6"),
        ("--arms joint --synthetic nowhere", "nowhere: is not a folder"),
        ("--arms joint --synthetic MosMedData", "holds no synthetic clip of MosMed"),
    ],
)
def test_what_is_missing_is_found_before_the_first_training(root, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(root)
    argv = ["reproduce", "MosMed", *flags.split(), "--classifiers", "tiny", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(UserError, match=said):
        command.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_table(tmp_path, repository):
    """Two seeds, three settings: killed in the midst of a run, twice; compared with an undisturbed series."""
    root = make_home(tmp_path, train=3, test=2, clips=1)
    make_synthetic(root, root / "filtered", each=1)
    log = (root / "log").open("w+")

    def command(output):
        flags = ("--classifiers", "tiny", "--seeds", "0 1", "--filtered", "filtered", "--output", output)
        training = [
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
        ]
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
    for name in ("table.md", "table.json", "results.jsonl"):
        assert (root / "out" / name).read_text() == (root / "undisturbed" / name).read_text()
    rows = json.loads((root / "out/table.json").read_text())
    assert [(row["arm"], row["seeds"]) for row in rows] == [
        ("baseline", [0, 1]),
        ("joint_filtered", [0, 1]),
        ("pretrain_finetune_filtered", [0, 1]),
    ]


def test_each_seed_takes_the_clips_of_a_generator_in_turn(reproduce):
    flags = ("--seeds", "3 4 5", "--paradigms", "joint", "--synthetic", "one", "two")
    calls, _, code = reproduce("MosMed", *flags)
    assert code == 0
    taken = {s.fit.seed: s.synthetic_dirs for _, _, s, _, _ in calls if s.paradigm == "joint"}
    assert taken == {3: ("two",), 4: ("one",), 5: ("two",)}
    with pytest.raises(UserError, match="different numbers of folders"):
        reproduce("MosMed", *flags, "--filtered", "one")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--training_steps", "40 240", "--training_steps needs 3 numbers"),
        ("--training_steps", "40 0 160", "--training_steps needs numbers from 1 to"),
        ("--rare", "6 121", '--rare needs numbers from 1 to 120, got "121"'),
        ("--rare", "0", "--rare needs numbers from 1"),
        ("--generators", "1 two", '--generators needs numbers from 0 to 999999999, got "two"'),
        ("--seeds", "0 -1", '--seeds needs numbers from 0 to 999999999, got "-1"'),
        ("--wanted", "20 60", "--wanted needs 1 or 3 numbers"),
        ("--wanted", "20 6.5 20", '--wanted needs numbers from 0 to 999999999, got "6.5"'),
        ("--arms", "joint focale", "'focale' is no arm"),
    ],
)
def test_phantom_comparison_reads_its_numbers_before_hours_of_work(tmp_path, repository, option, value, said):
    environment = {**os.environ, "CTRLGENAUG_ENV": "active"}
    command = [
        "bash",
        str(repository / "reproduce.sh"),
        "--phantoms",
        option,
        value,
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("script", ["demo.sh", "run_tests.sh", "reproduce.sh --phantoms"])
def test_a_misspelled_environment_is_no_wish_for_a_new_one(tmp_path, repository, script):
    name, *options = script.split()
    command = ["bash", str(repository / name), *options]
    environment = {**os.environ, "CTRLGENAUG_ENV": "activ"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "CTRLGENAUG_ENV=activ is not known. Set it to active" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_arms_are_listed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["arms", "ceiling"])
    arms_main()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "baseline",
        "real_x2",
        "real_x4",
    ]


@pytest.mark.slow
def test_knees_with_two_generators(tmp_path, repository):
    """The other data set: a generator a seed, each with its own clips."""
    environment = {**os.environ, "CTRLGENAUG_ENV": "active", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(repository / "reproduce.sh"), "--phantoms", "--quick", "--data_name", "MRNet"]
    command += ["--generators", "1 2", "--arms", "joint oversampled", "--out", str(tmp_path / "out")]
    command += ["--training_steps", "4 5 3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = {row["arm"]: row for row in json.loads((tmp_path / "out/rare_2/table.json").read_text())}
    assert set(rows) == {"baseline", "oversampled", "joint"} and rows["joint"]["rare_class"] == "1"
    made = [
        sorted((tmp_path / f"out/rare_2/generator_{seed}").glob("sequence_model_MRNet/*/*.mp4"))
        for seed in (1, 2)
    ]
    assert len(made[0]) == len(made[1]) == 6
    for stage, steps in (("ldm", 5), ("sequence_ldm", 3)):
        log = tmp_path / f"out/rare_2/generator_1/runs/{stage}/train_loss.txt"
        assert log.read_text().splitlines()[-1].startswith(f"Iter{steps}-")
    assert all(one.name == other.name for one, other in zip(*made, strict=True))
    assert any(one.read_bytes() != other.read_bytes() for one, other in zip(*made, strict=True))


@pytest.mark.slow
def test_the_whole_comparison_on_phantoms(tmp_path, repository):
    """From drawn patients over generator and filter to the table of arms, and once more without doing it again."""
    environment = {**os.environ, "CTRLGENAUG_ENV": "active", "OMP_NUM_THREADS": "1"}
    command = [
        "bash",
        str(repository / "reproduce.sh"),
        "--phantoms",
        "--quick",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = {row["arm"]: row for row in json.loads((tmp_path / "out/rare_2/table.json").read_text())}
    assert {"baseline", "focal", "joint", "joint_semantic", "joint_filtered", BEST_RIVAL, "real_x2"} == set(
        rows
    )
    assert all(row["seeds"] == [0, 1] for row in rows.values())
    assert rows["baseline"]["rare_class"] == "CT-1" and rows["real_x2"]["patients"]["CT-1"] == 4
    assert rows["joint"]["clips"]["synthetic"]["CT-1"] > 0 and rows["joint"]["verdict"]
    assert rows["baseline"]["agreement"]["unfiltered"]["CT-1"]["count"] == 4
    assert (tmp_path / "out/rare_2/gains.png").is_file()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (
        again.returncode == 0 and again.stdout.count("was finished already") == 15
    )  # 14 arms and the filter's


@pytest.mark.parametrize("option", ["--rare", "--seeds", "--out"])
def test_phantom_comparison_says_which_option_lacks_its_value(tmp_path, repository, option):
    environment = {**os.environ, "CTRLGENAUG_ENV": "active"}
    command = ["bash", str(repository / "reproduce.sh"), "--phantoms", option]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {option} needs a value. See bash reproduce.sh --phantoms --help.\n"
    assert not list(tmp_path.iterdir())
