"""The memory estimate against what autograd really keeps, and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.memory import inference_memory, step_memory


class Tiny(nn.Module):
    """A convolution, a norm, an activation and a linear layer, with a loss; two such blocks if asked."""

    def __init__(self, blocks: int = 1, checkpointing: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Linear(16, 16))
            for _ in range(blocks)
        )
        self.register_buffer("steps", torch.zeros(()))
        self.checkpointing = checkpointing

    def forward(self, batch):
        self.steps += 1
        x = batch.x
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        loss = functional.mse_loss(x, batch.y)
        return loss, {"loss": loss.detach()}


@dataclass(frozen=True)
class ImageBatch(Batch):
    x: torch.Tensor


@dataclass(frozen=True)
class TinyBatch(ImageBatch):
    y: torch.Tensor


def make_batch(size: int = 3) -> TinyBatch:
    return TinyBatch(("a",) * size, torch.randn(size, 4, 16, 16), torch.randn(size, 4, 16, 16))


def really_kept(module: nn.Module, batch: Batch) -> int:
    """Bytes that a real forward pass leaves alive: what autograd saved, the batch and the results."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    kept = {}

    def save(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss, _ = module(batch)
    for tensor in batch.tensors():
        save(tensor)
    # the loss by itself: on a CPU its storage is as large as what it is the mean of
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own) + loss.nbytes


def test_what_waits_for_the_backward_pass_is_what_autograd_saves():
    module = Tiny(blocks=2)
    for size in (1, 3):
        batch = make_batch(size)
        memory = step_memory(module, batch)
        assert memory.kept == really_kept(module, batch)
        assert memory.activations > memory.kept
    assert step_memory(module, make_batch(1).repeated(3)) == step_memory(module, make_batch(3))


def test_checkpointing_keeps_the_blocks_inputs_and_one_block_at_a_time():
    batch = make_batch()
    image = batch.x.nbytes
    module = Tiny(blocks=6, checkpointing=True)
    plain, saving = step_memory(Tiny(blocks=6), batch), step_memory(module, batch)
    # x, y, the output of each of six blocks, and the loss; not what the blocks hold inside
    assert 8 * image <= saving.kept <= 8 * image + 100 < plain.kept
    one = step_memory(Tiny(blocks=1), batch).activations
    assert saving.kept < saving.activations <= saving.kept + one < plain.activations


def test_half_precision_keeps_the_norms_input_in_full():
    """As a GPU's autocast does: the norm's input twice, once in each precision."""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)

        def forward(self, batch):
            x = self.norm(self.convolution(batch.x))
            assert x.dtype == torch.float32
            return x.sum(), {}

    batch = ImageBatch(("a", "b"), torch.randn(2, 4, 32, 32))
    image = batch.x.nbytes
    full, half = (step_memory(Norm(), batch, precision).kept for precision in ("no", "bf16"))
    # x and the norm's input; with autocast x, its half-precision copy and the norm's input, the weights' copies
    assert full == pytest.approx(2 * image, abs=200)
    assert half == pytest.approx(2.5 * image, abs=200)


def test_nothing_is_trained_or_counted_into_statistics():
    module = Tiny()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    norm = functional.group_norm
    step_memory(module, make_batch(), "bf16")
    assert functional.group_norm is norm
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_without_gradients_only_what_is_in_use_counts():
    """Input, one result and the next: what a chain of layers made before is gone."""
    chain = nn.Sequential(*(nn.Linear(16, 16) for _ in range(5))).eval()
    x = torch.randn(1000, 16)
    assert inference_memory(chain, x) == 3 * x.nbytes  # its caller holds on to the input
    wide = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 16)).eval()
    assert inference_memory(wide, x) == (1 + 4 + 1) * x.nbytes
    assert inference_memory(wide.bfloat16(), x.bfloat16()) == (1 + 4 + 1) * x.nbytes // 2
