"""Training speed and memory of each stage: latent cache, precision, batch size. Random data, no files needed.

    python benchmarks/training.py                       small models on a CPU, full-size ones on a GPU
    python benchmarks/training.py --stages ldm --batch_sizes 1 2 4 8 16 32 64

Prints a Markdown table: samples/s, the ratio to the first row of the same stage and batch size, peak GPU memory.

    python benchmarks/training.py --estimate            full-size models, batches of 1, 4, 16 and 64

Prints what a step takes in memory, estimated from shapes on any machine; nothing is trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from cond2img.data import DiffusionBatch, FrameBatch
from cond2img.models import AutoencoderKL, UNet2DMultiConditionModel, VAELoss
from cond2img.training.diffusion import DiffusionStep
from cond2img.training.vae import VAEStep
from cond2video.models import UNet3DMultiConditionModel, mark_finetuned
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.memory import step_memory
from ctrlgenaug.training.stage import count_parameters

FRAMES = 8
UNETS = {
    "small": {
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 16,
        "cross_attention_dim": 64,
    },
    "full": {},
}
VAES = {
    "small": {"block_out_channels": (16, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 8},
    "full": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32},
}


@dataclass(frozen=True)
class Variant:
    """One row of a stage's table."""

    name: str
    cached: bool = True
    precision: str = "no"
    checkpointing: bool = False
    fused: bool = False
    channels_last: bool = False


VARIANTS = {
    "vae": (
        Variant("as published", checkpointing=True),
        Variant("no gradient checkpointing"),
        Variant("channels last", channels_last=True),
        Variant("bf16, channels last", precision="bf16", channels_last=True),
    ),
    "ldm": (
        Variant("as published, VAE in every step", cached=False, checkpointing=True),
        Variant("cached latents", checkpointing=True),
        Variant("cached, no gradient checkpointing"),
        Variant("cached, no checkpointing, fused AdamW", fused=True),
        Variant("cached, no checkpointing, bf16", precision="bf16"),
    ),
}
VARIANTS["sequence_ldm"] = VARIANTS["ldm"]


def make_vae(size: str) -> AutoencoderKL:
    """A random VAE with one grey channel."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **VAES[size],
    )


def make_step(stage: str, size: str, variant: Variant, device: str) -> torch.nn.Module:
    """The stage's training step on random weights."""
    if stage == "vae":
        step: Any = VAEStep(make_vae(size), VAELoss(None))
    elif stage == "ldm":
        step = DiffusionStep(UNet2DMultiConditionModel(num_class_embeds=3, **UNETS[size]))
    else:
        model = UNet3DMultiConditionModel(num_class_embeds=3, **UNETS[size])
        mark_finetuned(model)
        step = DiffusionStep(model)
    if variant.checkpointing:
        step.model.enable_gradient_checkpointing()
    if variant.channels_last:
        step.to(memory_format=torch.channels_last)
    step.to(device).train()
    if isinstance(step, DiffusionStep):
        step.attach(make_vae(size).to(device).eval().requires_grad_(False))
        step.texts = torch.randn(1, 77, UNETS[size].get("cross_attention_dim", 768), device=device)
    return step


