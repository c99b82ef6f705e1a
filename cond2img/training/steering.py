"""Whether a model follows its conditions, as a figure: how well clean latents are recovered with a sample's own, with
another sample's and without a condition.

A model that follows its image prior recovers a frame better with the frame's own prior than with another patient's; for
one that ignores it, all three are alike. Only forward passes are needed, no sampling, so validation can afford it.
The error is the mean square of ``x0 - x0_hat`` in latents of deviation about 1, so 1.0 is what the data's mean would
reach. It says most at high noise, where little of the sample itself is left to go by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctrlgenaug.conditions.clip import ClipConditionsBatch

if TYPE_CHECKING:
    from cond2img.data import LabelledFrameData

TIMESTEPS = (500, 700, 850, 950)
JUDGED_TIMESTEP = 850
"""Where the verdict is taken: the sample is mostly noise there, and the model still far from guessing the mean."""

# Own error over another's at `JUDGED_TIMESTEP`, up to which a condition counts as followed, and as followed in part.
FOLLOWED, PARTLY = 0.5, 0.95
MEMORISED = 0.5  # error of training samples over that of test samples, below which the model knows its samples by heart
STEERING_SETS_IN = 12_000  # samples, by which small models followed their prior; see docs/steering.md

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, F, 4, h, w), timesteps (B,)) -> the model's output in the latents' shape."""

Conditioned = Callable[[ClipConditionsBatch, int], Predict]
"""(conditions of B samples, frames F) -> the model under them; what does not depend on the noise is encoded once."""


@dataclass(frozen=True)
class SteeringRow:
    """Errors of the clean latents at one timestep, by what one condition was replaced with.

    Attributes:
        timestep: 0 to 999.
        condition: ``image prior``, ``motion field``, ``text`` or ``class``.
        own: with everything of the sample's own.
        another: with this condition of another sample, of the same class where there is one; for ``class``, the mean
            over the others.
        none: with this condition dropped; None for the class, which cannot be.
    """

    timestep: int
    condition: str
    own: float
    another: float
    none: float | None

    @property
    def finite(self) -> bool:
        """Whether all errors are numbers; without one condition alone they may be none, which is not "ignored"."""
        return all(math.isfinite(error) for error in (self.own, self.another, self.none) if error is not None)

    @property
    def ratio(self) -> float:
        """Own error over another's: well below 1 if the condition is followed, 1 if it is ignored."""
        return self.own / self.another if self.another > 0 else 1.0

    @property
    def verdict(self) -> str:
        """``followed``, ``followed in part`` or ``ignored``; ``not known`` where an error is no number."""
        if not self.finite:
            return "not known"
        return (
            "followed"
            if self.ratio <= FOLLOWED
            else "followed in part"
            if self.ratio <= PARTLY
            else "ignored"
        )


@dataclass(frozen=True)
class SteeringSamples:
    """What is measured on.

    Attributes:
        latents: (N, F, 4, h, w), clean.
        conditions: of the same N samples, none dropped.
        cases: the patient or volume of each, so that "another" is not the same patient's next slice.
    """

    latents: Tensor
    conditions: ClipConditionsBatch
    cases: Sequence[str]

    def partners(self, unlike: Sequence[str] | None = None) -> list[int]:
        """For each sample the next one of the same class and another case; of any class where there is none.

        Empty where all samples are of one case: nobody else's condition could stand in place of a sample's own.

        Args:
            unlike: what a partner must differ in, a value a sample; None: in its case. A text may be that of many
                patients, above all of one class: with the same text in place of the own one, nothing would differ.
        """
        classes, values = self.conditions.classes.tolist(), self.cases if unlike is None else unlike
        if len(set(values)) < 2:
            return []

        def partner(index: int) -> int:
            turn = [(index + step) % len(classes) for step in range(1, len(classes))]
            others = [other for other in turn if values[other] != values[index]]
            return next((other for other in others if classes[other] == classes[index]), others[0])

        return [partner(index) for index in range(len(classes))]


