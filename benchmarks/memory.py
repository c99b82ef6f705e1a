"""Memory of the full-size sequence model (957 M parameters) by number of frames: generation and training.

    python benchmarks/memory.py                             counted from shapes, on any machine, within minutes
    python benchmarks/memory.py --measure bf16 --frames 8   one guided step and the decoding as they are, on this one

Counted: weights, and the most bytes of tensors that are alive at once; what kernels need besides is not seen. Measured:
the process's peak of resident memory in a process of its own, torch itself included. Prints Markdown tables; GB are
10^9 bytes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import diffusers
import torch
from torch import nn
from training import Variant, make_batch, make_step, make_vae

from cond2img.guidance import Guidance
from cond2img.latent_codec import LatentCodec
from cond2img.pipelines.windows import context_windows
from cond2video.models import UNet3DMultiConditionModel
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.training.memory import inference_memory, step_memory
from ctrlgenaug.training.stage import count_parameters

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class GuidedStep(nn.Module):
    """Encodes the conditions of a clip, of both branches and all windows, and runs one guided denoising step."""

    def __init__(self, unet: UNet3DMultiConditionModel, window: int | None) -> None:
        super().__init__()
        self.unet, self.window = unet, window

    def forward(self, latents: torch.Tensor, text: torch.Tensor, own: ClipConditionsBatch) -> torch.Tensor:
        """(F, 4, 32, 32) -> (F, 4, 32, 32), the last window's."""
        frames = len(latents)
        windows = []
        for part in context_windows(frames, self.window):
            first, second = Guidance().branches(own.within(part, frames), 3)
            encoded = self.unet.condition(text, first.followed_by(second), part.stop - part.start)
            windows.append((part, encoded))
        for part, encoded in windows:
            twice = torch.cat([latents[part]] * 2)
            result = self.unet(twice, 481, conditions=encoded).sample
        return result


def conditions_of(frames: int, dtype: torch.dtype) -> ClipConditionsBatch:
    """Random conditions of one clip in which nothing moves."""
    given = make_batch("sequence_ldm", 1, True, "cpu", frames).conditions
    return given.to("cpu", dtype)


def tokens(dtype: torch.dtype) -> torch.Tensor:
    """(2, 77, 768) text of both branches."""
    return torch.randn(2, 77, 768, dtype=dtype)


def models(dtype: torch.dtype) -> tuple[UNet3DMultiConditionModel, nn.Module]:
    """UNet and VAE as shapes alone."""
    diffusers.utils.logging.set_verbosity_error()  # it warns of models that are cast
    with torch.device("meta"):
        made = UNet3DMultiConditionModel(num_class_embeds=3), make_vae("full")
    return tuple(model.to(dtype).eval().requires_grad_(False) for model in made)  # type: ignore[return-value]


def count_generation(frames: list[int], precision: str) -> None:
    """Prints the counted rows of generation."""
    dtype = DTYPES[precision]
    unet, vae = models(dtype)
    weights = sum(p.numel() * p.element_size() for model in (unet, vae) for p in model.parameters())
    for number in frames:
        for window in [None] + ([8] if number > 8 else []):
            latents = torch.randn(number, 4, 32, 32, dtype=dtype)
            step = inference_memory(
                GuidedStep(unet, window), latents, tokens(dtype), conditions_of(number, dtype)
            )
            decoding = [
                inference_memory(Decoder(vae, at_once), latents)
                for at_once in (LatentCodec(vae).frames_at_once, number)
            ]
            title = f"{number}" + (f" in windows of {window}" if window else "")
            cells = [weights, step, *decoding, weights + max(step, decoding[0])]
            shown = " | ".join(f"{value / 1e9:.2f}" for value in cells)
            print(f"| {precision} | {title} | {shown} |", flush=True)