def make_batch(stage: str, batch: int, cached: bool, device: str, clip_frames: int = FRAMES) -> Batch:
    """Random samples in the shapes of the data sets', clips of ``clip_frames`` frames."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, device=device)

    names, nothing = ("",) * batch, torch.zeros(batch, dtype=torch.int64, device=device)
    if stage == "vae":
        return FrameBatch(names, random(1, 256, 256), random(4, 32, 32))
    frames = 1 if stage == "ldm" else clip_frames
    conditions = ClipConditionsBatch(nothing, names, random(256, 64, 64))
    if stage == "sequence_ldm":
        # each point by itself: the work does not depend on the links
        points = torch.arange(frames * 1024, dtype=torch.int32, device=device)
        still = points[None, :, None].repeat(batch, 1, frames)
        conditions = replace(conditions, motion=random(frames - 1, 2, 256, 256), trajectories=still)
    return DiffusionBatch(
        names,
        conditions,
        caption=nothing,
        timestep=torch.randint(1000, (batch,), device=device),
        noise=random(frames, 4, 32, 32),
        posterior_noise=random(frames, 4, 32, 32),
        moments=random(frames, 8, 32, 32) if cached else None,
        pixels=None if cached else random(frames, 1, 256, 256),
    )


def measure(
    stage: str, size: str, variant: Variant, batch: int, device: str, seconds: float
) -> tuple[float, float]:
    """(samples/s, peak GPU memory in GB) over at least two optimizer steps after one to warm up."""
    step = make_step(stage, size, variant, device)
    trained = [parameter for parameter in step.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=variant.fused or None)
    data = make_batch(stage, batch, variant.cached, device)

    def optimize() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=variant.precision == "bf16"):
            loss, _ = step(data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimize()
    return batch * repeat(
        optimize, seconds
    ), torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def repeat(work: Callable[[], None], seconds: float) -> float:
    """How often a second ``work`` runs, over at least ``seconds`` and two calls."""
    count, started = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - started < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - started)


def perceptual_loss() -> VAELoss:
    """The VAE's loss as the method has it, with random weights in VGG16."""
    from torchvision.models.vgg import cfgs, make_layers

    features = make_layers(cfgs["D"], batch_norm=False).state_dict()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg16.pth"
        torch.save({f"features.{name}": tensor for name, tensor in features.items()}, path)
        return VAELoss(path)


def estimate(stage: str, size: str, batches: list[int]) -> None:
    """Prints the rows of a stage: GB in fp32 and bf16, with and without gradient checkpointing; latents are cached."""
    for precision in ("no", "bf16"):
        kept = {}
        for checkpointing in (True, False):
            step = make_step(stage, size, Variant("", checkpointing=checkpointing), "cpu")
            if stage == "vae":
                step.criterion = perceptual_loss()
            sample = make_batch(stage, 1, True, "cpu")
            for batch in batches:
                kept[batch, checkpointing] = step_memory(step, sample.repeated(batch), precision).activations
        total, trained = count_parameters(step)
        if stage != "vae":
            total += count_parameters(step.codec.vae)[0]
        fixed = (4 * total, 4 * trained, 8 * trained)
        for batch in batches:
            both = [kept[batch, checkpointing] for checkpointing in (True, False)]
            cells = [*fixed, *both, *(sum(fixed) + activations for activations in both)]
            shown = " | ".join(f"{value / 1e9:.1f}" for value in cells)
            print(
                f"| {stage} | {'fp32' if precision == 'no' else precision} | {batch} | {shown} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--stages", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument(
        "--batch_sizes", nargs="+", type=int, help="(default: 1 4 16 64; small models on a CPU: 2)"
    )
    parser.add_argument("--size", choices=list(UNETS), default="full" if on_gpu else "small")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="memory of full-size models, from shapes alone"
    )
    arguments = parser.parse_args()
    if arguments.estimate:
        print("| stage | precision | batch | weights | gradients | optimizer | activations | without checkpointing |"
              " total | without checkpointing |\n" + "|---" * 10 + "|")  # fmt: skip
        for stage in arguments.stages:
            estimate(stage, "full", arguments.batch_sizes or [1, 4, 16, 64])
        return
    device = "cuda" if on_gpu else "cpu"
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, {arguments.size} models\n")
    print("| stage | batch | variant | samples/s | ratio | GB |\n|---|---|---|---|---|---|")
    for stage in arguments.stages:
        for batch in arguments.batch_sizes or ([1, 4, 16, 64] if on_gpu else [2]):
            base = None
            for variant in VARIANTS[stage]:
                try:
                    rate, memory = measure(stage, arguments.size, variant, batch, device, arguments.seconds)
                except torch.OutOfMemoryError:
                    print(f"| {stage} | {batch} | {variant.name} | out of memory | | |", flush=True)
                    continue
                finally:
                    if on_gpu:
                        torch.cuda.empty_cache()
                base = base or rate
                shown = f"{memory:.1f}" if on_gpu else ""
                print(
                    f"| {stage} | {batch} | {variant.name} | {rate:.2f} | {rate / base:.2f} | {shown} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
