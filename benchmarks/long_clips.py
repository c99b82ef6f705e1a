"""The seams of clips that are longer than those of training, on the miniature base model (augment/demo/base).

    python benchmarks/long_clips.py --frames 32 --strides 8 4 2

A patient's 8 frames run there and back to the length asked for. Prints a Markdown table: how much neighbouring frames
differ (mean absolute grey values) and how alike their latents are (VAE-Seq, %), where a window begins and elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from augment.demo import encoder
from augment.demo.base.patients import FRAMES, draw_patient
from augment.demo.weights import BASE
from augment.quality.latents import frame_directions
from cond2img.guidance import Guidance
from cond2img.latent_codec import LatentCodec, to_pixels
from cond2img.models import UNet2DMultiConditionModel, load_vae
from cond2img.models.text import load_text
from cond2img.pipelines import make_scheduler
from cond2img.pipelines.windows import context_windows
from cond2video.config import FINETUNED
from cond2video.models import UNet3DMultiConditionModel
from cond2video.models.checkpoints import load_sequence_parts
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug.conditions.clip import ClipConditions, ClipConditionsBatch
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.trajectories import link, there_and_back
from ctrlgenaug.noise_schedule import NoiseSchedule

UNSEEN = 7  # of whose line of patients the base model saw none


def base_pipeline() -> GenVideoPipeline:
    """The miniature base model with UniPC."""
    with tempfile.TemporaryDirectory() as folder:
        # classes that have no effect, as a user's image stage starts
        image = UNet2DMultiConditionModel.from_pretrained_2d(
            BASE, subfolder="unet", num_class_embeds=3, fresh_init="identity"
        )
        image.save_pretrained(folder)
        unet = UNet3DMultiConditionModel.from_pretrained_2d(folder)
    load_sequence_parts(unet, BASE / "sequence_parts", FINETUNED)
    vae = load_vae(BASE / "vae")
    for part in (unet, vae):
        part.eval().requires_grad_(False)
    tokenizer, text_encoder = load_text(BASE)
    scheduler = make_scheduler("unipc", NoiseSchedule.of_folder(BASE, unet.config.prediction_type))
    pipeline = GenVideoPipeline(vae, unet, scheduler, text_encoder, tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditions_of(frames: np.ndarray, length: int) -> ClipConditionsBatch:
    """The conditions of a clip (8, 256, 256) uint8, for ``length`` frames."""
    field = motion_field(frames)
    short = ClipConditions(
        0, "", encoder.priors(frames[:1])[0], torch.as_tensor(field), torch.as_tensor(link(field, 0))
    )
    return ClipConditionsBatch.stack([short.of_length(length)])


def smoothness(clips: np.ndarray, codec: LatentCodec) -> tuple[np.ndarray, np.ndarray]:
    """(F-1,) grey values and (F-1,) percent from frame to frame, means over the clips (N, F, 256, 256) uint8."""
    differences = np.abs(np.diff(clips.astype(float), axis=1)).mean((0, 2, 3))
    alike = []
    for clip in clips:
        means = codec.moments(to_pixels(clip))[:, :4].numpy()
        directions = frame_directions(means)
        alike.append((directions[1:] * directions[:-1]).sum(1))
    return differences, 100 * np.mean(alike, axis=0)


def row(title: str, clips: np.ndarray, starts: list[int], codec: LatentCodec, seconds: float | None) -> str:
    """A line of the table; ``starts``: the frames with which a window begins, but the first."""
    differences, alike = smoothness(clips, codec)
    border = np.isin(np.arange(1, clips.shape[1]), starts)
    at, inside = ([values[which].mean() for values in (differences, alike)] for which in (border, ~border))
    time_used = "" if seconds is None else f"{seconds:.0f}"
    ratio = at[0] / inside[0]
    return f"| {title} | {at[0]:.1f} | {inside[0]:.1f} | {ratio:.2f} | {at[1]:.1f} | {inside[1]:.1f} | {time_used} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=32, help="of a clip (default: %(default)s)")
    parser.add_argument(
        "--strides", type=int, nargs="+", default=[8, 4, 2], help="(default: 8, no overlap, 4, 2)"
    )
    parser.add_argument("--patients", type=int, nargs="+", default=[4, 1], help="by number (default: 4 1)")
    parser.add_argument("--steps", type=int, default=15, help="denoising steps (default: %(default)s)")
    args = parser.parse_args()
    pipeline, examples = base_pipeline(), [draw_patient(UNSEEN, number).frames for number in args.patients]
    codec = LatentCodec(pipeline.vae)

    def windowed(length: int | None, stride: int | None) -> tuple[np.ndarray, float]:
        """Clips (N, F, 256, 256) uint8, and processor seconds a clip."""
        began = time.process_time()
        made = [
            pipeline.sample(
                conditions_of(np.ascontiguousarray(frames), args.frames), (args.frames, 256, 256),
                num_inference_steps=args.steps, guidance=Guidance(1.0), context_length=length,
                context_stride=stride, generator=[torch.Generator().manual_seed(0)],
            )[0]
            for frames in examples
        ]  # fmt: skip
        return (np.stack(made) * 255).astype(np.uint8), (time.process_time() - began) / len(examples)

    print("| windows | difference at borders | inside | ratio | VAE-Seq at borders | inside | CPU s a clip |")
    print("|---" * 7 + "|")
    real = np.stack([frames[there_and_back(FRAMES, args.frames)] for frames in examples])
    starts = [window.start for window in context_windows(args.frames, FRAMES, args.strides[0])][1:]
    print(row("real frames, there and back", real, starts, codec, None))
    clips, seconds = windowed(None, None)
    print(row("the whole clip at once", clips, starts, codec, seconds), flush=True)
    for stride in args.strides:
        starts = [window.start for window in context_windows(args.frames, FRAMES, stride)][1:]
        title = f"length {FRAMES}, stride {stride}" + (", no overlap" if stride == FRAMES else "")
        clips, seconds = windowed(FRAMES, stride)
        print(row(title, clips, starts, codec, seconds), flush=True)


if __name__ == "__main__":
    main()