def collect_samples(
    data: LabelledFrameData, count: int, encode: Callable[[Tensor], Tensor], device: torch.device | str
) -> SteeringSamples:
    """Samples at even distances over a split, with all their conditions.

    Args:
        data: frames or clips.
        count: how many, if there are so many.
        encode: pixels (F, 1, H, W) in [-1, 1] -> clean latents (F, 4, h, w).
        device: where the model is.
    """
    indices = data.spread(count)
    latents = torch.stack([encode(data.pixels(index).to(device)) for index in indices])
    conditions = ClipConditionsBatch.stack([data.conditions(index) for index in indices]).to(device)
    return SteeringSamples(latents, conditions, [data.case(index) for index in indices])


def conditioned(model: Any, embed: Callable[[Sequence[str]], Tensor]) -> Conditioned:
    """An image or sequence UNet under conditions.

    Args:
        model: a `UNet2DMultiConditionModel` or `UNet3DMultiConditionModel`.
        embed: B texts -> (B, 77, D), on the model's device.
    """

    def under(conditions: ClipConditionsBatch, frames: int) -> Predict:
        encoded = model.condition(embed(conditions.text), conditions, frames=frames)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            output = model(noisy.flatten(0, 1), timesteps, conditions=encoded).sample  # (B*F, 4, h, w)
            return output.unflatten(0, noisy.shape[:2])

        return predict

    return under


def measure_steering(
    samples: SteeringSamples,
    under: Conditioned,
    schedule: Any,
    *,
    num_classes: int,
    timesteps: Sequence[int] = TIMESTEPS,
    batch_size: int = 4,
    seed: int = 0,
) -> list[SteeringRow]:
    """Measures how the error of the clean latents depends on each condition.

    Args:
        samples: on the model's device.
        under: the model; see `Conditioned`.
        schedule: a diffusers scheduler with ``alphas_cumprod`` and the model's ``prediction_type``.
        num_classes: class ids run from 0 to this.
        timesteps: noise levels.
        batch_size: samples that go through the model together.
        seed: of the noise, the same for all variants of a sample.

    Returns:
        one row for each timestep and condition that these samples have.
    """
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples.latents.shape, generator=rng).to(samples.latents)
    errors = {
        (condition, kind): _errors(samples.latents, noise, timesteps, conditions, under, schedule, batch_size)
        for condition, kind, conditions in _variants(samples, num_classes)
    }
    rows = []
    for timestep in timesteps:
        own = errors["", "own"][timestep]
        for condition in dict.fromkeys(name for name, _ in errors if name):
            kinds = {kind: error[timestep] for (name, kind), error in errors.items() if name == condition}
            none = kinds.pop("none", None)
            rows.append(SteeringRow(timestep, condition, own, sum(kinds.values()) / len(kinds), none))
    return rows


def _variants(samples: SteeringSamples, num_classes: int) -> Iterator[tuple[str, str, ClipConditionsBatch]]:
    """(condition, what stands in its place, all conditions) for everything that is compared."""
    own, partners = samples.conditions, samples.partners()
    yield "", "own", own
    if partners:
        if own.prior is not None:
            yield "image prior", "another", replace(own, prior=own.prior[partners])
            yield "image prior", "none", own.without(["image_prior"])
        if own.motion is not None and own.trajectories is not None:
            moved = replace(own, motion=own.motion[partners], trajectories=own.trajectories[partners])
            yield "motion field", "another", moved
            yield "motion field", "none", own.without(["motion_field"])
    if differing := samples.partners(own.text):
        yield "text", "another", replace(own, text=tuple(own.text[partner] for partner in differing))
        yield "text", "none", own.without(["text"])
    for step in range(1, num_classes):
        yield "class", f"moved on by {step}", replace(own, class_id=(own.classes + step) % num_classes)


