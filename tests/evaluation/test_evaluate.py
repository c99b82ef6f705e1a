"""evaluate.py as a user runs it."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
import torch
from clip_home import SPEC, draw_clip, make_home, make_synthetic
from diffusers import AutoencoderKL

from augment import classifiers
from augment.generation.synthesis_folder import SynthesisFolder
from augment.quality import evaluation
from augment.quality.evaluation_report import headline, markdown
from augment.quality.instruments import EvaluationSettings, Instruments
from augment.quality.metrics import METRICS
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
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
    )
    with torch.no_grad():  # sure of its latents, as a trained one is; else they are mostly noise
        vae.quant_conv.weight[4:], vae.quant_conv.bias[4:] = 0, -30
    vae.save_pretrained(root / "vae")
    return root


def test_everything_and_planted_copies_are_found(root, run_script):
    """Synthetic clips that no training clip resembles, CT-1's ever the same; and two training clips among them."""
    folder = root / "with_copies"
    folder.mkdir()
    for path in (root / "synthetic").glob("*.mp4"):
        write_mp4(
            folder / path.name, 255 - (draw_clip("CT-1", 0) if "_CT-1_" in path.name else read_video(path))
        )
    train = SPEC.clips(root / SPEC.home, "train")
    copied = []
    for source, noise in ((train[0], 0), (train[-1], 3)):
        frames = read_video(root / SPEC.home / SPEC.clips_dir / source.file_name).astype(float)
        frames += np.random.default_rng(0).normal(0, noise, frames.shape)
        copied.append(f"{source.name}_{source.cls}_99.mp4")
        write_mp4(folder / copied[-1], frames.clip(0, 255).astype(np.uint8), crf=5)
    data = ("--real", ".", "--synthetic", folder.name)
    tools = ("--classifier", "classifier.pth", "--vae_path", "vae", "--device", "cpu", "--draws", "3")
    result = run_script("evaluate.py", *data, *tools, "--output", "e.json", cwd=root, env=ONE_THREAD)
    assert result.stdout.strip().splitlines()[-1].endswith("26 synthetic clips, e.json and e.md")
    assert "class control" in result.stdout and "2 of 26 clips flagged as near copies" in result.stdout
    found = json.loads((root / "e.json").read_text())
    metrics = found["metrics"]
    wanted = {name for name, metric in METRICS.items() if not metric.on_request}
    assert set(metrics) == wanted - {"fid_radimagenet"}
    assert found["counts"] == {
        "synthetic": {"all": 26, "CT-0": 9, "CT-1": 8, "CT-234": 9},
        "real": {"all": 24, "CT-0": 8, "CT-1": 8, "CT-234": 8},
        "test": {"all": 6, "CT-0": 2, "CT-1": 2, "CT-234": 2},
    }

    for kind in ("pixel", "latent"):
        copies = metrics["memorisation"]["all"][kind]
        assert sorted(copies["flagged_files"]) == sorted(copied) and copies["flagged"] == 2, kind
        assert copies["smallest_distance"] < copies["threshold"] / 2 < copies["median_distance"]
        assert [metrics["memorisation"][cls][kind]["flagged"] for cls in SPEC.classes] == [1, 0, 1]
        diversity = metrics["diversity"]
        assert diversity["CT-1"]["synthetic"][kind] == pytest.approx(0, abs=1e-4)
        assert diversity["CT-0"]["synthetic"][kind] > 0.5 * diversity["CT-0"]["real"][kind]
    assert (root / "e.png").stat().st_size > 0

    assert set(metrics["fvd"]) == {"all", *SPEC.classes}
    assert metrics["fvd"]["all"]["real"] == 24 and metrics["fvd"]["all"]["floor"]["draws"] == 3
    assert metrics["fvd"]["all"]["value"] > 0 and metrics["fid"]["all"]["real"] == 8 * 24
    assert (
        metrics["vae_seq"]["all"]["real"]["count"] == 24
        and metrics["vae_seq"]["CT-0"]["synthetic"]["count"] == 9
    )
    assert found["published"]["fvd"] == 2.91 and "another protocol" in (root / "e.md").read_text()

    # class control is the share of right answers
    model, _ = classifiers.load(root / "classifier.pth")
    files = sorted(folder.glob("*.mp4"))
    answers = classifiers.score(model, (read_video(path) for path in files)).argmax(1)
    right = [SPEC.classes[a] == path.stem.rsplit("_", 2)[1] for a, path in zip(answers, files, strict=True)]
    control = metrics["class_control"]
    assert control["all"]["accuracy"] == pytest.approx(np.mean(right)) and control["all"]["count"] == 26
    by_class = sum(control[cls]["accuracy"] * control[cls]["count"] for cls in SPEC.classes)
    assert by_class == pytest.approx(sum(right))


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
    settings = EvaluationSettings(("none",), classifier=str(root / "classifier.pth"), draws=2)
    metrics = ("fvd", "prdc", "smoothness", "diversity", "memorisation")
    items = {"synthetic": real, "real": real}
    result = evaluation.evaluate(items, metrics, Instruments(SPEC, settings)).found
    figures = result["metrics"]["prdc"]["all"]
    assert figures["precision"]["value"] == figures["recall"]["value"] == figures["coverage"]["value"] == 1
    assert result["metrics"]["fvd"]["all"]["value"] == pytest.approx(0, abs=1e-6)
    for metric in ("smoothness", "diversity"):
        for row in result["metrics"][metric].values():
            assert row["real"] == row["synthetic"]
    copies = result["metrics"]["memorisation"]["all"]["pixel"]
    assert copies["flagged"] == copies["count"] == 24 and copies["nearest_is_its_own_source"] == 1
    assert "24 of 24 clips flagged" in headline(result)
    assert "| all | 24 | 8" not in markdown(result) and "## FVD" in markdown(result)


