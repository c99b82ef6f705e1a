"""What one of the three training scripts gives to the `Trainer`: a model, a data set, a loss and a validation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.order import SampleKey, epoch_size
from ctrlgenaug.training.records import Records


class TrainingData(Protocol):
    """A data set whose samples are pure functions of (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey) -> Batch:
        """A batch of this one sample."""
        ...

    @property
    def groups(self) -> Sequence[np.ndarray]:
        """The samples of each class, where training has every class equally often; else empty."""
        ...

    def check(self) -> None:
        """Raises a `UserError` that names the first missing or unreadable file."""
        ...

    def fingerprint(self) -> str:
        """Tells whether a resumed run sees the same samples in the same order."""
        ...


class TrainingStep(nn.Module, ABC):
    """The trained model with its loss, as one module, so that data parallelism wraps both.

    Attributes:
        model: the trained model, the part that checkpoints save as a model folder.
    """

    model: nn.Module

    @abstractmethod
    def forward(self, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The batch's mean loss, and further scalars to log by name."""


class Stage(ABC):
    """One training stage.

    Attributes:
        folder: the model's folder name in a checkpoint: ``vae``, ``unet`` or ``unet3d``.
        companions: frozen models that stay on the device beside the trained one.
        next_step: the command line that comes after this stage, for the closing line.
    """

    folder: str
    companions: tuple[nn.Module, ...] = ()
    next_step: str = ""

    def __init__(self, config: TrainingConfig, data: TrainingData, step_module: TrainingStep) -> None:
        self.config, self.data, self.step_module = config, data, step_module
        self.device = torch.device("cpu")

    @property
    def model(self) -> nn.Module:
        """The trained model."""
        return self.step_module.model

    @property
    def epoch_size(self) -> int:
        """Training samples in an epoch."""
        return epoch_size(len(self.data), self.data.groups)

    def inputs(self) -> dict[str, str]:
        """What the training starts from, by content (`ctrlgenaug.training.inputs`); the samples' names are not part."""
        return {}

    def load_companions(self, device: torch.device) -> None:  # noqa: B027  (the VAE has none)
        """Loads what the step needs beside the trained model, and sets ``companions``."""

    def example(self) -> Any:
        """A batch of one sample, as the step gets it once the stage is prepared."""
        return self.data[SampleKey(0, 0)]

    def prepare(self, accelerator: Accelerator, records: Records) -> None:
        """Loads frozen companions onto the device and fills caches; called once, by every process."""
        self.device = accelerator.device
        self.load_companions(self.device)

    def before_save(self) -> None:  # noqa: B027  (most stages have nothing to do)
        """Called by the main process before the model is saved, with the weights that will be."""

    @abstractmethod
    def read_weights(self, folder: Path) -> dict[str, torch.Tensor]:
        """The weights in a model folder of a checkpoint, on the CPU."""

    @abstractmethod
    def measure(self) -> dict[str, float]:
        """Figures on the test split by name, the same samples and noise each time. Runs on the main process only."""

    def measure_steering(self, step: int, samples_seen: int, records: Records) -> None:  # noqa: B027  (the VAE has none)
        """Notes whether the model follows its conditions. Runs on the main process only."""

    @abstractmethod
    def validate(self, step: int, records: Records) -> None:
        """Writes pictures to the run folder. Runs on the main process only."""


def set_modes(module: nn.Module, *, freeze_statistics: bool = True) -> None:
    """Train mode for what is trained, eval mode for what is frozen.

    A module all of whose parameters are frozen goes into eval mode, so that the running statistics of a frozen
    BatchNorm stand still.

    Args:
        module: the module to set.
        freeze_statistics: False leaves frozen modules in train mode, as the official code does: the statistics of a
            frozen BatchNorm then go on moving.
    """
    module.train()
    if not freeze_statistics:
        return
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """(all parameters, trainable parameters)."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trained in counts if trained)
