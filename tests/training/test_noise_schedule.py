"""What is predicted, at which noise levels, with which weight; and where a model folder says so."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from cond2img.data import DiffusionBatch
from cond2img.pipelines import make_scheduler
from cond2img.training.diffusion import DiffusionStep
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import CONFIG, NoiseSchedule
from ctrlgenaug.training.config import DiffusionConfig, TimestepMixture, ValidationData
from ctrlgenaug.training.order import generator
from ctrlgenaug.training.timesteps import sample_timestep

VELOCITY = NoiseSchedule("v_prediction")
NO_SIGNAL = NoiseSchedule("v_prediction", rescale_betas_zero_snr=True)


# --- noise levels ----------------------------------------------------------------------------------------------------


def levels(sampling, mixture=None, count=4000):
    mixture = mixture or TimestepMixture()
    return torch.stack(
        [sample_timestep(sampling, mixture, generator(3, 0, i, "timestep")) for i in range(count)]
    )


def test_the_published_levels_are_still_the_same_numbers():
    drawn = levels("uniform", count=5)
    assert drawn.tolist() == [
        int(torch.randint(1000, (), generator=generator(3, 0, i, "timestep"))) for i in range(5)
    ]


@pytest.mark.parametrize(
    ("sampling", "mean", "above_half"),
    [
        ("uniform", 500, 0.5),
        ("high", 1000 * 2 / 3, 0.75),  # P(sqrt(u) > 1/2) = 3/4
        ("logit_normal", 500, 0.5),
        ("mixture", 500 / 2 + 1000 / 3, 0.625),
    ],
)
def test_levels_are_distributed_as_named(sampling, mean, above_half):
    drawn = levels(sampling).double()
    assert drawn.min() >= 0 and drawn.max() <= 999
    assert drawn.mean().item() == pytest.approx(mean, abs=15)
    assert (drawn >= 500).double().mean().item() == pytest.approx(above_half, abs=0.03)


def test_logit_normal_leaves_the_ends_alone():
    drawn = levels("logit_normal")
    # P(|n| > ln 9) = 0.028: as many lie below 100 or above 900
    assert ((drawn < 100) | (drawn > 900)).double().mean().item() == pytest.approx(0.028, abs=0.01)


def test_a_mixture_of_one_kind_is_that_kind():
    assert levels("mixture", TimestepMixture(0, 1, 0)).double().mean().item() == pytest.approx(667, abs=15)


def test_a_sample_s_level_depends_on_nothing_but_its_generator():
    torch.manual_seed(0)
    first = levels("mixture", count=20)
    torch.rand(100)
    assert levels("mixture", count=20).tolist() == first.tolist()
    other_epoch = [
        int(sample_timestep("mixture", TimestepMixture(), generator(3, 1, i, "timestep"))) for i in range(20)
    ]
    assert other_epoch != first.tolist()


# --- target and weight -----------------------------------------------------------------------------------------------


class Echo(DiffusionStep):
    """Predicts zero, on latents that are given: the loss is the target's mean square."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.texts = torch.zeros(1, 1, 1)

    def latents(self, batch):
        return batch.moments

    def predict(self, noisy, batch):
        return torch.zeros_like(noisy)


def batch_at(*timesteps):
    """Latents of 2 and noise of 3."""
    shape, count = (len(timesteps), 1, 4, 2, 2), len(timesteps)
    return DiffusionBatch(
        names=("",) * count,
        conditions=ClipConditionsBatch(torch.zeros(count, dtype=torch.long), ("",) * count),
        caption=torch.zeros(count, dtype=torch.long),
        timestep=torch.tensor(timesteps),
        noise=torch.full(shape, 3.0),
        posterior_noise=torch.zeros(shape),
        moments=torch.full(shape, 2.0),
    )


def test_the_target_is_noise_or_velocity():
    step, batch = Echo(), batch_at(700)
    assert float(step(batch)[0]) == 9.0
    step.set_schedule(VELOCITY)
    signal = float(step.schedule.alphas_cumprod[700])
    assert float(step(batch)[0]) == pytest.approx((signal**0.5 * 3 - (1 - signal) ** 0.5 * 2) ** 2, rel=1e-5)
    assert signal == pytest.approx(0.0825, abs=1e-4)  # Stable Diffusion's schedule


@pytest.mark.parametrize("schedule", [NoiseSchedule(), VELOCITY], ids=lambda s: s.prediction_type)
def test_min_snr_weighs_the_clean_latents_error_by_at_most_gamma(schedule):
    step = Echo()
    step.set_schedule(schedule)
    step.snr_gamma = 5.0
    levels = torch.tensor([1, 300, 900])
    signal = step.schedule.alphas_cumprod[levels]
    snr = signal / (1 - signal)
    # an error e of the noise is one of e sqrt((1 - a) / a) of the clean latents, one of the velocity e sqrt(1 - a)
    per_unit = 1 / snr if schedule.prediction_type == "epsilon" else 1 - signal
    assert torch.allclose(step.snr_weights(levels), snr.clamp(max=5) * per_unit, rtol=1e-4)
    batch = batch_at(1, 300, 900)
    target = step.target(batch.moments, batch.noise, batch.timestep)
    expected = (step.snr_weights(levels) * target.square().mean((1, 2, 3, 4))).mean()
    assert float(step(batch)[0]) == pytest.approx(float(expected), rel=1e-6)


