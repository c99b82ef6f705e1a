"""What each speed measure of the sequence UNet is worth: one forward with all of them, and with each left out.

    python benchmarks/levers.py                 full size, a guided batch of one clip
    python benchmarks/levers.py --size small

The arithmetic stays the same, so the difference from "all" is rounding. Rounds alternate, medians are shown;
processor seconds on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import torch.nn.functional as F
from torch import Tensor
from unet import SIZES, make_inputs, timed

from cond2img.models.attention import MultiModalAttention
from cond2img.models.conditioning import Conditioning, KeysValues, Trajectories
from cond2video.models import UNet3DMultiConditionModel
from cond2video.models import attention as sequence_attention


def softmax_spelled_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(..., N, D), (..., M, D), (..., M, D) -> (..., N, D)."""
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def all_frames_alike(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Key-frame attention where frames 0 and 1, too, get both of their key frames."""
    former = [max(frame - 1, 0) for frame in range(q.shape[1])]

    def key_frames(x: Tensor) -> Tensor:
        return torch.cat([x[:, [0] * x.shape[1]], x[:, former]], dim=2).flatten(0, 1).transpose(1, 2)

    y = F.scaled_dot_product_attention(q.flatten(0, 1).transpose(1, 2), key_frames(k), key_frames(v))
    return y.transpose(1, 2).unflatten(0, q.shape[:2])


def two_gathers(y: Tensor, trajectories: Trajectories) -> Tensor:
    """Trajectory attention that gathers keys and values apart, head by head."""
    sample = torch.arange(y.shape[0], device=y.device)[:, None, None]
    keys, values = (y[sample, trajectories.index].transpose(2, 3).contiguous() for _ in range(2))
    scores = (y.unsqueeze(3) @ keys.transpose(3, 4)) * y.shape[-1] ** -0.5  # (B, P, heads, 1, L)
    return ((scores + trajectories.bias.unsqueeze(3)).softmax(-1) @ values).squeeze(3)


def each_frame_its_own(
    attention: MultiModalAttention, x: Tensor, size: tuple[int, int], conditions: Conditioning
) -> Tensor:
    """Multimodal attention whose keys and values are repeated for every frame."""

    def repeat(pair: KeysValues) -> KeysValues:
        return tuple(part.repeat_interleave(conditions.frames, dim=0) for part in pair)

    text, image = attention.keys_values(conditions)
    y = x + attention.attn2.attend(attention.norm2(x), repeat(text))
    if image is not None:
        y = y + attention.attn_condImage.attend(attention.norm_condImage(x), repeat(image))
    return y


@contextlib.contextmanager
def contiguous(model: UNet3DMultiConditionModel) -> Iterator[None]:
    """The model, and what it makes of its input, in the channels-first layout."""
    model.to(memory_format=torch.contiguous_format)
    with mock.patch.object(torch, "channels_last", torch.contiguous_format):
        yield
    model.to(memory_format=torch.channels_last)


ALL, CONDITIONS = "all", "conditions encoded once, not at every step"


def left_out(model: UNet3DMultiConditionModel) -> dict[str, Callable[[], AbstractContextManager]]:
    """For each measure a context in which the model goes without it; `CONDITIONS` is a matter of the call."""
    patch = mock.patch.object
    return {
        ALL: contextlib.nullcontext,
        "fused attention": lambda: patch(F, "scaled_dot_product_attention", softmax_spelled_out),
        CONDITIONS: contextlib.nullcontext,
        "channels-last memory": lambda: contiguous(model),
        "frames 0 and 1 attend to frame 0 once": lambda: patch(
            sequence_attention, "key_frame_attention", all_frames_alike
        ),
        "one gather for trajectory attention": lambda: patch(
            sequence_attention, "trajectory_attention", two_gathers
        ),
        "text and prior shared by the frames": lambda: patch(
            MultiModalAttention, "forward", each_frame_its_own
        ),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="full", help="(default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=2, help="rounds after one small one (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = UNet3DMultiConditionModel(num_class_embeds=3, **SIZES[args.size])
    model.initialise_sequence_parts("official")
    model = model.to(args.device).eval()
    inputs = make_inputs(2, 8, args.device)
    given = dict(inputs)
    sample, timestep = given.pop("sample"), given.pop("timestep")
    conditions = model.encode_conditions(**given, frames=sample.shape[2])

    def forward(name: str) -> Tensor:
        if name == CONDITIONS:
            return model(**inputs).sample
        return model(sample, timestep, conditions=conditions).sample

    forward(ALL)  # warms up
    contexts = left_out(model)
    runs: dict[str, list[tuple[float, float, float, Tensor]]] = {name: [] for name in contexts}
    for _ in range(args.repeats):
        for name, context in contexts.items():
            with context():
                runs[name].append(timed(lambda name=name: forward(name), args.device))
    clock = 1 if args.device == "cpu" else 0  # processor seconds: what else the machine does counts less
    base = statistics.median(run[clock] for run in runs[ALL])
    memory = statistics.median(run[2] for run in runs[ALL])
    reference = runs[ALL][0][-1].double()
    threads = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{args.size} model, {args.device}, {threads}, torch {torch.__version__}\n")
    print("| without | seconds | times all | GB more than all | difference |\n|---|---|---|---|---|")
    for name, results in runs.items():
        seconds, peak = (statistics.median(run[column] for run in results) for column in (clock, 2))
        distance = ((results[0][-1].double() - reference).norm() / reference.norm()).item()
        label = "nothing (all measures on)" if name == ALL else name
        print(
            f"| {label} | {seconds:.2f} | {seconds / base:.2f} | {(peak - memory) / 1e9:+.2f} | {distance:.0e} |"
        )


if __name__ == "__main__":
    main()
