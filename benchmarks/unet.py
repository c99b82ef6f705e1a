"""Measures the sequence UNet against the same arithmetic written down plainly. See --help."""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import torch.nn.functional as F
from plain_unet import PlainUNet

from cond2video.models import UNet3DMultiConditionModel, mark_finetuned

SIZES = {
    "small": {
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
    },
    "full": {},
}


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@contextlib.contextmanager
def peak_memory(device: str) -> Iterator[list[int]]:
    """Appends to the list the most memory in use inside the block, in bytes, over that at its start."""
    result: list[int] = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        yield result
        result.append(torch.cuda.max_memory_allocated() - start)
        return
    gc.collect()
    with contextlib.suppress(
        OSError, AttributeError
    ):  # hand back what earlier calls freed, or it hides this one's
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    start, most, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield result
    finally:
        done.set()
        watcher.join()
        result.append(max(most, resident_bytes()) - start)


def make_inputs(batch: int, frames: int, device: str) -> dict[str, torch.Tensor]:
    """Random inputs in the method's sizes: 32 x 32 latents, trajectories of neighbours over all frames."""
    torch.manual_seed(0)
    side = 32
    number = torch.arange(frames * side * side)
    place, frame = number % side**2, number // side**2
    others = (
        frame[:, None] + torch.arange(frames)
    ) % frames  # each point's trajectory: its place in all frames
    traj = torch.stack([others, *(p[:, None].expand_as(others) for p in (place // side, place % side))], -1)
    mask = torch.rand(batch, *others.shape) > 0.4
    mask[..., 0] = True
    made = {
        "sample": torch.randn(batch, 4, frames, side, side),
        "timestep": torch.full((batch,), 481),
        "encoder_hidden_states": torch.randn(batch, 77, 768),
        "image_cond": torch.randn(batch, 256, 64, 64),
        "motion_cond": torch.randn(batch, 2, frames - 1, 256, 256).round(),
        "class_labels": torch.arange(batch) % 3,
        "traj": traj.to(torch.int8).expand(batch, -1, -1, -1),
        "traj_mask": mask,
    }
    return {name: value.to(device) for name, value in made.items()}


def timed(function: Callable[[], torch.Tensor], device: str) -> tuple[float, float, float, torch.Tensor]:
    """Seconds, processor seconds, peak bytes, and the result of one call."""
    with peak_memory(device) as peak:
        start, busy = time.perf_counter(), time.process_time()
        result = function()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return seconds, busy, peak[0], result


def cast(inputs: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Floating-point inputs in ``dtype``."""
    return {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}


class Forward:
    """A guided batch through the network, as in sampling: conditions are encoded once, outside the clock."""

    name = "forward, guided batch"

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self.inputs = inputs

    @torch.no_grad()
    def plain(self, model: UNet3DMultiConditionModel) -> Callable[[], torch.Tensor]:
        network = PlainUNet(model)
        return torch.no_grad()(lambda: network(**self.inputs))

    @torch.no_grad()
    def ours(self, model: UNet3DMultiConditionModel) -> Callable[[], torch.Tensor]:
        given = cast(self.inputs, model.dtype)
        sample, timestep = given.pop("sample"), given.pop("timestep")
        conditions = model.encode_conditions(**given, frames=sample.shape[2])
        return torch.no_grad()(lambda: model(sample, timestep, conditions=conditions).sample)


class TrainingStep:
    """Loss and gradients of one sample for what the sequence stage trains, with gradient checkpointing in both."""

    name = "training step, 1 clip"

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self.inputs = {name: value[:1] for name, value in inputs.items()}

    def _step(self, model: UNet3DMultiConditionModel, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        mark_finetuned(model)
        model.zero_grad()
        F.mse_loss(call().float(), self.inputs["sample"]).backward()
        return torch.cat([p.grad.flatten()[:64].float() for p in model.parameters() if p.grad is not None])

    def plain(self, model: UNet3DMultiConditionModel) -> Callable[[], torch.Tensor]:
        network = PlainUNet(model)
        for part in ("_resnet", "_transformer"):
            method = getattr(network, part)
            setattr(network, part, _checkpointed(method))
        return lambda: self._step(model, lambda: network(**self.inputs))

    def ours(self, model: UNet3DMultiConditionModel) -> Callable[[], torch.Tensor]:
        model.enable_gradient_checkpointing()
        given = cast(self.inputs, model.dtype)
        return lambda: self._step(model, lambda: model(**given).sample)


def _checkpointed(method: Callable) -> Callable:
    return lambda *args: torch.utils.checkpoint.checkpoint(method, *args, use_reentrant=False)


def measure(
    task: Forward | TrainingStep, model: UNet3DMultiConditionModel, args: argparse.Namespace
) -> list[str]:
    """Runs plain, fp32 and bf16 in turns; returns the lines of the table."""
    low = copy.deepcopy(model).bfloat16() if "bf16" in args.precision else None
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    runs: dict[str, list[tuple[float, float, float, torch.Tensor]]] = {
        "plain fp32": [],
        "ours fp32": [],
        "ours bf16": [],
    }
    for _ in range(args.repeats + 1):  # the first round warms up
        model.to(memory_format=torch.contiguous_format)
        runs["plain fp32"].append(timed(task.plain(model), args.device))
        model.to(memory_format=torch.channels_last)
        runs["ours fp32"].append(timed(task.ours(model), args.device))
        model.zero_grad()
        if low is not None:
            runs["ours bf16"].append(timed(task.ours(low), args.device))
            low.zero_grad()
    reference = runs["plain fp32"][0][-1].double()
    base, lines = 0.0, []
    for name, results in runs.items():
        if not results:
            continue
        counted = results[1:] or results
        seconds, busy, peak = (statistics.median(result[column] for result in counted) for column in range(3))
        size = weights / (2 if "bf16" in name else 1)
        memory = (peak + size) / 1e9
        base = base or seconds
        distance = ((results[0][-1].double() - reference).norm() / reference.norm()).item()
        lines.append(
            f"{name:<12} {seconds:>9.3f} {seconds / base:>7.2f} {busy:>9.3f} {memory:>9.2f} {distance:>11.1e}"
        )
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Times the sequence UNet on one guided batch (2 x 4 x 8 x 32 x 32) and on one training step, "
        "against a plain reference: explicit softmax, conditions per frame, nothing kept between steps. "
        "The runs alternate; medians are shown, memory is weights plus the peak of one call.",
        epilog="example: python benchmarks/unet.py --sizes small --repeats 3",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="which models")
    parser.add_argument(
        "--tasks", nargs="+", choices=("forward", "training"), default=["forward", "training"]
    )
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=2, help="measured rounds after one to warm up")
    parser.add_argument("--batch", type=int, default=2, help="guided batch: twice the number of clips")
    parser.add_argument("--frames", type=int, default=8, help="frames a clip")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's)")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 on the GPU, in both")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    where = (
        torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    inputs = make_inputs(args.batch, args.frames, args.device)
    print(f"{where}, torch {torch.__version__}", flush=True)
    for size in args.sizes:
        model = UNet3DMultiConditionModel(num_class_embeds=3, **SIZES[size])
        model.initialise_sequence_parts("official")  # so that every part has something to compute
        model = model.to(args.device).eval()
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        for task in ([Forward] if "forward" in args.tasks else []) + (
            [TrainingStep] if "training" in args.tasks else []
        ):
            print(f"\n{size} ({millions:.0f} M parameters): {task.name}")
            print(f"{'':<12} {'seconds':>9} {'ratio':>7} {'CPU s':>9} {'GB':>9} {'difference':>11}")
            for line in measure(task(inputs), model, args):
                print(line, flush=True)
        del model
        gc.collect()


if __name__ == "__main__":
    main()
