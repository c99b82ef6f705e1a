"""Which noise level a training sample gets: uniform as published, or more often where conditions are learned."""

from __future__ import annotations

import math

import torch

from ctrlgenaug.training.config import TIMESTEP_SAMPLINGS, TimestepMixture

TRAIN_TIMESTEPS = 1000


def sample_timestep(sampling: str, mixture: TimestepMixture, rng: torch.Generator) -> torch.Tensor:
    """One timestep, () int64 in [0, 1000); a pure function of ``rng``'s state.

    Args:
        sampling: ``uniform``; ``high``: density proportional to t, 1000 sqrt(u); ``logit_normal``: 1000 / (1 + exp(-n))
            with n standard normal, most often in the middle (Esser et al. 2024); ``mixture``: one of the three.
        mixture: how often each, for ``mixture`` alone.
        rng: the sample's own generator.
    """
    if sampling == "mixture":
        shares = torch.tensor([mixture.uniform, mixture.high, mixture.logit_normal], dtype=torch.float64)
        sampling = TIMESTEP_SAMPLINGS[int(torch.multinomial(shares, 1, generator=rng))]
    if sampling == "uniform":
        return torch.randint(TRAIN_TIMESTEPS, (), generator=rng)
    if sampling == "high":
        level = math.sqrt(float(torch.rand((), generator=rng)))
    else:
        level = float(torch.sigmoid(torch.randn((), generator=rng)))
    return torch.tensor(min(int(TRAIN_TIMESTEPS * level), TRAIN_TIMESTEPS - 1))
