"""The comparison's arithmetic, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from augment.comparison.statistics import (
    Estimate,
    Predictions,
    calibration_error,
    estimate,
    figures,
    levels_and_gains,
    resample,
    verdict,
    worth_in_patients,
)


def predictions(right, labels, seeds=None, confidence=0.8):
    """An arm from (S, P) of whether each training is right about each patient; two classes."""
    right, labels = np.asarray(right, bool), np.asarray(labels)
    chosen = np.where(right, labels, 1 - labels)
    probabilities = np.where(np.arange(2) == chosen[..., None], confidence, 1 - confidence)
    names = tuple(f"patient{index}" for index in range(len(labels)))
    return Predictions(tuple(seeds or range(len(right))), names, labels, probabilities)


def test_figures_by_hand():
    labels = [0, 0, 0, 1]
    arm = predictions([[1, 1, 0, 1], [1, 1, 1, 0]], labels)
    weights = np.array([[1.0, 1, 1, 1], [1, 0, 2, 1]])
    found = figures(arm, weights)
    np.testing.assert_allclose(found["accuracy"], [[0.75, 0.75], [0.5, 0.75]])
    np.testing.assert_allclose(found["balanced_accuracy"], [[5 / 6, 0.5], [2 / 3, 0.5]])
    np.testing.assert_allclose(found["sensitivity/1"], [[1, 0], [1, 0]])
    # the positive of class 1 scores 0.8; negatives 0.2, 0.2 and 0.8 (a tie, which counts half)
    np.testing.assert_allclose(found["auc/1"][0], [(1 + 1 + 0.5) / 3, 0.5])
    np.testing.assert_allclose(found["ece"], [[0.05, 0.05], [0.3, 0.05]], atol=1e-12)


def test_calibration_error_by_hand():
    # confidences 0.65 (right), 0.65 (wrong), 0.95 (right): bins of 2 and 1 patients
    probabilities = np.array([[0.65, 0.35], [0.65, 0.35], [0.05, 0.95]])
    labels, ones = np.array([0, 1, 1]), np.ones((1, 3))
    found = calibration_error(probabilities, labels, ones)
    assert found[0] == pytest.approx((2 * abs(0.65 - 0.5) + abs(0.95 - 1)) / 3)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1]), np.ones((1, 2)))[0] == 0


def test_a_mean_is_over_the_drawn_trainings():
    values = np.array([[0.2, 0.4], [0.2, 0.4], [0.2, 0.4], [0.2, 0.4]])
    trainings = np.array([[1, 1], [2, 0], [0, 2], [1, 1]])
    found = estimate(values, trainings)
    assert found.value == pytest.approx(0.3)
    assert found.low == pytest.approx(np.percentile([0.2, 0.3, 0.4], 2.5))


def test_resamples_keep_class_sizes_and_are_shared():
    labels = np.array([0] * 7 + [1] * 3)
    drawn = resample(labels, 5, 50)
    assert (drawn.patients[:, :7].sum(1) == 7).all() and (drawn.patients[:, 7:].sum(1) == 3).all()
    assert (drawn.seeds.sum(1) == 5).all() and (drawn.patients[0] == 1).all() and (drawn.seeds[0] == 1).all()
    again = resample(labels, 5, 50)
    np.testing.assert_array_equal(drawn.patients, again.patients)
    np.testing.assert_array_equal(drawn.patients, resample(labels, 3, 50).patients)


def test_a_gain_is_paired():
    """Two arms that fail at the same hard patients: the gain is certain although each level is not."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1] * 20)
    base = rng.random((5, 40)) < 0.5
    better = base.copy()
    better[:, :4] = better[:, 20:24] = True
    base[:, :4] = base[:, 20:24] = False
    levels, gains = levels_and_gains(predictions(better, labels), predictions(base, labels), 500)
    gain = gains["balanced_accuracy"]
    assert gain.value == pytest.approx(0.2) and gain.low > 0
    assert gain.high - gain.low < levels["balanced_accuracy"].high - levels["balanced_accuracy"].low


def test_gains_pair_common_seeds_alone():
    labels = [0, 0, 1, 1]
    arm = predictions([[1, 1, 1, 1], [0, 0, 0, 0]], labels, seeds=(3, 9))
    base = predictions([[1, 0, 1, 0], [0, 0, 0, 0]], labels, seeds=(3, 4))
    levels, gains = levels_and_gains(arm, base, 100)
    assert levels["accuracy"].value == 0.5 and gains["accuracy"].value == 0.5
    assert levels_and_gains(arm, None, 100)[1] == {}
    assert levels_and_gains(arm, predictions([[1] * 4], labels, seeds=(7,)), 100)[1] == {}


def test_intervals_hold_what_they_promise():
    """Coverage: arms of known accuracy 0.7 and 0.8, patients and trainings both random."""
    inside, rng = 0, np.random.default_rng(1)
    for _ in range(120):
        labels = np.array([0] * 30 + [1] * 30)
        hard, luck = rng.normal(0, 0.5, 60), rng.normal(0, 0.05, (5, 1))
        draws = rng.normal(0, 1, (5, 60)) + hard
        scale = np.sqrt(1.25)
        base = predictions(draws < scale * 0.5244 + luck, labels)  # the 70 % point of a normal distribution
        arm = predictions(draws < scale * 0.8416 + luck, labels)  # the 80 % point
        gain = levels_and_gains(arm, base, 300)[1]["accuracy"]
        inside += gain.low <= 0.1 <= gain.high
    assert inside >= 0.88 * 120


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.1, "helps"),
        (-0.2, -0.01, "hurts"),
        (-0.01, 0.1, "cannot be told apart"),
        (0, 0.1, "cannot be told apart"),
    ],
)
def test_verdict(low, high, said):
    assert verdict(Estimate(0.05, low, high)) == said


@pytest.mark.parametrize(
    ("value", "values", "worth"),
    [
        (0.6, (0.6, 0.7, 0.9), (6, "")),
        (0.65, (0.6, 0.7, 0.9), (6 * 2**0.5, "")),
        (0.8, (0.6, 0.7, 0.9), (12 * 2**0.5, "")),
        (0.9, (0.6, 0.7, 0.9), (24, "")),
        (0.5, (0.6, 0.7, 0.9), (6, "<")),
        (0.95, (0.6, 0.7, 0.9), (24, ">")),
        (0.65, (0.6, 0.5, 0.7), (12 * 2**0.5, "")),  # more clips that seem to harm count as no gain
        (0.6, (0.6, 0.5, 0.7), (6, "")),
    ],
)
def test_what_a_figure_is_worth_in_real_patients(value, values, worth):
    number, sign = worth_in_patients(value, (6, 12, 24), values)
    assert (pytest.approx(number), sign) == worth
