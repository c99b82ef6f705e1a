"""The optimizer: AdamW as published, or one of its faster relatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ctrlgenaug.errors import UserError
from ctrlgenaug.training.config import TrainingConfig


def build_optimizer(
    parameters: Sequence[nn.Parameter], config: TrainingConfig, global_batch: int
) -> torch.optim.Optimizer:
    """AdamW over ``parameters``, all of which must be trainable.

    Args:
        parameters: the trainable parameters.
        config: rate, betas, decay, epsilon, and which implementation.
        global_batch: samples of a step; with ``scale_lr`` the learning rate is multiplied by it.
    """
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    extra = {"fused": True} if config.fused_adamw else {}
    if config.use_8bit_adam:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise UserError(
                "use_8bit_adam needs bitsandbytes, which is not installed",
                "Run: pip install bitsandbytes; or set use_8bit_adam=false",
            ) from None
        kind = AdamW8bit
    return kind(
        parameters,
        lr=config.learning_rate * (global_batch if config.scale_lr else 1),
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        **extra,
    )
