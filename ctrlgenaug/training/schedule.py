"""The learning rate as a function of the samples seen, and the length of a run in steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ctrlgenaug.training.config import TrainingConfig


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        global_batch: samples of one optimizer step, over all processes and micro-batches.
        steps: optimizer steps of the whole run.
        samples: samples of the whole run, the end of the schedule.
        warmup_samples: samples of the warm-up.
    """

    global_batch: int
    steps: int
    samples: int
    warmup_samples: int


def run_length(config: TrainingConfig, epoch_size: int, num_processes: int) -> Length:
    """The run's length for epochs of ``epoch_size`` samples on ``num_processes`` processes.

    ``num_train_epochs`` fixes the samples, ``max_train_steps`` (which wins) the optimizer steps. Warm-up and decay are
    counted in samples, so the learning rate after the same number of samples does not depend on the processes. A step
    of the published schedule is one batch of one process: its scheduler advances once a process in every step.
    """
    global_batch = config.train_batch_size * config.gradient_accumulation_steps * num_processes
    if config.max_train_steps is not None:
        steps = config.max_train_steps
        samples = steps * global_batch
    else:
        samples = config.num_train_epochs * epoch_size
        steps = math.ceil(samples / global_batch)
    warmup = config.lr_warmup_steps * (config.schedule_batch_size or config.train_batch_size)
    return Length(global_batch, steps, samples, warmup)


def schedule(config: TrainingConfig, length: Length) -> Callable[[int], float]:
    """The factor on the learning rate after a number of samples, by diffusers' formulas counted in samples."""
    import torch
    from diffusers.optimization import get_scheduler

    anchor = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = get_scheduler(
        config.lr_scheduler,
        anchor,
        num_warmup_steps=length.warmup_samples,
        num_training_steps=length.samples,
    )
    return scheduler.lr_lambdas[0]
