"""The measure of steering, on stand-ins for models whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDPMScheduler

from cond2img.training.steering import SteeringRow, SteeringSamples, hint, judge, measure_steering
from ctrlgenaug.conditions.clip import ClipConditionsBatch

COUNT, FRAMES = 6, 2


@pytest.fixture
def samples() -> SteeringSamples:
    """Latents that are a constant a sample, which its prior repeats; motion, text and class say nothing about them."""
    value = torch.linspace(-1.5, 1.5, COUNT)
    conditions = ClipConditionsBatch(
        class_id=torch.tensor([0, 1] * (COUNT // 2)),
        text=tuple(f"text {index}" for index in range(COUNT)),
        prior=value.view(-1, 1, 1, 1).expand(-1, 256, 64, 64),
        motion=torch.zeros(COUNT, FRAMES - 1, 2, 256, 256),
        trajectories=torch.zeros(COUNT, FRAMES * 1024, FRAMES, dtype=torch.int32),
    )
    latents = value.view(-1, 1, 1, 1, 1).expand(-1, FRAMES, 4, 32, 32)
    return SteeringSamples(latents, conditions, [f"patient {index}" for index in range(COUNT)])


def oracle(schedule: DDPMScheduler, believes_prior: bool):
    """A model that knows x0 from the prior, or takes the mean 0 for it, and answers with noise or velocity."""

    def under(conditions, frames):
        known = conditions.prior[:, 0, 0, 0].view(-1, 1, 1, 1, 1) if believes_prior else torch.zeros(1)

        def predict(noisy, timesteps):
            assert noisy.shape[1] == frames
            alpha_bar = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
            clean = known.expand_as(noisy)
            noise = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
            if schedule.config.prediction_type == "epsilon":
                return noise
            return schedule.get_velocity(clean, noise, timesteps)

        return predict

    return under


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_model_that_follows_its_prior(samples, prediction_type):
    schedule = DDPMScheduler(prediction_type=prediction_type, beta_schedule="scaled_linear")
    rows = measure_steering(samples, oracle(schedule, True), schedule, num_classes=2, batch_size=4)
    by_name = {row.condition: row for row in rows if row.timestep == 850}
    prior = by_name["image prior"]
    step = 3.0 / (COUNT - 1)  # partners are two samples on, and the last two come round
    expected = (4 * (2 * step) ** 2 + 2 * (4 * step) ** 2) / COUNT
    assert prior.own == pytest.approx(0, abs=1e-5)
    assert prior.another == pytest.approx(expected, rel=1e-3)
    assert prior.none == pytest.approx(float(samples.latents.square().mean()), rel=1e-3)
    assert prior.verdict == "followed"
    assert {name for name, row in by_name.items() if row.verdict == "ignored"} <= {
        "motion field",
        "text",
        "class",
    }
    assert judge(rows).startswith("image prior: followed")


def test_a_model_that_ignores_everything(samples):
    schedule = DDPMScheduler(prediction_type="epsilon", beta_schedule="scaled_linear")
    rows = measure_steering(samples, oracle(schedule, False), schedule, num_classes=2)
    assert {row.condition for row in rows} == {"image prior", "motion field", "text", "class"}
    assert {row.timestep for row in rows} == {500, 700, 850, 950}
    for row in rows:
        assert row.verdict == "ignored" and row.own == pytest.approx(row.another)
    assert "too few" in hint(rows, rows, 4_000) and "v_prediction" in hint(rows, rows, 40_000)


def test_partners_are_of_the_same_class_and_another_patient(samples):
    conditions = replace(samples.conditions, class_id=torch.tensor([0, 0, 0, 1, 1, 2]))
    cases = ["a", "a", "b", "c", "c", "d"]
    partners = SteeringSamples(samples.latents, conditions, cases).partners()
    assert partners[:3] == [2, 2, 0]
    assert all(cases[index] != cases[partner] for index, partner in enumerate(partners))


def test_nobody_elses_condition_is_looked_for_where_there_is_nobody_else(samples):
    """Clips of one patient: with his own condition in place of his own, every model would seem to ignore it."""
    alone = replace(samples, cases=["a"] * COUNT)
    assert alone.partners() == []
    schedule = DDPMScheduler(beta_schedule="scaled_linear")
    same_text = replace(alone, conditions=replace(samples.conditions, text=("alike",) * COUNT))
    rows = measure_steering(same_text, oracle(schedule, True), schedule, num_classes=2, timesteps=(850,))
    assert [row.condition for row in rows] == ["class"]
    assert measure_steering(same_text, oracle(schedule, True), schedule, num_classes=1) == []


def test_another_text_is_another_one(samples):
    """Texts that go with the class: a partner of the same class has the same one, and would tell nothing."""
    text = tuple("solid" if index % 2 else "cystic" for index in range(COUNT))  # as the classes
    by_class = replace(samples, conditions=replace(samples.conditions, text=text))
    schedule = DDPMScheduler(beta_schedule="scaled_linear")
    told = {"solid": 1.0, "cystic": -1.0}

    def under(conditions, frames):  # goes by the text alone
        clean = torch.tensor([told.get(text, 0.0) for text in conditions.text]).view(-1, 1, 1, 1, 1)

        def predict(noisy, timesteps):
            alpha_bar = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
            return (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()

        return predict

    by_class = replace(
        by_class,
        latents=torch.tensor([told[t] for t in text]).view(-1, 1, 1, 1, 1).expand(samples.latents.shape),
    )
    rows = measure_steering(by_class, under, schedule, num_classes=1, timesteps=(850,))
    found = next(row for row in rows if row.condition == "text")
    assert found.verdict == "followed" and found.another == pytest.approx(4, rel=1e-3)
    mixed = by_class.partners(("x", "x", "x", "y", "y", "y"))  # classes 0, 1, 0, 1, 0, 1
    assert mixed == [4, 3, 4, 1, 0, 1]


def test_what_a_sample_lacks_is_not_measured(samples):
    schedule = DDPMScheduler(beta_schedule="scaled_linear")
    image = replace(samples.conditions, motion=None, trajectories=None, text=("",) * COUNT)
    rows = measure_steering(
        replace(samples, conditions=image), oracle(schedule, True), schedule, num_classes=1, timesteps=(700,)
    )
    assert [row.condition for row in rows] == ["image prior"]


def test_memorised_samples_are_named():
    test = [SteeringRow(850, "image prior", 0.4, 0.9, 0.6)]
    train = [SteeringRow(850, "image prior", 0.1, 0.9, 0.6)]
    assert "memorised" in hint(test, train, 50_000)
    assert hint(test, test, 50_000) == ""


def test_answers_that_are_no_numbers_are_not_called_ignored():
    rows = [
        SteeringRow(850, "image prior", 0.3, float("nan"), 0.4),
        SteeringRow(850, "text", 0.3, 0.3, float("inf")),
        SteeringRow(850, "class", 0.3, 0.9, None),
    ]
    assert [row.verdict for row in rows] == ["not known", "not known", "followed"]
    assert judge(rows).startswith("image prior: not known") and "ignored" not in judge(rows)
    assert "image prior or text is exchanged or left out" in hint(rows, rows, 40_000)
