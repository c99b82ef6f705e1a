"""Data order, condition dropping and the learning rate: pure functions with simple oracles."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from ctrlgenaug.training.config import ConditionDropping, TrainingConfig
from ctrlgenaug.training.dropping import kept_conditions
from ctrlgenaug.training.order import MicroBatches, class_groups, epoch_size, generator, key_at
from ctrlgenaug.training.schedule import run_length, schedule


def config(**fields):
    return TrainingConfig(
        **{"data_name": "MosMed", "pretrained_model_path": "p", "output_dir": "o", **fields}
    )


def test_every_epoch_sees_every_sample_once_in_its_own_order():
    epochs = [[key_at(7, epoch * 11 + i, 11) for i in range(11)] for epoch in range(3)]
    for number, epoch in enumerate(epochs):
        assert sorted(item.index for item in epoch) == list(range(11))
        assert {item.epoch for item in epoch} == {number}
    assert len({tuple(item.index for item in epoch) for epoch in epochs}) == 3
    assert [item.index for item in epochs[0]] != [key_at(8, i, 11).index for i in range(11)]


CLASSES = ["CT-0"] * 5 + ["CT-1"] * 2 + ["CT-234"] * 3


def test_balanced_classes_come_equally_often_and_a_sample_never_twice_alike():
    groups = class_groups(CLASSES)
    assert [list(group) for group in groups] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]]
    places = epoch_size(10, groups)
    assert places == 15 and epoch_size(10) == 10
    line = [key_at(3, position, 10, groups) for position in range(8 * places)]
    for start in range(0, len(line), places):
        drawn = Counter(CLASSES[key.index] for key in line[start : start + places])
        assert set(drawn.values()) == {5}
    assert len(set(line)) == len(line)  # another time, other noise
    times = Counter(key.index for key in line)
    assert [times[index] for index in range(10)] == [8] * 5 + [20] * 2 + [14, 13, 13]
    for index, count in times.items():  # none of a sample's times is left out
        assert sorted(key.epoch for key in line if key.index == index) == list(range(count))


def test_classes_of_one_size_are_balanced_as_they_are():
    groups = class_groups("abcabc")
    line = [key_at(3, position, 6, groups) for position in range(12)]
    assert epoch_size(6, groups) == 6
    assert sorted(key.index for key in line[:6]) == list(range(6)) and {key.epoch for key in line[6:]} == {1}


@pytest.mark.parametrize("groups", [(), class_groups(CLASSES)], ids=["as they are", "balanced"])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_one_line_of_samples(world, groups):
    whole = [key_at(3, position, 10, groups) for position in range(4, 4 + 48)]
    dealing = {"world_size": world, "start": 4, "micro_batches": 6, "groups": groups}
    shares = [list(MicroBatches(3, 10, 8 // world, rank=rank, **dealing)) for rank in range(world)]
    dealt = [item for number in range(6) for rank in range(world) for item in shares[rank][number]]
    assert dealt == whole


def test_generators_depend_on_every_argument_and_on_nothing_else():
    def first(*arguments):
        return torch.rand(1, generator=generator(*arguments)).item()

    torch.manual_seed(5)
    value = first(1, 2, 3, "noise")
    torch.manual_seed(6)
    assert first(1, 2, 3, "noise") == value
    others = [
        first(0, 2, 3, "noise"),
        first(1, 0, 3, "noise"),
        first(1, 2, 0, "noise"),
        first(1, 2, 3, "time"),
    ]
    assert value not in others and len(set(others)) == 4


def test_conditions_are_dropped_as_often_as_published():
    names = ("image_prior", "motion_field")
    counts = Counter(
        frozenset(kept_conditions(names, ConditionDropping(), seed=3407, epoch=epoch, index=index))
        for epoch in range(20)
        for index in range(1000)
    )
    # all: 0.1 + 0.8 / 4; none: 0.1 + 0.8 / 4; one of them: 0.8 / 4
    expected = {frozenset(names): 0.3, frozenset(): 0.3}
    expected |= {frozenset([name]): 0.2 for name in names}
    for kept, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / 20000)
        assert abs(counts[kept] / 20000 - probability) < 4 * deviation
    again = kept_conditions(names, ConditionDropping(), seed=1, epoch=4, index=9)
    assert again == kept_conditions(names, ConditionDropping(), seed=1, epoch=4, index=9)


@pytest.mark.parametrize(
    ("probabilities", "kept"), [((1, 0, 1), {"a", "b"}), ((0, 1, 0), set()), ((0, 0, 0), {"a", "b"})]
)
def test_dropping_extremes(probabilities, kept):
    for index in range(50):
        assert (
            kept_conditions(("a", "b"), ConditionDropping(*probabilities), seed=0, epoch=0, index=index)
            == kept
        )


def cosine(samples, warmup, total):
    if samples < warmup:
        return samples / warmup
    return max(0.0, 0.5 * (1 + math.cos(math.pi * (samples - warmup) / (total - warmup))))


def test_schedule_is_warm_up_and_cosine_over_samples():
    settings = config(num_train_epochs=10, train_batch_size=4, lr_warmup_steps=5, schedule_batch_size=8)
    length = run_length(settings, 100, 1)
    factor = schedule(settings, length)
    assert (length.samples, length.warmup_samples, length.steps) == (1000, 40, 250)
    for samples in range(0, 1001, 20):
        assert factor(samples) == pytest.approx(cosine(samples, 40, 1000), abs=1e-12)


def test_schedule_does_not_depend_on_the_number_of_processes():
    settings = config(num_train_epochs=20, train_batch_size=16, schedule_batch_size=64, lr_warmup_steps=5)
    lengths = [run_length(settings, 480, processes) for processes in (1, 2, 4)]
    assert [length.steps for length in lengths] == [600, 300, 150]
    factors = [schedule(settings, length) for length in lengths]
    for samples in range(0, 9600, 64):
        assert factors[0](samples) == factors[1](samples) == factors[2](samples)


def test_without_a_schedule_batch_the_warm_up_is_the_published_one():
    """The published scheduler advances once a process in every step: 500 steps of it are 500 batches of one process."""
    for processes in (1, 4):
        length = run_length(config(train_batch_size=16, lr_warmup_steps=500), 100_000, processes)
        assert length.warmup_samples == 500 * 16


def test_max_train_steps_wins_over_epochs():
    length = run_length(config(max_train_steps=7, train_batch_size=2, gradient_accumulation_steps=3), 100, 2)
    assert (length.steps, length.global_batch, length.samples) == (7, 12, 84)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_batch_size": 0},
        {"lr_scheduler": "cosin"},
        {"mixed_precision": "fp8"},
        {"max_train_steps": -1},
        {"use_8bit_adam": True, "fused_adamw": True},
        {"tracker": "wandb"},
        {"lr_warmup_steps": -1},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"adam_beta1": 2.0},
        {"adam_beta2": 1.0},
        {"adam_epsilon": 0.0},
        {"ema_decay": 7.0},
        {"seed": -1},
        {"seed": 2**40},
        {"max_grad_norm": float("nan")},
        {"adam_weight_decay": -0.1},
    ],
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)


def test_each_condition_has_a_drop_probability_of_its_own():
    probabilities = ConditionDropping(0, 0, 0.5, drop_image_prior=1.0, drop_motion_field=0.0)
    names = ("image_prior", "motion_field")
    for index in range(50):
        kept = kept_conditions(names, probabilities, seed=0, epoch=0, index=index)
        assert kept == {"motion_field"}


def test_dropping_probabilities_must_fit():
    with pytest.raises(ValueError, match="keep_all"):
        ConditionDropping(keep_all=0.7, drop_all=0.6)