class Decoder(nn.Module):
    """The VAE's way from latents to pixels, so many frames at once."""

    def __init__(self, vae: nn.Module, frames_at_once: int) -> None:
        super().__init__()
        self.vae, self.frames_at_once = vae, frames_at_once

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """(F, 4, 32, 32) -> (F, 1, 256, 256)."""
        return LatentCodec(self.vae, self.frames_at_once).decode(latents)


def count_training(frames: list[int], precision: str) -> None:
    """Prints the counted rows of a training step of one clip, latents cached."""
    for number in frames:
        activations = {}
        for checkpointing in (True, False):
            with torch.device("meta"):
                step = make_step("sequence_ldm", "full", Variant("", checkpointing=checkpointing), "meta")
            step.to_empty(device="cpu")  # never written to, so it takes no memory here
            step.texts = torch.zeros(1, 77, 768)  # neither these nor the schedule are weights
            step.set_schedule(NoiseSchedule())
            batch = make_batch("sequence_ldm", 1, True, "cpu", number)
            mode = "no" if precision == "fp32" else precision
            activations[checkpointing] = step_memory(step, batch, mode).activations
        total, trained = count_parameters(step)
        fixed = 4 * (total + count_parameters(step.codec.vae)[0]) + 12 * trained
        cells = [
            fixed,
            activations[True],
            fixed + activations[True],
            activations[False],
            fixed + activations[False],
        ]
        print(
            f"| {precision} | {number} | {' | '.join(f'{value / 1e9:.1f}' for value in cells)} |", flush=True
        )


def measure(precision: str, frames: int, window: int | None) -> None:
    """Prints the peak of resident memory after loading, after a guided step and after decoding, and the step's time."""
    dtype = DTYPES[precision]
    unet, vae = (model.to_empty(device="cpu") for model in models(dtype))
    for parameter in [*unet.parameters(), *vae.parameters()]:
        parameter.fill_(0.01)  # whatever: but memory that was never written to does not count

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    loaded = peak()
    latents = torch.randn(frames, 4, 32, 32, dtype=dtype)
    began = time.process_time()
    with torch.no_grad():
        GuidedStep(unet, window)(latents, tokens(dtype), conditions_of(frames, dtype))
        seconds, step = time.process_time() - began, peak()
        Decoder(vae, LatentCodec(vae).frames_at_once)(latents)
    title = f"{frames}" + (f" in windows of {window}" if window else "")
    print(f"| {precision} | {title} | {loaded:.2f} | {step:.2f} | {peak():.2f} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 16, 32], help="(default: 8 16 32)")
    parser.add_argument("--precision", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument(
        "--tasks", nargs="+", choices=("generation", "training"), default=["generation", "training"]
    )
    parser.add_argument(
        "--measure", choices=list(DTYPES), help="run generation in this precision and measure it"
    )
    parser.add_argument("--window", type=int, help="with --measure: in windows of so many frames")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure and args.alone:
        measure(args.measure, args.frames[0], args.window)
        return
    if args.measure:
        print(
            "| precision | frames | loaded GB | with a guided step | with decoding | CPU s a step |\n"
            + "|---" * 6
            + "|"
        )
        for number in args.frames:
            command = [
                sys.executable,
                __file__,
                "--alone",
                "--measure",
                args.measure,
                "--frames",
                str(number),
            ]
            subprocess.run(command + (["--window", str(args.window)] if args.window else []), check=True)
        return
    if "generation" in args.tasks:
        print(
            "| precision | frames | weights | guided step | decoding, 8 frames at once | all at once | together |"
        )
        print("|---" * 7 + "|")
        for precision in args.precision:
            count_generation(args.frames, precision)
    if "training" in args.tasks:
        print("\n| precision | frames | weights, gradients, optimizer | activations | together "
              "| activations without checkpointing | together |\n" + "|---" * 7 + "|")  # fmt: skip
        for precision in args.precision:
            count_training(args.frames, precision)


if __name__ == "__main__":
    main()
