"""Metrics against plain loops and sets whose figures are known: coverage, halves, radiomics, networks, membership."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from clip_home import SPEC
from torchvision.models import resnet50

from augment.classifiers.clip_items import Item
from augment.quality import networks
from augment.quality.clip_sets import ClipSet
from augment.quality.instruments import EvaluationSettings, Instruments
from augment.quality.metrics import METRICS, Run, Selection
from augment.quality.metrics.copies import membership_auc
from augment.quality.metrics.distributions import frd
from augment.quality.neighbours import prdc
from augment.quality.resampling import against_halves, mean_interval
from ctrlgenaug.errors import UserError


def plain_prdc(real, synthetic, k):
    """The definitions, sample by sample."""

    def away(a, b):
        return float(np.linalg.norm(a - b))

    def radius(sample, samples):
        return sorted(away(sample, other) for other in samples)[k]

    radii, others = [radius(r, real) for r in real], [radius(s, synthetic) for s in synthetic]
    inside = np.array(
        [[away(r, s) < radius_r for s in synthetic] for r, radius_r in zip(real, radii, strict=True)]
    )
    recalled = [any(away(r, s) < o for s, o in zip(synthetic, others, strict=True)) for r in real]
    covered = [min(away(r, s) for s in synthetic) < radius_r for r, radius_r in zip(real, radii, strict=True)]
    return {
        "precision": inside.any(0).mean(),
        "recall": np.mean(recalled),
        "density": inside.sum() / (k * len(synthetic)),
        "coverage": np.mean(covered),
    }


def test_prdc_is_its_definition():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * 0.7 + 0.3
    for k in (3, 5):
        assert prdc(real, synthetic, k) == pytest.approx(plain_prdc(real, synthetic, k))


def test_prdc_tells_repetition_from_noise():
    rng = np.random.default_rng(1)
    real = np.concatenate([rng.normal(size=(100, 4)), rng.normal(size=(100, 4)) + 20])
    one_mode, wild = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) * 40
    dropped, noise = prdc(real, one_mode), prdc(real, wild)
    assert dropped["precision"] > 0.9 and dropped["recall"] < 0.6 and dropped["coverage"] < 0.6
    assert noise["precision"] < 0.1 and noise["recall"] > 0.9
    assert prdc(real, real)["coverage"] == 1


def test_every_figure_has_the_floor_of_the_real_halves():
    rng = np.random.default_rng(2)
    real, patients = rng.normal(size=(80, 3)), [f"p{index // 4}" for index in range(80)]
    good = against_halves(prdc, real, patients, rng.normal(size=(80, 3)), 20, 0)
    bad = against_halves(prdc, real, patients, rng.normal(size=(80, 3)) + 5, 20, 0)
    for name in ("precision", "recall", "density", "coverage"):
        assert good[name].floor == bad[name].floor
        assert abs(good[name].matched.mean - good[name].floor.mean) < 0.2
        assert bad[name].matched.mean < 0.3 < good[name].floor.mean
        low, high = good[name].floor.interval
        assert low <= good[name].floor.mean <= high


def test_intervals_of_means_are_of_patients():
    """Ten clips of one patient are one piece of evidence, however alike they are."""
    values = np.repeat(np.random.default_rng(0).normal(size=12), 10)
    patients = np.repeat([f"p{index}" for index in range(12)], 10).tolist()
    low, high = mean_interval(values, patients, 0)
    alone = mean_interval(values, [str(index) for index in range(120)], 0)
    assert low < values.mean() < high and high - low > 2.5 * (alone[1] - alone[0])
    assert mean_interval(values, ["one"] * 120, 0) is None


def test_membership():
    near, far = np.arange(1.0, 11), np.arange(11.0, 21)
    told = membership_auc(near, far, 0)
    assert told["auc"] == 1 and told["interval"] == (1, 1) and (told["train"], told["test"]) == (10, 10)
    assert membership_auc(far, near, 0)["auc"] == 0
    same = membership_auc(near, near, 0)
    assert same["auc"] == 0.5 and same["interval"][0] < 0.5 < same["interval"][1]


def privacy(made):
    """The metric on sets of 2 x 2 thumbnails: 12 training patients, 8 new ones, and ``made`` of the training ones."""
    rng = np.random.default_rng(3)
    train, test = rng.uniform(0, 255, (12, 8, 2, 2)), rng.uniform(0, 255, (8, 8, 2, 2))
    sets = {}
    for name, values in (("synthetic", made(train)), ("real", train), ("test", test)):
        items = [
            Item(f"{name}{i}", i % 3, f"{'q' if name == 'test' else 'p'}{i}") for i in range(len(values))
        ]
        sets[name] = ClipSet(name, items, {"thumbnails": values})
    run = Run(sets, Instruments(SPEC, EvaluationSettings(("none",))))
    return METRICS["privacy"].compute(Selection(run, None))["pixel"]


def test_a_set_of_copies_gives_its_patients_away():
    copies = privacy(lambda train: train + 1)
    assert copies["nearer_than_test_clips"] == 1 and copies["nearer_than_the_nearest_test_clips"] == 1
    assert copies["membership"]["auc"] == 1 and copies["median_distance"] == pytest.approx(1)
    fresh = privacy(lambda train: np.random.default_rng(4).uniform(0, 255, train.shape))
    assert 0.2 < fresh["nearer_than_test_clips"] < 0.8 and 0.2 < fresh["membership"]["auc"] < 0.8


def test_radimagenet_weights_in_both_spellings(tmp_path):
    torch.manual_seed(0)
    network = resnet50().eval()
    names = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    plain = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    numbered = {
        ".".join(["backbone", names[key.split(".")[0]], *key.split(".")[1:]]): value
        for key, value in plain.items()
    }
    torch.save(plain, tmp_path / "plain.pt")
    torch.save(numbered, tmp_path / "numbered.pt")
    frames = np.random.default_rng(0).integers(0, 256, (1, 224, 224), dtype=np.uint8)
    network.fc = torch.nn.Identity()
    with torch.no_grad():
        pixels = torch.from_numpy(frames)[:, None].float().expand(-1, 3, -1, -1)
        expected = network((pixels - 127.5) * 2 / 255).numpy()
    for name in ("plain.pt", "numbered.pt"):
        extractor = networks.radimagenet(tmp_path / name, "cpu")
        np.testing.assert_allclose(extractor.extract([frames])[0], expected, rtol=1e-3, atol=1e-4)
    torch.save({"backbone.0.weight": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "torn.pt").write_bytes(b"torn")
    with pytest.raises(UserError, match="is not RadImageNet's ResNet50"):
        networks.radimagenet(tmp_path / "other.pt", "cpu")
    with pytest.raises(UserError, match="cannot be loaded safely"):
        networks.radimagenet(tmp_path / "torn.pt", "cpu")
    with pytest.raises(UserError, match="does not exist"):
        networks.radimagenet(tmp_path / "none.pt", "cpu")


def test_frd_is_the_logarithm_of_a_distance_of_standardised_features():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 3)) * [1, 100, 0] + [0, 5, 7]  # one feature in large units, one constant
    apart = 2 * real.std(0)
    shifted = real + [apart[0], 0, 0]
    assert frd(real, shifted)["distance"] == pytest.approx(np.log(4))
    assert frd(real, real + [0, apart[1], 0])["distance"] == pytest.approx(np.log(4))  # in its own units
    broken = shifted.copy()
    broken[0, 1] = np.nan  # the feature is left out
    assert frd(real, broken)["distance"] == pytest.approx(np.log(4))


def test_radiomics_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "frd_score.frd", None)
    with pytest.raises(UserError, match="needs frd-score and pyradiomics"):
        networks.radiomics()


def test_radiomics_where_they_are_installed():
    pytest.importorskip("radiomics")
    pytest.importorskip("frd_score")
    clips = [np.random.default_rng(seed).integers(0, 256, (2, 64, 64), dtype=np.uint8) for seed in range(2)]
    found = networks.radiomics().extract(clips)
    assert found.shape[:2] == (2, 2) and found.shape[2] > 300 and np.isfinite(found).mean() > 0.9
