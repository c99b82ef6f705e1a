"""Does a small model come to follow movement? The base's sequence stage, on patients whose view drifts.

    python benchmarks/moving_clips.py --scratch scratch/moving --steps 300           (a quarter of an hour of 2 cores)
    python benchmarks/moving_clips.py --scratch scratch/moving_stays --steps 300 --prior_stays
    python benchmarks/moving_clips.py --scratch scratch/published --steps 300 --prior_stays --published_fields

Starts from the tracked base's image model, and prints at two noise levels the error of unseen clips' clean latents with
their own prior and motion, with another's prior, with another's motion, and without motion (docs/steering.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from augment.demo.base import store
from augment.demo.base.recipe import Recipe
from augment.demo.base.training import BaseTraining, take_base
from cond2img.models import load_vae

SHOWN = (500, 850)


class MovingTraining(BaseTraining):
    """The sequence stage alone, from the tracked base's image model."""

    def run(self) -> None:
        take_base(self.start, ("vae", "unet"))
        self._write_companions()
        vae = load_vae(self.start / "vae").eval().to(memory_format=torch.channels_last)
        seed = self.recipe.seed
        train = store.drawn_patients(self.drawn, seed, self.recipe.clips)
        test = store.drawn_patients(self.drawn, seed + 1, self.recipe.unseen)
        self._train_sequence(self._clips(seed, *train, vae), self._clips(seed + 1, *test, vae))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for everything; continued if it is there"
    )
    parser.add_argument("--steps", type=int, default=300, help="of 2 clips (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=800, help="patients (default: %(default)s)")
    parser.add_argument(
        "--movement", type=float, default=8, help="pixels a frame at most (default: %(default)s)"
    )
    parser.add_argument(
        "--prior_stays", action="store_true", help="the image prior does not follow the motion"
    )
    parser.add_argument(
        "--published_fields", action="store_true", help="one vector a block, encoder defaults"
    )
    parser.add_argument("--num_threads", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    recipe = Recipe(
        clips=options.clips,
        unseen=8,
        movement=options.movement,
        sequence_steps=options.steps,
        published_fields=options.published_fields,
        prior_follows_motion=not options.prior_stays,
    )
    MovingTraining(options.scratch, recipe, options.num_threads).run()
    kinds = {
        "own": "own",
        "other": "another's prior",
        "other_motion": "another's motion",
        "no_motion": "no motion",
    }
    for level in SHOWN:
        for kind, said in kinds.items():
            figure = (
                (options.scratch / "runs" / "sequence" / f"test_{kind}_{level}.txt").read_text().split()[-1]
            )
            print(f"t = {level}, {said}: {float(figure):.4f}")


if __name__ == "__main__":
    main()
