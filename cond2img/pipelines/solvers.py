"""Samplers by name, for the noise schedule that a model was trained with."""

from __future__ import annotations

from typing import Any

import diffusers

from cond2img.sampling import SOLVERS, SPACINGS
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule


def make_scheduler(
    solver: str = "ddim", schedule: NoiseSchedule | None = None, timestep_spacing: str | None = None
) -> Any:
    """A sampler for a model's noise schedule.

    Args:
        solver: a key of `SOLVERS`: "ddim" (the method's: 200 steps), "dpmsolver++" or "unipc" (20 to 50 steps).
        schedule: the model's, see `NoiseSchedule.of_folder`; None: the published one.
        timestep_spacing: which timesteps are visited, one of `SPACINGS`; None: "leading" as published, or "trailing"
            for a schedule that ends without signal, as only that spacing starts at the very last timestep (Lin et al.
            2023).

    Raises:
        UserError: there is no such solver or spacing, or the spacing never visits the end of such a schedule.
    """
    if solver not in SOLVERS:
        raise UserError(f"there is no solver {solver!r}", f"Choose one of {', '.join(SOLVERS)}")
    if timestep_spacing not in (None, *SPACINGS):
        raise UserError(
            f"there is no timestep spacing {timestep_spacing!r}", f"Choose one of {', '.join(SPACINGS)}"
        )
    name, fields = SOLVERS[solver]
    schedule = schedule or NoiseSchedule()
    spacing = timestep_spacing or ("trailing" if schedule.rescale_betas_zero_snr else "leading")
    if schedule.rescale_betas_zero_snr and spacing == "leading":
        raise UserError(
            "this model starts from noise alone, and leading timesteps leave the start out",
            "Give --timestep_spacing trailing, or none",
        )
    return getattr(diffusers, name)(
        **schedule.fields(), **fields, timestep_spacing=spacing, steps_offset=1 if spacing == "leading" else 0
    )