def test_with_zero_terminal_snr_the_last_level_is_noise_alone():
    step = Echo()
    assert float(step.schedule.alphas_cumprod[-1]) == pytest.approx(0.0047, abs=1e-4)
    step.set_schedule(NO_SIGNAL)
    assert float(step.schedule.alphas_cumprod[-1]) == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(step(batch_at(999, 0))[0])
    for solver in ("ddim", "unipc", "dpmsolver++"):
        scheduler = make_scheduler(solver, NO_SIGNAL)
        scheduler.set_timesteps(4)
        assert int(scheduler.timesteps[0]) == 999, solver


@pytest.mark.parametrize("solver", ["ddim", "unipc", "dpmsolver++"])
@pytest.mark.parametrize(
    "schedule", [NoiseSchedule(), VELOCITY, NO_SIGNAL], ids=["noise", "velocity", "zero"]
)
def test_every_solver_finds_the_latents_of_a_model_that_knows_them(solver, schedule):
    """A model that always answers for the same clean latents must be led to them, whatever it predicts."""
    clean = torch.full((1, 4, 2, 2), 0.7)
    scheduler = make_scheduler(solver, schedule)
    scheduler.set_timesteps(20)
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[int(timestep)]
        noise = (x - signal.sqrt() * clean) / (1 - signal).sqrt()
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        output = noise if schedule.prediction_type == "epsilon" else velocity
        x = scheduler.step(output, timestep, x).prev_sample
    assert (x - clean).abs().max() < 0.12  # the schedule itself ends with 3 % of noise


# --- what is refused, and where it is kept ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prediction_type": "sample"}, "epsilon or v_prediction, got 'sample'"),
        (
            {"prediction_type": "epsilon", "rescale_betas_zero_snr": True},
            "needs prediction_type=v_prediction",
        ),
        ({"timestep_sampling": "low"}, "uniform, high, logit_normal, mixture, got 'low'"),
        ({"snr_gamma": 0.0}, "snr_gamma must be above 0"),
        ({"snr_gamma": -5.0}, "snr_gamma must be above 0"),
        ({"steering_samples": -1}, r"steering_samples must be 0 \(none\) or more, got -1"),
        ({"validation_samples": -1}, r"validation_samples must be 0 \(none\) or more, got -1"),
    ],
)
def test_impossible_values_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(data_name="MosMed", pretrained_model_path="p", output_dir="o", **fields)


def test_a_mixture_of_nothing_is_refused():
    for shares in ((0, 0, 0), (1, -0.1, 0), (math.nan, 1, 0), (1, math.inf, 0)):
        with pytest.raises(ValueError, match="shares of at least 0"):
            TimestepMixture(*shares)


def test_guidance_of_validation_is_checked_before_hours_of_training():
    for scale in (-1.0, math.nan):
        with pytest.raises(ValueError, match="guidance_scale must be finite and 0 or more"):
            ValidationData(guidance_scale=scale)


def test_a_folder_without_a_scheduler_config_is_the_published_schedule(tmp_path):
    assert NoiseSchedule.of_folder(tmp_path) == NoiseSchedule()
    assert NoiseSchedule.of_folder(tmp_path, "v_prediction") == VELOCITY
    NO_SIGNAL.write(tmp_path)
    assert NoiseSchedule.of_folder(tmp_path) == NO_SIGNAL


def test_a_scheduler_config_that_says_the_same_stays_as_it_is(tmp_path):
    path = tmp_path / CONFIG
    path.parent.mkdir()
    path.write_text('{"_class_name": "PNDMScheduler", "skip_prk_steps": true}')
    before = path.read_bytes()
    NoiseSchedule().write(tmp_path)
    assert path.read_bytes() == before
    VELOCITY.write(tmp_path)
    noted = json.loads(path.read_text())
    assert noted["prediction_type"] == "v_prediction" and noted["skip_prk_steps"] is True


def test_weights_and_scheduler_config_that_differ_are_both_named(tmp_path):
    VELOCITY.write(tmp_path)
    with pytest.raises(UserError, match="v_prediction, the UNet beside it was trained for epsilon"):
        NoiseSchedule.of_folder(tmp_path, "epsilon")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prediction_type": "sample"}', "got 'sample'"),
        ('{"prediction_type": ["epsilon"]}', r"got \['epsilon'\]"),
        (
            '{"prediction_type": "v_prediction", "rescale_betas_zero_snr": "false"}',
            "rescale_betas_zero_snr 'false', which is neither true nor false",
        ),
        (
            '{"beta_schedule": "linear"}',
            "another noise schedule .*beta_schedule 'linear', not 'scaled_linear'",
        ),
        ('{"num_train_timesteps": 500}', "num_train_timesteps 500, not 1000"),
        ('{"trained_betas": [0.1, 0.2]}', "trained_betas"),
        ("[]", "no scheduler's config"),
        ("{", "not readable JSON"),
    ],
)
def test_a_damaged_scheduler_config_is_named(tmp_path, text, message):
    path = tmp_path / CONFIG
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        NoiseSchedule.of_folder(tmp_path)


def test_an_unknown_type_in_the_unets_config_is_named_there(tmp_path):
    with pytest.raises(
        UserError, match="UNet's config.json: prediction_type must be epsilon or v_prediction"
    ) as e:
        NoiseSchedule.of_folder(tmp_path, "sample")
    assert "scheduler_config" not in str(e.value)
