"""VAE-Seq.py and noisy_data_filter.py as a user runs them, with a small VAE and a small classifier."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from test_filter_folder import NAMES
from test_vae_seq import clip

from augment import classifiers
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import read_video, write_mp4

SPEC = datasets.get("MosMed")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """``model/`` with a VAE, ``classifier.pth``, and ``synthetic/`` with two clips of four samples each."""
    from golden_vectors import SMALL_VAE

    from cond2img.models import AutoencoderKL

    root = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    AutoencoderKL(**SMALL_VAE).save_pretrained(root / "model" / "MosMed-vae-pretrained")
    model = classifiers.build("tiny", 3, input_size=32)  # the clips have 64 pixels
    classifiers.save(root / "classifier.pth", model, "tiny", datasets.get("MosMed").classes, "MosMed")
    torch.save({"state_dict": model.weights()}, root / "strangers.pth")  # says neither its name nor its size
    classifiers.save(root / "turned.pth", model, "tiny", ("CT-1", "CT-0", "CT-234"), "MosMed")
    classifiers.save(root / "joint.pth", model, "tiny", SPEC.classes, "MosMed", {"paradigm": "joint"})
    next(value for name, value in model.weights().items() if name.startswith("backbone"))[0] = float("nan")
    classifiers.save(root / "diverged.pth", model, "tiny", SPEC.classes, "MosMed")
    for number, name in enumerate(NAMES):
        write_mp4(root / "synthetic" / name, clip(number - number % 4 if number % 4 == 3 else number))
    return root


@pytest.fixture
def synthetic(world, tmp_path):
    return shutil.copytree(world / "synthetic", tmp_path / "synthetic")


def score(run, world, synthetic, *more, code=0):
    arguments = ("--vae_path", world / "model", "--synthetic_dir", synthetic, "--device", "cpu", *more)
    return run("VAE-Seq.py", *arguments, cwd=world, code=code)


def filter_(run, world, synthetic, *more, code=0):
    arguments = ("--vae_path", world / "model", "--synthetic_dir", synthetic, "--device", "cpu", *more)
    return run("noisy_data_filter.py", *arguments, cwd=world, code=code)


def plain_logits(world, frames, side):
    """What the stored classifier says to frames (F, H, W) of ``side`` pixels, each standardised by itself."""
    how = cv2.INTER_AREA if side < frames.shape[1] else cv2.INTER_LINEAR
    sized = np.stack([cv2.resize(frame, (side, side), interpolation=how) for frame in frames]).astype(float)
    sized = (sized - sized.mean((1, 2), keepdims=True)) / sized.std((1, 2), keepdims=True)
    model, _ = classifiers.load(world / "strangers.pth", name="tiny")
    with torch.no_grad():
        return model(torch.from_numpy(sized[None, None]).float())[0].double().numpy()


def test_scores_then_filter(world, synthetic, run_script, tmp_path):
    result = score(run_script, world, synthetic)
    scores = json.loads((synthetic / "VAE_Seq_train_results.json").read_text())
    assert set(scores) == set(NAMES)
    assert (
        f"VAE-Seq {np.mean(list(scores.values())):.2f} % over 8 clips (6 newly encoded)" in result.stdout
    )  # two are copies

    kept = tmp_path / "kept here"
    classifier = ("--classifier", "tiny", "--classifier_checkpoint", world / "classifier.pth")
    result = filter_(run_script, world, synthetic, *classifier, "--save_base", kept)
    report = json.loads((kept / "filter_report.json").read_text())
    for row in report["samples"]:
        assert row["vae_seq"] == scores[row["file"]]
        logits = plain_logits(world, read_video(synthetic / row["file"]), 32)
        label = datasets.get("MosMed").class_id(row["class"])
        assert row["loss"] == pytest.approx(np.log(np.exp(logits).sum()) - logits[label], rel=1e-3)
    names = {row["file"] for row in report["samples"] if row["decision"] == "kept"}
    assert {path.name for path in kept.glob("*.mp4")} == names
    assert f"{len(names)} of 8 clips kept in {kept}" in result.stdout
    assert report["settings"]["classifier_fingerprint"]


@pytest.mark.slow
def test_two_machines_of_a_cluster_say_the_same(world, run_script, on_two_nodes, tmp_path):
    """Scores and the published levels, by one process and on two nodes."""
    one, two = (
        shutil.copytree(world / "synthetic", tmp_path / name / "synthetic") for name in ("one", "two")
    )
    scoring = ["VAE-Seq.py", "--vae_path", world / "model", "--synthetic_dir", "synthetic", "--device", "cpu"]
    filtering = ["noisy_data_filter.py", *scoring[1:], "--classifier_checkpoint", world / "classifier.pth"]
    filtering += ["--save_base", "kept", "--batch_size", 3]
    for script, *arguments in (scoring, filtering):
        run_script(script, *arguments, cwd=one.parent, env={"OMP_NUM_THREADS": "1"})
    shutil.rmtree(two / ".latents", ignore_errors=True)
    on_two_nodes(scoring, filtering, cwd=two.parent)
    for name in ("synthetic/VAE_Seq_train_results.json", "kept/filter_report.json"):
        assert (two.parent / name).read_bytes() == (one.parent / name).read_bytes()
    kept = [{path.name for path in folder.parent.glob("kept/*.mp4")} for folder in (one, two)]
    assert kept[0] == kept[1] and kept[0]


def test_published_command_lines(world, tmp_path, run_script):
    """The lines of the published README with their blanks filled in; the folder of the model has its layout."""
    folder = shutil.copytree(world / "synthetic", tmp_path / "db")
    model = tmp_path / "pretrained_2d_model_MosMed"
    shutil.copytree(world / "model" / "MosMed-vae-pretrained", model / "vae-pretrained")
    shutil.copy(world / "strangers.pth", tmp_path / "tiny.pth")
    run_script(
        "VAE-Seq.py", *f"--load_2d_pretrained_model_name {model.name} --syn_data_p db".split(), cwd=tmp_path
    )
    assert set(json.loads((folder / "VAE_Seq_train_results.json").read_text())) == set(NAMES)
    line = (
        "--syn_data_p db --cls_model_name tiny --cls_model_pth tiny.pth "
        f"--load_2d_pretrained_model_name {model.name} --save_base final"
    )
    result = run_script("noisy_data_filter.py", *line.split(), cwd=tmp_path)
    kept = {path.name for path in (tmp_path / "final").glob("*.mp4")}
    assert kept and kept < set(NAMES) and f"{len(kept)} of 8 clips kept in final" in result.stdout
    assert (tmp_path / "final" / "inner-video-kmeans-threshold.png").is_file()


def test_a_classifier_is_asked_at_the_size_it_was_trained_at(world):
    frames = clip(3)  # 64 pixels
    ours = classifiers.scorer(world / "classifier.pth")
    assert ours([frames])[0] == pytest.approx(plain_logits(world, frames, 32), rel=1e-4)
    with pytest.raises(UserError, match="was trained on frames of 32 pixels, not 256"):
        classifiers.scorer(world / "classifier.pth", input_size=256)
    for given, side in ((48, 48), (None, 256)):
        strangers = classifiers.scorer(world / "strangers.pth", name="tiny", input_size=given)
        assert strangers([frames])[0] == pytest.approx(plain_logits(world, frames, side), rel=1e-4)


def test_the_default_folder_dry_run_and_levels(world, synthetic, call_script):
    result = filter_(call_script, world, synthetic, "--levels", "between", "--dry_run")
    assert "6 of 8 clips kept; nothing written" in result.stdout
    assert [path.name for path in synthetic.parent.iterdir()] == ["synthetic"]
    table = [line.split() for line in result.stdout.splitlines()]
    assert ["CT-0", "4", "4", "4", "3"] in table and ["all", "8", "8", "8", "6"] in table
    filter_(call_script, world, synthetic, "--levels", "[between]", "--link")
    kept = synthetic.with_name("synthetic_filtered")
    assert len(list(kept.glob("*.mp4"))) == 6
    assert all(path.samefile(synthetic / path.name) for path in kept.glob("*.mp4"))


def test_scores_of_another_vae_or_of_other_settings_are_not_taken(world, synthetic, call_script, tmp_path):
    """They lie in the same file under the same names, and would be cut by k-means beside newly made ones."""
    score(call_script, world, synthetic, "--pixel_range", "model")
    of_model = json.loads((synthetic / "VAE_Seq_train_results.json").read_text())

    def filtered(*more):
        result = filter_(
            call_script, world, synthetic, "--levels", "within", "--save_base", tmp_path / "kept", *more
        )
        report = json.loads((tmp_path / "kept" / "filter_report.json").read_text())
        return {row["file"]: row["vae_seq"] for row in report["samples"]}, result.stderr

    scores, said = filtered("--pixel_range", "model")
    assert scores == of_model and "other settings" not in said
    scores, said = filtered()
    assert "latents model-sample-3407 there, official-sample-3407 now): scores were computed now" in said
    score(call_script, world, synthetic)
    assert scores == json.loads((synthetic / "VAE_Seq_train_results.json").read_text()) != of_model
    torch.manual_seed(1)
    from golden_vectors import SMALL_VAE

    from cond2img.models import AutoencoderKL

    AutoencoderKL(**SMALL_VAE).save_pretrained(tmp_path / "another")
    others, said = filtered("--vae_path", tmp_path / "another")
    assert others != scores and "was made with another VAE or other settings" in said
    # scores from elsewhere, as the published script writes them, tell nothing and are taken
    (synthetic / "VAE_Seq_train_results.json").write_text(json.dumps(of_model))
    scores, said = filtered()
    assert scores == of_model and "other settings" not in said


def test_a_classifier_that_learned_from_synthetic_clips_is_doubted(world, synthetic, call_script):
    asked = ("--levels", "semantic", "--dry_run", "--classifier_checkpoint")
    assert "warning" not in filter_(call_script, world, synthetic, *asked, world / "classifier.pth").stderr
    result = filter_(call_script, world, synthetic, *asked, world / "joint.pth")
    assert "warning: the classifier learned from synthetic clips (--paradigm joint)" in result.stderr


@pytest.mark.parametrize(
    ("metrics", "warned"),
    [
        ({"CT-0": 1.0, "CT-1": 0.13, "CT-234": 0.5}, ["CT-1"]),
        ({"CT-0": 0.9, "CT-1": None, "CT-234": 1.0}, []),  # no patient of the class was tested
        ("{not json", []),
        ({}, []),
    ],
)
def test_a_classifier_that_hardly_knows_a_class_is_doubted(
    world, synthetic, call_script, tmp_path, metrics, warned
):
    shutil.copy2(world / "classifier.pth", tmp_path / "classifier.pth")
    if isinstance(metrics, dict):
        rows = {cls: {"count": 30, "sensitivity": share} for cls, share in metrics.items()}
        metrics = json.dumps({"test": {"patient": {"per_class": rows}}})
    (tmp_path / "metrics.json").write_text(metrics)
    asked = ("--levels", "semantic", "--dry_run", "--classifier_checkpoint", tmp_path / "classifier.pth")
    said = filter_(call_script, world, synthetic, *asked).stderr
    assert [
        line.split("class ")[1].split(" in")[0] for line in said.splitlines() if "finds class" in line
    ] == warned
    assert not warned or "finds class CT-1 in 13 % of its 30 real test patients" in said


def test_a_broken_video_is_named(world, synthetic, call_script):
    (synthetic / NAMES[0]).write_bytes(b"not a video")
    result = score(call_script, world, synthetic, "--posterior", "mode", "--pixel_range", "model", code=1)
    assert f"skipped {NAMES[0]}" in result.stderr and "1 failed" in result.stdout
    assert len(json.loads((synthetic / "VAE_Seq_train_results.json").read_text())) == 7


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("VAE-Seq.py", ["--synthetic_dir", "nowhere"], "nowhere: is not a folder"),
        ("VAE-Seq.py", ["--synthetic_dir", "model"], "holds no clip"),
        ("VAE-Seq.py", ["--vae_path", "synthetic"], "holds no VAE"),
        ("noisy_data_filter.py", [], "--classifier_checkpoint is missing"),
        ("noisy_data_filter.py", ["--inter_threshold", "98"], "98 in the official code means 0.98"),
        ("noisy_data_filter.py", ["--levels", "semantics"], "is not a level"),
        (
            "noisy_data_filter.py",
            ["--levels", "between", "--save_base", "synthetic"],
            "is the synthetic folder itself",
        ),
        ("noisy_data_filter.py", ["--levels", "between", "--data_name", "ACDC"], "Check --data_name"),
        ("noisy_data_filter.py", ["--classifier_checkpoint", "nothing.pth"], "nothing.pth"),
        (
            "noisy_data_filter.py",
            ["--classifier_checkpoint", "classifier.pth", "--data_name", "ACDC"],
            "is a classifier of CT-0, CT-1, CT-234 (MosMed), ACDC has",
        ),
        (
            "noisy_data_filter.py",
            ["--classifier_checkpoint", "turned.pth"],
            "turned.pth: is a classifier of CT-1, CT-0, CT-234 (MosMed), MosMed has CT-0, CT-1, CT-234",
        ),
        (
            "noisy_data_filter.py",
            ["--classifier_checkpoint", "diverged.pth"],
            "diverged.pth: holds weights that are no numbers (backbone.",
        ),
        (
            "noisy_data_filter.py",
            ["--classifier_checkpoint", "classifier.pth", "--input_size", "256"],
            "was trained on frames of 32 pixels, not 256",
        ),
    ],
)
def test_mistakes_are_one_line(world, call_script, script, arguments, message):
    base = ["--synthetic_dir", "synthetic", "--vae_path", "model"]
    result = call_script(script, *base, *arguments, cwd=world, code=2)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
