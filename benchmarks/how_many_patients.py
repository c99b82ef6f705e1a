"""How many patients until a diffusion model follows its image prior, and what else decides? The base's image stage.

    python benchmarks/how_many_patients.py --scratch scratch/patients            (ten minutes of 2 cores a number)
    python benchmarks/how_many_patients.py --scratch scratch/patients --base     from the tracked base's weights
    python benchmarks/how_many_patients.py --scratch scratch/patients --patients 120 --change timestep_sampling=uniform
    python benchmarks/how_many_patients.py --scratch scratch/patients --patients 30 --variants 3

Prints a Markdown table: for each number of patients the error of clean latents at t = 850 with the own prior, another's
and none, of unseen patients and of those trained on, halfway and at the end (docs/small_data.md, docs/steering.md).
Started again, finished models are kept.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import yaml

from augment.demo.base import store
from augment.demo.base.drawn_data import DrawnFrames
from augment.demo.base.recipe import Recipe
from augment.demo.base.stages import BaseLDMStage
from augment.demo.base.training import BaseTraining, take_base
from augment.demo.weights import BASE
from cond2img.config import LDMConfig
from cond2img.models import UNet2DMultiConditionModel, load_vae
from ctrlgenaug.conditions.variants import vary

LEVEL = 850
KINDS = {"own": "own prior", "other": "another's", "none": "none"}
SEEN = 48  # patients trained on whose errors are measured, as many as unseen ones


class FewPatientsStage(BaseLDMStage):
    """The base's image stage, that also measures patients which it is trained on.

    Args:
        config, train, test: see `BaseLDMStage`.
        seen: some of the patients of ``train``.
        from_base: start from the tracked base's weights, not from random ones.
    """

    def __init__(
        self, config: LDMConfig, train: DrawnFrames, test: DrawnFrames, seen: DrawnFrames, from_base: bool
    ) -> None:
        super().__init__(config, train, test)
        self.seen = seen
        if from_base:
            weights = UNet2DMultiConditionModel.from_pretrained(BASE, subfolder="unet").state_dict()
            self.model.load_state_dict(weights)

    def measure(self) -> dict[str, float]:
        unseen = super().measure()
        self.seen.captions = self.data.captions  # the texts' table is of all of them
        self.test_data, test = self.seen, self.test_data
        seen = {name.replace("test_", "test_seen_", 1): value for name, value in super().measure().items()}
        self.test_data = test
        return unseen | seen


class FewPatients(BaseTraining):
    """The image stage alone, on the latents of the tracked base's VAE.

    Args:
        scratch, recipe, num_threads: see `BaseTraining`; ``recipe.patients`` are trained on.
        drawn: folder of the drawn patients, shared by all numbers.
        most: patients drawn.
        from_base: see `FewPatientsStage`.
        variants: of each frame, trained on as well (`ctrlgenaug.conditions.variants`).
        changes: fields of the image stage's config that differ from the base's.
    """

    def __init__(
        self,
        scratch: Path,
        recipe: Recipe,
        num_threads: int,
        drawn: Path,
        most: int,
        from_base: bool,
        variants: int,
        changes: dict[str, Any],
    ) -> None:
        super().__init__(scratch, recipe, num_threads)
        self.drawn, self.most, self.from_base = drawn, most, from_base
        self.variants, self.changes = variants, changes

    def run(self) -> None:
        recipe = self.recipe
        self._write_companions()
        take_base(self.start, ("vae",))
        vae = load_vae(self.start / "vae").eval().to(memory_format=torch.channels_last)
        parts = []
        for seed, count in ((recipe.seed, self.most), (recipe.seed + 1, recipe.unseen)):
            frames, texts = store.drawn_patients(self.drawn, seed, count)
            moments = store.encoded(self.drawn, f"moments-{seed}-{count}", frames, vae)
            parts.append((frames, texts, moments))
        train, test = parts
        train = tuple(part[: recipe.patients] for part in train)
        if self.variants:
            train = self._with_variants(*train, vae)
        self._train_image(train, test)

    def _with_variants(
        self, frames: np.ndarray, texts: list[str], moments: np.ndarray, vae: torch.nn.Module
    ) -> tuple[np.ndarray, list[str], np.ndarray]:
        """The patients, and behind them their variants as if they were patients of their own."""
        name = f"variants-{self.recipe.seed}-{len(frames)}-{self.variants}"

        def fill(varied: np.ndarray) -> None:
            for number in range(self.variants):
                for patient, clip in enumerate(frames):
                    row = varied[number * len(frames) + patient]
                    for place, frame in enumerate(clip):
                        row[place] = vary(np.array(frame), f"{patient}_{place}", number + 1)

        shape = (len(frames) * self.variants, *frames.shape[1:])
        varied = store.filled(self.drawn / f"{name}.npy", shape, "uint8", fill)
        encoded = store.encoded(self.drawn, f"moments-{name}", varied, vae)
        together = np.concatenate([frames, varied]), np.concatenate([moments, encoded])
        return together[0], texts * (1 + self.variants), together[1]

    def _image_config(self) -> LDMConfig:
        return replace(super()._image_config(), **self.changes)

    def _image_stage(self, config: LDMConfig, train: DrawnFrames, test: DrawnFrames) -> BaseLDMStage:
        count = min(SEEN, self.recipe.patients)
        own, places = np.arange(count), np.arange(count) // 4 % train.drawn.shape[1]
        moments = np.asarray(train.moments).reshape(*train.drawn.shape[:2], 8, 32, 32)
        texts = [row.text for row in train.rows[:: train.drawn.shape[1]][:count]]
        chosen = (train.drawn[own, places][:, None], texts, moments[own, places][:, None])
        return FewPatientsStage(config, train, test, DrawnFrames(config, *chosen), self.from_base)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, required=True, help="folder for everything")
    parser.add_argument(
        "--patients",
        type=int,
        nargs="+",
        default=[30, 120, 500, 2000],
        help="of all four kinds, eight frames each (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=600, help="of 16 frames (default: %(default)s)")
    parser.add_argument("--base", action="store_true", help="start from the tracked base's weights")
    parser.add_argument("--variants", type=int, default=0, help="of each frame, too (default: none)")
    parser.add_argument(
        "--change",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="fields of the config, see docs/configuration.md",
    )
    parser.add_argument("--num_threads", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    changes = {
        key: yaml.safe_load(value) for key, value in (change.split("=", 1) for change in options.change)
    }
    start = "base" if options.base else "random"
    changed = [*options.change, *([f"{options.variants}_variants"] if options.variants else [])]
    rows = []
    for count in options.patients:
        run = options.scratch / "_".join([start, str(count), str(options.steps), *changed])
        recipe = Recipe(patients=count, image_steps=options.steps)
        FewPatients(
            run,
            recipe,
            options.num_threads,
            options.scratch / "drawn",
            max(options.patients),
            options.base,
            options.variants,
            changes,
        ).run()
        rows.append(
            f"| {count} | {', '.join(changed) or '-'} | {' | '.join(figures(run / 'runs' / 'image'))} |"
        )
    print(f"error at t = {LEVEL} with {', '.join(KINDS.values())}, halfway and after {options.steps} steps")
    print("| patients | changed | unseen patients | patients trained on |\n|---|---|---|---|")
    print("\n".join(rows))


def figures(folder: Path) -> list[str]:
    """Of unseen patients, and of those trained on: own / another's / none at each validation."""
    cells = []
    for prefix in ("test_", "test_seen_"):
        files = [(folder / f"{prefix}{kind}_{LEVEL}.txt").read_text().splitlines()[1:] for kind in KINDS]
        steps = zip(*([float(line.split()[-1]) for line in lines] for lines in files), strict=True)
        cells.append("; ".join(" / ".join(f"{value:.3f}" for value in row) for row in steps))
    return cells


if __name__ == "__main__":
    main()
