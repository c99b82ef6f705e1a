"""``python -m augment.demo.base``: trains the miniature base model again."""

from __future__ import annotations

from pathlib import Path

from augment.demo.base.recipe import SHORT, Recipe
from augment.demo.base.training import BaseTraining
from ctrlgenaug import steps
from ctrlgenaug.arguments import positive_int, seed_number


def main() -> int:
    """Parses the command line, trains and exports."""
    parser = steps.parser(
        "Trains the miniature base model on phantom patients drawn on the fly: about two hours of one CPU core. The "
        "same command again continues.",
        "python -m augment.demo.base --scratch scratch/base --out scratch/base/weights",
    )
    parser.add_argument("--scratch", required=True, help="folder for drawn patients, latents and runs; 3 GB")
    parser.add_argument("--out", required=True, help="folder for the model, replaced if it is there")
    parser.add_argument("--short", action="store_true", help="minutes: steering appears, pictures stay poor")
    parser.add_argument("--seed", type=seed_number, default=1, help="of everything (default: %(default)s)")
    parser.add_argument(
        "--num_threads", type=positive_int, default=1, help="CPU threads (default: %(default)s)"
    )
    options = parser.parse_args()
    recipe = Recipe(**{**vars(SHORT if options.short else Recipe()), "seed": options.seed})
    training = BaseTraining(Path(options.scratch), recipe, options.num_threads)
    training.run()
    training.export(Path(options.out))
    print(f"miniature base model: {options.out} (its README.md has the figures)")
    return 0


if __name__ == "__main__":
    steps.run(main)