def test_vae_seq_of_real_and_synthetic(root):
    from augment.quality.vae_seq import vae_seq

    class Store:  # the store's own tests are elsewhere
        def of_clips(self, paths, clips):
            return [frames[:, None, ::8, ::8].astype(np.float16) for frames in clips]

    from augment.classifiers.clip_items import real_items, synthetic_items

    real = real_items(SPEC, root / SPEC.home, "train")
    synthetic, _ = synthetic_items([root / "synthetic"], SPEC)
    instruments = Instruments(SPEC, EvaluationSettings(("none",), vae_path="somewhere"))
    instruments.latent_store = lambda group: Store()
    metrics, items = ("vae_seq", "diversity", "memorisation"), {"synthetic": synthetic, "real": real}
    result = evaluation.evaluate(items, metrics, instruments).found
    scores = [
        vae_seq(latents) for latents in Store().of_clips(0, [read_video(item.path) for item in synthetic])
    ]
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
    assert "class control" in result.stdout and "chance 33.3 %" in result.stdout
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
    plain = (
        "--synthetic",
        folder,
        "--output",
        tmp_path / "e.json",
    )  # without a classifier: it takes long to build
    refused = fails(*plain, "--metrics", "smoothness")
    assert "made from test conditions" in refused


def judged(root, folder, real=".", metrics=("all",), classifier=True, **settings):
    """evaluate.py's result in this process, without the VAE."""
    paths = {
        "real": real and str(root / real),
        "classifier": str(root / "classifier.pth") if classifier else None,
    }
    settings = EvaluationSettings((str(folder),), metrics=metrics, draws=2, **paths, **settings)
    return evaluation.evaluate_folders(SPEC, settings).found


def test_clips_of_another_length_and_size_and_broken_ones(root, tmp_path):
    """A folder as users have it: other lengths are compared at the data set's, what cannot be compared is named."""
    folder = tmp_path / "mixed"
    shutil.copytree(root / "synthetic", folder)
    first, second, third, fourth, fifth = sorted(folder.glob("*.mp4"))[:5]
    write_mp4(first, draw_clip("CT-0", 1, frames=12))
    write_mp4(second, draw_clip("CT-0", 2, frames=1))
    write_mp4(third, draw_clip("CT-0", 3, size=96))
    fourth.write_bytes(b"")
    fifth.unlink()
    fifth.mkdir()
    (folder / "study_0001_s01_CT-0_99.mp4").symlink_to("nowhere.mp4")
    assert (SynthesisFolder(folder).names() & {fourth.name, "study_0001_s01_CT-0_99.mp4"}) == set()
    found = judged(root, folder)
    assert found["failures"].keys() == {third.name, fourth.name, fifth.name, "study_0001_s01_CT-0_99.mp4"}
    assert "has frames of 96 x 96, the others of 64 x 64" in found["failures"][third.name]
    assert found["counts"]["synthetic"]["all"] == 21
    assert found["metrics"]["smoothness"]["all"]["synthetic"]["count"] == 20  # a single frame has none
    assert found["metrics"]["memorisation"]["all"]["pixel"]["count"] == 21
    assert found["metrics"]["motion_field"]["all"]["count"] == 19
    json.dumps(found, allow_nan=False)


