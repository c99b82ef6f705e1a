"""What a training run will take in memory, from shapes alone: nothing is computed, so any machine can tell for a GPU.

One step runs forward and backward on fake tensors, which have shapes and no contents, while every storage that is made
is counted for as long as it lives. That covers what autograd keeps for the backward pass, what gradient checkpointing
computes again, and every temporary. What it cannot see is the workspace of a GPU's kernels and what its allocator
wastes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.stage import Stage, count_parameters, set_modes

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one step of one process.

    Attributes:
        kept: alive when the forward pass ends: what the backward pass needs, the batch, and, under autocast, the
            weights' copies in half precision.
        activations: most that is alive at once, temporaries and what is computed again among it. Weights and their
            gradients are not.
    """

    kept: int
    activations: int


@dataclass(frozen=True)
class RunMemory:
    """Bytes that a training run takes on each process's device.

    Attributes:
        weights: of the model and of its frozen companions.
        gradients: of what is trained; twice with several processes, which exchange them through buffers.
        optimizer: its two moments, and the moving average if there is one.
        step: of one step.
    """

    weights: int
    gradients: int
    optimizer: int
    step: StepMemory

    @property
    def total(self) -> int:
        """All at once: an upper bound, as the last gradients are made when the first activations are gone."""
        return self.weights + self.gradients + self.optimizer + self.step.activations


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are made inside and not gone yet."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive: dict[int, tuple[weakref.ref, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count(result)
        return result

    def count(self, tensors: Any, *, free: bool = False) -> None:
        """Counts the storages of all tensors in a nest of containers, each once; ``free`` ones as nothing."""
        for tensor in tree_iter(tensors):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._alive:
                    size = 0 if free else storage.nbytes()
                    self._alive[key] = weakref.ref(storage, self._dropper(key)), size
                    self.now += size
        self.most = max(self.most, self.now)

    def forget(self, tensor: torch.Tensor) -> None:
        """Stops counting a tensor's storage."""
        self._dropper(tensor.untyped_storage()._cdata)(None)

    def _dropper(self, key: int) -> Callable[[Any], None]:
        def drop(_: Any) -> None:
            self.now -= self._alive.pop(key, (None, 0))[1]

        return drop


@contextlib.contextmanager
def _norms_in_full() -> Iterator[None]:
    """A GPU's autocast runs these in float32 and keeps what they need in it; a CPU's, which runs here, does not."""

    def in_full(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            if not torch.is_autocast_enabled("cpu"):
                return function(*args, **kwargs)
            with torch.autocast("cpu", enabled=False):
                return function(*tree_map_only(torch.Tensor, torch.Tensor.float, args), **kwargs)

        return call

    with contextlib.ExitStack() as back:
        for owner, name in (
            (functional, "group_norm"),
            (functional, "layer_norm"),
            (torch.Tensor, "softmax"),
        ):
            published = getattr(owner, name)
            back.callback(setattr, owner, name, published)
            setattr(owner, name, in_full(published))
        yield


def step_memory(module: nn.Module, batch: Batch, precision: str = "no") -> StepMemory:
    """The memory of one forward and backward pass; ``module``, its gradients and statistics stay as they are.

    Args:
        module: a training step in its training modes; called as ``module(batch)``, it gives (loss, scalars).
        batch: as the loader gives it.
        precision: ``no``, ``fp16`` or ``bf16``: the autocast of the run.
    """
    live = _LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True):

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device="cpu", requires_grad=tensor.requires_grad)

        named = [*module.named_parameters(), *module.named_buffers()]
        weights = {name: fake(tensor) for name, tensor in named}
        for tensor in weights.values():
            if tensor.requires_grad:
                tensor.register_post_accumulate_grad_hook(lambda parameter: live.forget(parameter.grad))
        inputs = batch.map(fake)
        dtype = AUTOCAST.get(precision)
        with _norms_in_full(), live:
            live.count(weights, free=True)
            live.count(inputs.tensors())
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                loss, _ = torch.func.functional_call(module, weights, (inputs,))
            kept = live.now
            loss.backward()
    return StepMemory(kept, live.most)


def inference_memory(module: nn.Module, *inputs: Any) -> int:
    """Most bytes that are alive at once, without the weights, while ``module(*inputs)`` runs without gradients.

    Args:
        module: in eval mode, in the precision of the run.
        inputs: nests of containers with tensors.
    """
    live = _LiveBytes()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device="cpu")

        weights = {
            name: fake(tensor) for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        }
        given = tree_map_only(torch.Tensor, fake, inputs)
        with live:
            live.count(weights, free=True)
            live.count(given)
            torch.func.functional_call(module, weights, given)
    return live.most


def run_memory(config: TrainingConfig, stage: Stage, num_processes: int) -> RunMemory:
    """The memory of a run of ``stage``, which must have its companions loaded."""
    set_modes(stage.step_module, freeze_statistics=getattr(config, "freeze_batch_norm", True))
    total, trained = count_parameters(stage.step_module)
    total += sum(count_parameters(companion)[0] for companion in stage.companions)
    moments = 2 if config.use_8bit_adam else 8
    return RunMemory(
        weights=4 * total,
        gradients=4 * trained * (2 if num_processes > 1 else 1),
        optimizer=trained * (moments + (4 if config.ema else 0)),
        step=step_memory(
            stage.step_module, stage.example().repeated(config.train_batch_size), config.mixed_precision
        ),
    )


def describe(config: TrainingConfig, memory: RunMemory) -> str:
    """One line for a user; GB are 10^9 bytes."""
    checkpointing = "with" if config.gradient_checkpointing else "without"
    gb = {
        name: f"{size / 1e9:.2f}"
        for name, size in {**vars(memory), **vars(memory.step)}.items()
        if name != "step"
    }
    return (
        f"memory a process, estimated: {memory.total / 1e9:.2f} GB = {gb['weights']} weights + {gb['gradients']} "
        f"gradients + {gb['optimizer']} optimizer + {gb['activations']} activations (batch "
        f"{config.train_batch_size}, mixed_precision {config.mixed_precision}, {checkpointing} gradient "
        f"checkpointing; {gb['kept']} of them wait for the backward pass)"
    )