@torch.no_grad()
def clean_latents(noisy: Tensor, output: Tensor, alpha_bar: float, prediction_type: str) -> Tensor:
    """The latents without noise, as a model's ``output`` has them.

    Args:
        noisy: latents in noise, of any shape.
        output: of the model for them, of the same shape.
        alpha_bar: share of the latents in ``noisy``'s variance.
        prediction_type: what the output is: ``epsilon``, the noise, or ``v_prediction``, the velocity.
    """
    signal, spread = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if prediction_type == "v_prediction":
        return signal * noisy - spread * output
    return (noisy - spread * output) / signal


def _errors(
    latents: Tensor,
    noise: Tensor,
    timesteps: Sequence[int],
    conditions: ClipConditionsBatch,
    under: Conditioned,
    schedule: Any,
    batch_size: int,
) -> dict[int, float]:
    """By timestep, the mean square between ``latents`` (N, F, 4, h, w) and what the model makes of them in noise."""
    summed = dict.fromkeys(timesteps, 0.0)
    for start in range(0, len(latents), batch_size):
        part = slice(start, start + batch_size)
        predict = under(conditions.part(part), latents.shape[1])
        for timestep in timesteps:
            alpha_bar = float(schedule.alphas_cumprod[timestep])
            # x_t = signal * x0 + spread * noise
            noisy = alpha_bar**0.5 * latents[part] + (1 - alpha_bar) ** 0.5 * noise[part]
            steps = torch.full((len(noisy),), timestep, device=latents.device)
            output = predict(noisy, steps).float()
            clean = clean_latents(noisy, output, alpha_bar, schedule.config.prediction_type)
            summed[timestep] += float((clean - latents[part]).square().mean()) * len(noisy)
    return {timestep: total / len(latents) for timestep, total in summed.items()}


def as_table(rows: Sequence[SteeringRow], **first: Any) -> list[dict[str, Any]]:
    """Rows of steering.csv, each beginning with the columns ``first``."""
    return [
        {
            **first,
            "timestep": row.timestep,
            "condition": row.condition,
            "own": f"{row.own:.5g}",
            "another": f"{row.another:.5g}",
            "none": "" if row.none is None else f"{row.none:.5g}",
        }
        for row in rows
    ]


def judge(rows: Sequence[SteeringRow]) -> str:
    """One line: each condition's verdict and its errors at `JUDGED_TIMESTEP`."""
    return "; ".join(
        f"{row.condition}: {row.verdict}, {row.own:.3g} own, {row.another:.3g} another's"
        + ("" if row.none is None else f", {row.none:.3g} none")
        for row in rows
        if row.timestep == JUDGED_TIMESTEP
    )


def hint(rows: Sequence[SteeringRow], train_rows: Sequence[SteeringRow], samples_seen: int) -> str:
    """What to do about conditions that are ignored, or about samples known by heart; empty if there is nothing to say.

    Answers that are no numbers come first: nothing can be said of a model that gives some.

    Args:
        rows: of test samples.
        train_rows: of training samples.
        samples_seen: training samples so far, repetitions counted.
    """
    judged = [row for row in rows if row.timestep == JUDGED_TIMESTEP]
    trained = [row for row in train_rows if row.timestep == JUDGED_TIMESTEP]
    ignored = [row.condition for row in judged if row.verdict == "ignored"]
    if unknown := [row.condition for row in judged if not row.finite]:
        return f"the model's answers are no numbers when {' or '.join(unknown)} is exchanged or left out: it diverged"
    if judged and trained and trained[0].own < MEMORISED * judged[0].own:
        return (
            f"training samples are recovered far better ({trained[0].own:.3g}) than test samples "
            f"({judged[0].own:.3g}): memorised. Stop earlier, or add patients or variants of their frames"
        )
    if ignored and samples_seen < STEERING_SETS_IN:
        return (
            f"{' and '.join(ignored)} ignored after {samples_seen:,} samples, which may be too few: small models "
            f"began to follow their prior between 5,000 and {STEERING_SETS_IN:,}"
        )
    if ignored:
        return (
            f"{' and '.join(ignored)} ignored after {samples_seen:,} samples. prediction_type=v_prediction and "
            "timestep_sampling=mixture make a model follow sooner; see docs/steering.md"
        )
    return ""
