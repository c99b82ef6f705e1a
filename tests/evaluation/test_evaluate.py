"""evaluate.py as a user runs it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from clip_home import SPEC, draw_clip, make_home, make_synthetic

from ctrlgenaug import classifiers
from ctrlgenaug.quality import evaluation
from ctrlgenaug.quality.evaluation_report import headline, markdown
from ctrlgenaug.video import read_video, write_mp4

ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = make_home(tmp_path_factory.mktemp("clips"), train=4, test=1)
    make_synthetic(root, root / "synthetic", each=1)
    torch.manual_seed(0)
    classifiers.save(
        root / "classifier.pth", classifiers.build("tiny", 3, 32), "tiny", SPEC.classes, "MosMed"
    )
    return root


def test_everything_that_needs_no_vae(root, run_script):
    source = SPEC.clips(root / SPEC.home, "train")[0]
    folder = root / "with_copy"
    shutil.copytree(root / "synthetic", folder)
    name = f"{source.name}_{source.cls}_99.mp4"  # a training clip, passed off as synthetic
    write_mp4(folder / name, read_video(root / SPEC.home / SPEC.clips_dir / source.file_name), crf=5)
    arguments = (
        "--real",
        ".",
        "--synthetic",
        "with_copy",
        "--classifier",
        "classifier.pth",
        "--output",
        "e.json",
    )
    result = run_script(
        "evaluate.py", *arguments, "--device", "cpu", "--draws", "3", cwd=root, env=ONE_THREAD
    )
    assert result.stdout.strip().splitlines()[-1].endswith("25 synthetic clips, e.json and e.md")
    assert "no vae_seq without --vae_path" in result.stderr
    found = json.loads((root / "e.json").read_text())
    assert set(found["metrics"]) == {"fvd", "fid", "smoothness", "diversity", "class_control", "memorisation"}
    assert found["counts"] == {
        "synthetic": {"all": 25, "CT-0": 9, "CT-1": 8, "CT-234": 8},
        "real": {"all": 24, "CT-0": 8, "CT-1": 8, "CT-234": 8},
    }
    fvd = found["metrics"]["fvd"]
    assert set(fvd) == {"all", *SPEC.classes}
    assert fvd["all"]["real"] == 24 and fvd["all"]["floor"]["draws"] == 3 and fvd["all"]["value"] > 0
    assert found["metrics"]["fid"]["all"]["real"] == 8 * 24
    copies = found["metrics"]["memorisation"]["all"]["pixel"]
    assert (
        copies["flagged_files"][0] == name
    )  # the nearest of all; chance may flag a few more of so small a set
    assert copies["flagged"] == len(copies["flagged_files"]) < 6
    assert found["published"]["fvd"] == 2.91
    assert "another protocol" in (root / "e.md").read_text()
    assert (root / "e.png").stat().st_size > 0


def test_class_control_is_the_share_of_right_answers(root, run_script):
    arguments = ("--synthetic", "synthetic", "--classifier", "classifier.pth", "--metrics", "class_control")
    result = run_script("evaluate.py", *arguments, "--output", "cc.json", cwd=root, env=ONE_THREAD)
    assert "class control" in result.stdout and "chance 33.3 %" in result.stdout
    found = json.loads((root / "cc.json").read_text())["metrics"]["class_control"]
    model, _ = classifiers.load(root / "classifier.pth")
    files = sorted((root / "synthetic").glob("*.mp4"))
    answers = classifiers.score(model, (read_video(path) for path in files)).argmax(1)
    right = [SPEC.classes[a] == path.stem.rsplit("_", 2)[1] for a, path in zip(answers, files, strict=True)]
    assert found["all"]["accuracy"] == pytest.approx(np.mean(right)) and found["all"]["count"] == 24
    assert sum(found[cls]["accuracy"] * 8 for cls in SPEC.classes) == pytest.approx(sum(right))


def test_real_clips_judged_as_synthetic_score_zero(root):
    items = evaluation.Item
    real = [
        items(
            root / SPEC.home / SPEC.clips_dir / clip.file_name,
            SPEC.class_id(clip.cls),
            SPEC.patient(clip.name),
        )
        for clip in SPEC.clips(root / SPEC.home, "train")
    ]
    from ctrlgenaug.quality.features import classifier_clips
    from ctrlgenaug.quality.smoothness import smoothness

    model, _ = classifiers.load(root / "classifier.pth")
    tools = evaluation.Tools(
        clip_features=classifier_clips(model, "cpu", "tiny"),
        smoothness=lambda path, frames: smoothness(frames),
    )
    metrics = ("fvd", "smoothness", "diversity", "memorisation")
    result = evaluation.evaluate(SPEC, real, real, metrics, tools, draws=2)
    assert result["metrics"]["fvd"]["all"]["value"] == pytest.approx(0, abs=1e-6)
    for metric in ("smoothness", "diversity"):
        for row in result["metrics"][metric].values():
            assert row["real"] == row["synthetic"]
    copies = result["metrics"]["memorisation"]["all"]["pixel"]
    assert copies["flagged"] == copies["count"] == 24 and copies["nearest_is_its_own_source"] == 1
    assert "24 of 24 clips flagged" in headline(result)
    assert "| all | 24 | 8" not in markdown(result) and "## FVD" in markdown(result)


def test_vae_seq_of_real_and_synthetic(root):
    from ctrlgenaug.quality.vae_seq import vae_seq

    class Store:  # the store's own tests are elsewhere
        def stream(self, paths):
            for path in paths:
                yield path, read_video(path)[:, None, ::8, ::8].astype(np.float16)

    from ctrlgenaug.classifiers.data import real_items, synthetic_items

    real = real_items(SPEC, root / SPEC.home, "train")
    synthetic, _ = synthetic_items([root / "synthetic"], SPEC)
    tools = evaluation.Tools(latents=(Store(), Store()))
    result = evaluation.evaluate(SPEC, real, synthetic, ("vae_seq", "diversity", "memorisation"), tools)
    scores = [vae_seq(latents) for _, latents in Store().stream([item.path for item in synthetic])]
    assert result["metrics"]["vae_seq"]["all"]["synthetic"]["mean"] == pytest.approx(np.mean(scores))
    assert result["metrics"]["vae_seq"]["all"]["real"]["count"] == 24
    assert result["metrics"]["diversity"]["all"]["synthetic"]["latent"] > 0
    assert set(result["metrics"]["memorisation"]["CT-1"]) == {"pixel", "latent"}


def test_unreadable_clips_and_wrong_requests(root, tmp_path, run_script):
    folder = tmp_path / "synthetic"
    shutil.copytree(root / "synthetic", folder)
    victim = sorted(folder.glob("*.mp4"))[0]
    victim.write_bytes(b"torn")
    write_mp4(folder / "holiday.mp4", draw_clip("CT-0", 0))
    common = ("--synthetic", folder, "--classifier", "classifier.pth", "--output", tmp_path / "e.json")
    result = run_script(
        "evaluate.py", *common, "--metrics", "class_control", cwd=root, code=1, env=ONE_THREAD
    )
    assert f"skipped {victim.name}" in result.stderr and "skipped holiday.mp4" in result.stderr
    assert result.stdout.strip().endswith("; 2 files skipped (listed above)")
    assert json.loads((tmp_path / "e.json").read_text())["counts"]["synthetic"]["all"] == 23

    def fails(*arguments):
        failed = run_script("evaluate.py", *arguments, cwd=root, code=2, env=ONE_THREAD)
        assert failed.stderr.count("\n") == 1 and failed.stderr.startswith("error: ")
        return failed.stderr

    assert "fvd needs --real" in fails(*common, "--metrics", "fvd")
    assert "'fvdd' is not a metric" in fails(*common, "--metrics", "fvdd")
    (folder / "settings.json").write_text('{"split": "test"}')
    assert "made from test conditions" in fails(*common, "--metrics", "class_control")
