"""Figures against scikit-learn, intervals against what bootstrapping by hand gives, patients against clips."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from augment.classifiers.clip_items import Item
from augment.classifiers.metrics import both_levels, by_patient, figures, summarise, weighted_auc
from augment.classifiers.run_report import write_predictions

CLASSES = ("a", "b", "c")


def example(number=60, seed=0, ties=False):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, number)
    scores = draw.random((number, 3)) + 0.6 * np.eye(3)[labels]
    if ties:
        scores = scores.round(1)
    chances = scores / scores.sum(1, keepdims=True)
    return labels, chances, [f"p{index // 3}_{label}" for index, label in enumerate(labels)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_scikit_learns(seed, ties):
    labels, chances, patients = example(seed=seed, ties=ties)
    predicted = chances.argmax(1)
    found = figures(labels, chances, CLASSES, patients, resamples=0)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "auc": sk.roc_auc_score(labels, chances, multi_class="ovr"),
    }
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-6), key
    assert found["confusion"] == sk.confusion_matrix(labels, predicted).tolist()
    for c, cls in enumerate(CLASSES):
        row, truth, guess = found["per_class"][cls], labels == c, predicted == c
        assert row["sensitivity"] == pytest.approx(sk.recall_score(truth, guess), abs=1e-6)
        assert row["specificity"] == pytest.approx(sk.recall_score(~truth, ~guess), abs=1e-6)
        assert row["precision"] == pytest.approx(sk.precision_score(truth, guess, zero_division=0), abs=1e-6)
        assert row["f1"] == pytest.approx(sk.f1_score(truth, guess, zero_division=0), abs=1e-6)
        assert row["auc"] == pytest.approx(sk.roc_auc_score(truth, chances[:, c]), abs=1e-6)


def test_weights_count_as_repeated_samples():
    draw = np.random.default_rng(1)
    scores, positive = draw.random(20).round(1), draw.random(20) < 0.5
    weights = draw.integers(0, 4, (5, 20))
    for row, found in zip(weights, weighted_auc(scores, positive, weights), strict=True):
        assert found == pytest.approx(sk.roc_auc_score(positive.repeat(row), scores.repeat(row)))
    assert np.isnan(weighted_auc(scores, np.ones(20, bool), weights)).all()


def test_a_class_without_clips_is_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = figures(np.array([0, 0, 1, 1]), np.eye(3)[[0, 0, 1, 2]], CLASSES, list("wxyz"), resamples=20)
    assert found["balanced_accuracy"] == 0.75
    assert found["per_class"]["c"]["sensitivity"] is None and found["per_class"]["c"]["auc"] is None
    assert found["per_class"]["c"]["specificity"] == 0.75
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)


def test_perfect_and_constant_classifiers():
    perfect = summarise(np.diag([5, 7, 9]))
    assert perfect["accuracy"] == perfect["balanced_accuracy"] == perfect["macro_f1"] == 1
    constant = summarise(np.array([[5, 0, 0], [7, 0, 0], [9, 0, 0]]))
    assert constant["accuracy"] == pytest.approx(5 / 21) and constant["balanced_accuracy"] == pytest.approx(
        1 / 3
    )


def test_patients_are_means_of_their_clips():
    labels, chances, names = by_patient(
        np.array([1, 0, 1]), np.array([[0.2, 0.8], [0.9, 0.1], [0.6, 0.4]]), ["x", "y", "x"]
    )
    assert names == ["x", "y"] and labels.tolist() == [1, 0]
    np.testing.assert_allclose(chances, [[0.4, 0.6], [0.9, 0.1]])


def test_a_patient_with_clips_of_two_classes_is_one_of_each():
    """Such as a patient with two nodules: the mean over both would be right for neither."""
    chances = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    labels, means, names = by_patient(np.array([0, 1, 1, 0]), chances, ["x", "x", "x", "y"])
    assert names == ["x", "x", "y"] and labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(means, [[0.9, 0.1], [0.15, 0.85], [0.7, 0.3]])
    found = both_levels(np.array([0, 1, 1, 0]), chances, ("a", "b"), ["x", "x", "x", "y"], resamples=0)
    assert found["patient"]["confusion"] == [[2, 0], [0, 1]]


def test_what_is_written_down_gives_the_same_figures(tmp_path):
    """Of a sure classifier too, whose answers differ in the seventh decimal: rounded, they would be ties."""
    margins = np.array([15.0, 17.0, 16.0, 18.0])
    chances = np.stack([1 / (1 + np.exp(-margins)), 1 / (1 + np.exp(margins))], 1)
    items = [Item(Path(f"{index}.avi"), label, f"p{index}") for index, label in enumerate((1, 0, 1, 0))]
    write_predictions(tmp_path / "p.csv", items, chances, ("a", "b"))
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    read = np.array([[float(row["p_a"]), float(row["p_b"])] for row in rows])
    assert read.tolist() == chances.tolist()
    labels = np.array([item.label for item in items])
    assert both_levels(labels, read, ("a", "b"), [item.patient for item in items])["patient"]["auc"] == 1.0


def test_intervals_draw_patients_not_clips():
    # ten patients a class, each with 10 equal clips: intervals by clip would be sqrt(10) too narrow
    draw = np.random.default_rng(4)
    right = np.concatenate(
        [draw.permutation([1] * 6 + [0] * 4) for _ in range(2)]
    )  # 60 % of each class's patients
    labels = np.repeat([0] * 10 + [1] * 10, 10)
    predicted = np.where(np.repeat(right, 10) == 1, labels, 1 - labels)
    patients = [f"p{index // 10}" for index in range(200)]
    found = both_levels(labels, np.eye(2)[predicted], ("a", "b"), patients, resamples=4000)
    low, high = found["clip"]["intervals"]["accuracy"]
    assert [low, high] == found["patient"]["intervals"]["accuracy"]
    by_hand = np.random.default_rng(9).binomial(10, 0.6, (20000, 2)).mean(1) / 10
    np.testing.assert_allclose([low, high], np.percentile(by_hand, (2.5, 97.5)), atol=0.051)
    assert high - low > 0.3
    same = both_levels(labels, np.eye(2)[predicted], ("a", "b"), patients, resamples=4000)
    assert same == found