def test_most_clips_decide_which_frame_size_is_the_odd_one(root, tmp_path):
    """Not the first ones: leftovers of an earlier attempt may come first by name."""
    folder = tmp_path / "mixed"
    shutil.copytree(root / "synthetic", folder)
    odd = sorted(folder.glob("*.mp4"))[:6]
    for path in odd:
        write_mp4(path, draw_clip("CT-0", 1, size=96))
    for batch_size in (1, 8):
        found = judged(root, folder, classifier=False, metrics=("smoothness",), batch_size=batch_size)
        assert found["failures"].keys() == {path.name for path in odd}
        assert found["counts"]["synthetic"]["all"] == 18


def test_real_and_synthetic_clips_of_different_size(root, tmp_path):
    """What can be compared is; that the rest is not is said."""
    folder = tmp_path / "small"
    for path in (root / "synthetic").glob("*.mp4"):
        write_mp4(folder / path.name, read_video(path)[:, ::2, ::2])
    metrics = ("vae_seq", "diversity", "memorisation", "privacy", "motion_field")
    found = judged(root, folder, classifier=False, metrics=metrics, vae_path=str(root / "vae"))
    assert (
        found["metrics"]["memorisation"]["all"].keys()
        == {"pixel"}
        == found["metrics"]["privacy"]["all"].keys()
    )
    assert found["metrics"]["diversity"]["all"]["synthetic"].keys() == {"pixel", "latent"}
    assert found["metrics"]["motion_field"]["all"] is None
    (said,) = [warning for warning in found["warnings"] if "different size" in warning]
    assert "(synthetic ones of 32 x 32, real ones of 64 x 64, test ones of 64 x 64)" in said
    same = judged(root, root / "synthetic", classifier=False, metrics=("diversity",))
    assert not any("different size" in warning for warning in same["warnings"])


def test_what_was_judged_is_said_and_no_earlier_picture_stays(root, tmp_path):
    for name in ("e.png", "e_distances.png"):
        (tmp_path / name).write_bytes(b"of another evaluation")
    folder = str(root / "synthetic")
    result = evaluation.evaluate_folders(SPEC, EvaluationSettings((folder,), metrics=("smoothness",)))
    evaluation.write(result, tmp_path / "e.json")
    assert {path.name for path in tmp_path.iterdir()} == {"e.json", "e.md"}
    judged = json.loads((tmp_path / "e.json").read_text())["judged"]
    assert judged == {
        "synthetic": [folder],
        "real": None,
        "split": "train",
        "classifier": None,
        "vae_path": None,
    }
    assert f"Clips in {folder}." in (tmp_path / "e.md").read_text()


def test_a_generator_that_makes_grey_stills(root, tmp_path):
    """Frames that are all alike have no order and no movement; what remains is said, and nothing stops."""
    folder = tmp_path / "grey"
    for path in (root / "synthetic").glob("*.mp4"):
        write_mp4(folder / path.name, np.full((8, 64, 64), 90, np.uint8))
    found = judged(root, folder)
    assert found["metrics"]["slice_order"]["all"].keys() == {"real"}
    assert "order of slices" not in headline(found) and "FVD" in headline(found)
    assert "| all | real |" in markdown(found)
    json.dumps(found, allow_nan=False)


def test_one_clip_whose_features_are_no_numbers_costs_itself_alone(root, monkeypatch):
    ask = Instruments.classify

    def classify(self, clips):
        logits, features = ask(self, clips)
        for index, frames in enumerate(clips):
            if (frames == bad).all():
                features[index, 0] = np.nan
        return logits, features

    victim = sorted((root / "synthetic").glob("*.mp4"))[3]
    bad = read_video(victim)
    monkeypatch.setattr(Instruments, "classify", classify)
    found = judged(root, root / "synthetic", metrics=("fvd", "class_control"))
    assert found["failures"] == {victim.name: "has clip features that are not finite. Check the network."}
    assert found["metrics"]["fvd"]["all"]["value"] > 0


