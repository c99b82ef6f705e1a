"""Released synthetic sets, folders of {clip}_{class}_{seed}.mp4 and nothing else: scored, filtered, evaluated."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from test_vae_seq import clip

from augment import classifiers
from augment.quality.data_set import data_set_of
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.video import write_mp4

# Of each data set two source clips of two classes.
SOURCES = {
    "MosMed": [("study_0001_s01", "CT-0"), ("study_0002_s16", "CT-234")],
    "MRNet": [("0003_s01", "0"), ("0004_s01", "1")],
    "ACDC": [("patient001_frame01_s01", "NOR"), ("patient002_frame12_s09", "RV")],
    "TUSC": [("Nodule43_f16", "TR4"), ("Nodule7_f1", "TR2-3")],
    "Carotid": [("case12_0007", "stable"), ("case13_0101", "vulnerable")],
}


def flags(**values):
    return argparse.Namespace(data=None, data_name=None, **values)


def names_of(data_name, seeds=4):
    return [f"{name}_{cls}_{seed}.mp4" for name, cls in SOURCES[data_name] for seed in range(66, 66 + seeds)]


@pytest.mark.parametrize("data_name", SOURCES)
def test_the_data_set_is_seen_from_the_names(data_name, tmp_path):
    for name in names_of(data_name):
        (tmp_path / name).write_bytes(b"a clip")
    asked = flags() if data_name != "Carotid" else argparse.Namespace(data=None, data_name="Carotid")
    spec = data_set_of(asked, [tmp_path])
    assert spec.data_name == data_name
    assert {cls for _, cls in SOURCES[data_name]} <= set(spec.classes)
    if data_name == "Carotid":  # nothing but the names tells its classes
        assert spec.classes == ("stable", "vulnerable")


def test_a_name_given_wins_and_a_wrong_one_is_said(tmp_path):
    for name in names_of("ACDC"):
        (tmp_path / name).write_bytes(b"a clip")
    assert data_set_of(argparse.Namespace(data=None, data_name="MosMed"), [tmp_path]).data_name == "MosMed"
    assert data_set_of(flags(), [tmp_path], {"data_name": "TUSC"}).data_name == "TUSC"
    with pytest.raises(UserError, match="Did you mean Carotid"):
        data_set_of(argparse.Namespace(data=None, data_name="Carotis"), [tmp_path])


def test_the_classifier_knows_the_classes_that_no_clip_is_left_of(tmp_path):
    """A class that the filter emptied would move the others' numbers."""
    (tmp_path / "case13_0101_vulnerable_66.mp4").write_bytes(b"a clip")
    asked = argparse.Namespace(data=None, data_name="Carotid")
    ours = {"data_name": "Carotid", "classes": ["stable", "vulnerable"]}
    assert data_set_of(asked, [tmp_path], ours).class_id("vulnerable") == 1
    asked = argparse.Namespace(data=None, data_name="MRNet")
    with pytest.raises(UserError, match=r"is a classifier of 1, 0 \(MRNet\), MRNet has 0, 1"):
        data_set_of(asked, [tmp_path], {"data_name": "MRNet", "classes": ["1", "0"]})


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """``model/vae-pretrained``, and a classifier of each of two data sets."""
    from golden_vectors import SMALL_VAE

    from cond2img.models import AutoencoderKL

    root = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    AutoencoderKL(**SMALL_VAE).save_pretrained(root / "model" / "vae-pretrained")
    classes = datasets.get("ACDC").classes
    classifiers.save(root / "five.pth", classifiers.build("tiny", 5, 32), "tiny", classes, "ACDC")
    classifiers.save(
        root / "ours.pth", classifiers.build("tiny", 2, 32), "tiny", ("stable", "vulnerable"), "Carotid"
    )
    return root


@pytest.mark.parametrize(
    ("data_name", "more", "classifier"),
    [("Carotid", ("--data_name", "Carotid"), "ours.pth"), ("ACDC", (), "five.pth")],
)
def test_scored_filtered_and_evaluated(data_name, more, classifier, networks, tmp_path, call_script):
    names = names_of(data_name)
    for number, name in enumerate(names):
        write_mp4(tmp_path / "set" / name, clip(number))
    model = ("--load_2d_pretrained_model_name", networks / "model")
    call_script("VAE-Seq.py", *model, "--syn_data_p", "set", "--device", "cpu", cwd=tmp_path)
    assert set(json.loads((tmp_path / "set" / "VAE_Seq_train_results.json").read_text())) == set(names)

    arguments = ("--syn_data_p", "set", "--cls_model_name", "tiny", "--cls_model_pth", networks / classifier)
    call_script("noisy_data_filter.py", *arguments, *model, "--save_base", "kept", *more, cwd=tmp_path)
    record = json.loads((tmp_path / "kept" / "filter_report.json").read_text())
    assert record["settings"]["data_name"] == data_name and len(record["samples"]) == 8
    assert {row["class"] for row in record["samples"]} == {cls for _, cls in SOURCES[data_name]}
    assert all(row["loss"] is not None for row in record["samples"])

    arguments = (
        "--synthetic",
        "set",
        "--classifier",
        networks / classifier,
        "--vae_path",
        networks / "model",
    )
    result = call_script("evaluate.py", *arguments, "--device", "cpu", *more, cwd=tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["data_name"] == data_name and found["counts"].keys() == {"synthetic"}
    wanted = {"vae_seq", "smoothness", "slice_order", "diversity", "seed_diversity", "class_control"}
    assert found["metrics"].keys() == wanted
    assert found["steering"]["class_control"]["all"]["count"] == 8
    assert "no fvd without --real" in result.stderr


def test_a_classifier_learns_from_the_set_alone(tmp_path, call_script):
    """The epoch is chosen, and the classifier tested, on clips of sources that are not learned from; that is said."""
    for source in range(8):
        cls = "stable" if source % 2 else "vulnerable"
        for seed in (66, 67):
            write_mp4(tmp_path / "set" / f"case{source}_0001_{cls}_{seed}.mp4", clip(10 * source + seed))
    arguments = (
        "--data_name",
        "Carotid",
        "--synthetic_dir",
        "set",
        "--classifier",
        "tiny",
        "--input_size",
        "32",
    )
    more = ("--epochs", "1", "--output_dir", "run", "--device", "cpu")
    result = call_script(
        "train_classifier.py", *arguments, "--paradigm", "synthetic_only", *more, cwd=tmp_path
    )
    assert "on synthetic clips of held-out sources" in result.stdout
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["tested_on"] == "synthetic clips of held-out sources"
    sizes = {name: sum(numbers.values()) for name, numbers in found["clips"].items()}
    assert sizes == {"train": 0, "synthetic": 8, "validation": 4, "test": 4}
    _, info = classifiers.load(tmp_path / "run" / "classifier.pth")
    assert info["classes"] == ["stable", "vulnerable"] and info["data_name"] == "Carotid"
    refused = call_script(
        "train_classifier.py", *arguments, "--paradigm", "joint", *more, cwd=tmp_path, code=2
    )
    assert "error: " in refused.stderr and "Traceback" not in refused.stderr
