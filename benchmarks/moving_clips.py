"""Does a small model come to follow movement? The base's sequence stage, on patients whose view drifts.

    python benchmarks/moving_clips.py --scratch scratch/moving --steps 900          (half an hour of 2 cores)
    python benchmarks/moving_clips.py --scratch scratch/published --steps 900 --published_fields

Starts from the tracked base's image model, and prints at two noise levels the error of unseen clips' clean latents with
their own prior and motion, with another's prior, with another's motion, and without motion (docs/steering.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from augment.demo.base import store
from augment.demo.base.recipe import BaseTraining, Recipe
from augment.demo.weights import BASE
from cond2img.models import load_vae
from ctrlgenaug.conditions.motion_field import motion_field
from ctrlgenaug.conditions.trajectories import track
from ctrlgenaug.phantom import shapes
from ctrlgenaug.phantom.movement import drift, shifted

FINEST = 4  # pixels: the side of the smallest block that has a vector of its own
SHOWN = (500, 850)


class FilledMotion:
    """Fields between neighbours whose vectors fill their blocks, and the trajectories that come of them."""

    def __init__(self, clips: np.ndarray) -> None:
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            fields = pool.map(
                partial(motion_field, adjacent_reference=True, fill_blocks=True), clips, chunksize=8
            )
            found = [(field[..., ::FINEST, ::FINEST], track(field, 0)) for field in fields]
        self.fields, self.tracks = (np.stack(part) for part in zip(*found, strict=True))

    def field(self, index: int) -> np.ndarray:
        """(7, 2, 256, 256) float32."""
        return self.fields[index].repeat(FINEST, -2).repeat(FINEST, -1)


class MovingTraining(BaseTraining):
    """The sequence stage alone, on clips that move."""

    def run_moving(self, movement: float, published_fields: bool) -> None:
        """Draws, moves, encodes and trains."""
        self._take_base()
        vae = load_vae(self.start / "vae").eval().to(memory_format=torch.channels_last)
        halves = [(self.recipe.seed, self.recipe.clips), (self.recipe.seed + 1, self.recipe.unseen)]
        self._train_sequence(
            *(self._clips(seed, count, movement, published_fields, vae) for seed, count in halves)
        )

    def _take_base(self) -> None:
        for name in ("tokenizer", "scheduler", "text_encoder", "vae", "unet"):
            if not (self.start / name).exists():
                shutil.copytree(BASE / name, self.start / name)
                for file in (self.start / name).glob("*.safetensors"):
                    weights = {key: value.float() for key, value in load_file(file).items()}
                    save_file(weights, file, metadata={"format": "pt"})

    def _clips(
        self, seed: int, count: int, movement: float, published_fields: bool, vae: torch.nn.Module
    ) -> tuple:
        still, texts = store.drawn_patients(self.drawn, seed, count)

        def move(clips: np.ndarray) -> None:
            for number, clip in enumerate(still):
                rng = shapes.generator(seed, f"base movement {number}")
                clips[number] = shifted(clip, drift(rng, len(clip), movement))

        name = f"moving-{seed}-{count}-{movement:g}"
        frames = store.filled(self.drawn / f"{name}.npy", still.shape, "uint8", move)
        moments = store.encoded(self.drawn, f"moments-{name}", frames, vae)
        motion = (
            store.Motion(self.drawn, f"motion-{name}", frames) if published_fields else FilledMotion(frames)
        )
        return frames, texts, moments, motion


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for everything; continued if it is there"
    )
    parser.add_argument("--steps", type=int, default=900, help="of 2 clips (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=800, help="patients (default: %(default)s)")
    parser.add_argument(
        "--movement", type=float, default=8, help="pixels a frame at most (default: %(default)s)"
    )
    parser.add_argument(
        "--published_fields", action="store_true", help="one vector a block, encoder defaults"
    )
    parser.add_argument("--num_threads", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    recipe = Recipe(clips=options.clips, sequence_steps=options.steps)
    MovingTraining(options.scratch, recipe, options.num_threads).run_moving(
        options.movement, options.published_fields
    )
    kinds = {
        "own": "own",
        "other": "another's prior",
        "other_motion": "another's motion",
        "no_motion": "no motion",
    }
    for level in SHOWN:
        for kind, said in kinds.items():
            figure = (options.scratch / "runs" / "sequence" / f"{kind}_{level}.txt").read_text().split()[-1]
            print(f"t = {level}, {said}: {float(figure):.4f}")


if __name__ == "__main__":
    main()