def test_a_classifier_of_mmaction2_and_one_that_saw_synthetic_clips(root, tmp_path, call_script):
    model, _ = classifiers.load(root / "classifier.pth")
    torch.save({"state_dict": model.weights()}, tmp_path / "plain.pth")
    classifiers.save(tmp_path / "joint.pth", model, "tiny", SPEC.classes, "MosMed", {"paradigm": "joint"})
    common = ("--synthetic", "synthetic", "--metrics", "class_control", "--output", tmp_path / "e.json")

    def control(*more):
        result = call_script("evaluate.py", *common, *more, cwd=root)
        return json.loads((tmp_path / "e.json").read_text())["metrics"]["class_control"], result.stderr

    ours, said = control("--classifier", "classifier.pth")
    assert "learned from synthetic" not in said
    strangers = ("--classifier", tmp_path / "plain.pth", "--classifier_name", "tiny", "--input_size", "32")
    assert control(*strangers)[0] == ours
    assert (
        "the classifier learned from synthetic clips (--paradigm joint)"
        in control("--classifier", tmp_path / "joint.pth")[1]
    )
    failed = call_script("evaluate.py", *common, "--classifier", tmp_path / "plain.pth", cwd=root, code=2)
    assert "of evaluate.py --classifier_name" in failed.stderr


def test_a_class_without_real_clips_and_one_without_synthetic(root, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(root / SPEC.home, home / SPEC.home)
    path = SPEC.metadata_path(home / SPEC.home / SPEC.clips_dir, "train")
    path.write_text("".join(line for line in path.open() if '"CT-1"' not in line))
    folder = tmp_path / "synthetic"
    shutil.copytree(root / "synthetic", folder)
    for clip in folder.glob("*_CT-234_*"):
        clip.unlink()
    found = judged(home, folder, classifier=False)
    assert found["counts"]["real"]["CT-1"] == 0 and "CT-234" not in found["metrics"]["smoothness"]
    assert found["metrics"]["memorisation"]["CT-1"] is None and found["metrics"]["memorisation"]["CT-0"]
    assert found["metrics"]["diversity"]["CT-1"].keys() == {"synthetic"}
    assert found["metrics"]["image_prior"]["CT-1"] is None
    assert any("no real clip of class CT-1" in warning for warning in found["warnings"])
    assert any(warning.startswith("only 16 synthetic clips") for warning in found["warnings"])
    assert "| CT-1 | – |" in markdown(found)


def test_nothing_is_written_beside_read_only_inputs(root, tmp_path, monkeypatch, capfd):
    """The folders of clips may be somebody else's: latents then go elsewhere, or are not kept, and that is said."""
    folder = tmp_path / "synthetic"
    shutil.copytree(root / "synthetic", folder)
    before = sorted(path.name for path in folder.iterdir())
    common = {"metrics": ("vae_seq",), "vae_path": str(root / "vae"), "classifier": False, "real": None}

    def refuse(path, array):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    elsewhere = judged(root, folder, latents_dir=str(tmp_path / "kept"), **common)
    assert len(list((tmp_path / "kept").rglob("*.npy"))) == 24
    monkeypatch.setattr("augment.quality.latents.save_npy", refuse)
    found = judged(root, folder, **common)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert found["metrics"] == elsewhere["metrics"] and not found["failures"]
    assert found["metrics"]["vae_seq"]["all"]["synthetic"]["count"] == 24
    assert capfd.readouterr().err.count("latents are not kept") == 1


@pytest.mark.slow
def test_two_machines_of_a_cluster_find_the_same(root, run_script, on_two_nodes, tmp_path):
    common = [
        "--real",
        root,
        "--synthetic",
        root / "synthetic",
        "--draws",
        5,
        "--batch_size",
        2,
        "--device",
        "cpu",
    ]
    common += ["--classifier", root / "classifier.pth", "--vae_path", root / "vae"]
    one, two = ([*common, "--output", tmp_path / f"{name}.json"] for name in ("one", "two"))
    run_script("evaluate.py", *one, "--latents_dir", tmp_path / "a", cwd=tmp_path, env=ONE_THREAD)
    on_two_nodes(["evaluate.py", *two, "--latents_dir", tmp_path / "b"], cwd=tmp_path)
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    latents = [{p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.npy")} for name in "ab"]
    assert latents[0] == latents[1] and latents[0]
