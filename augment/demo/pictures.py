"""What the conditions do to a clip, as pictures: the same patient with other seeds, class, prior and motion.

``python -m augment.demo.pictures --data_name MosMed --model sequence_model_MosMed --out pictures`` draws a sheet for
each of two test patients, whom the model has never seen: the real clip, its image prior and motion field, clips of two
seeds from both, then one condition changed at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from augment.generation.sampling_arguments import add_sampling, sampling_of
from augment.generation.synthesiser import SequenceSynthesiser
from cond2img.sampling import Sampling
from ctrlgenaug import datasets, steps
from ctrlgenaug.conditions.clip import ClipConditions, ConditionReader
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE, Clip
from ctrlgenaug.errors import UserError
from ctrlgenaug.training.feature_picture import map_picture
from ctrlgenaug.video import read_video

PATIENTS = 2
VECTOR = 9  # pixels, side of the square that stands for a motion vector


def field_picture(field: np.ndarray) -> np.ndarray:
    """A motion field (F-1, 2, H, W) as grey pictures (F, H, W) uint8: the longer a vector, the brighter its block."""
    length = np.hypot(field[:, 0], field[:, 1])
    grown = [cv2.dilate(frame, np.ones((VECTOR, VECTOR))) for frame in length]
    bright = np.stack(grown) * 255 / max(1.0, float(length.max()))
    return np.concatenate([np.zeros_like(bright[:1]), bright]).astype(np.uint8)


class Painter:
    """Synthesises single clips from given conditions.

    Args:
        model_path: the sequence model's folder.
        data_name: the data set.
        data_root: the folder with the data set's home.
        sampling: solver, steps, class contrast.
    """

    def __init__(self, model_path: str, data_name: str, data_root: str, sampling: Sampling) -> None:
        self.spec = datasets.get(data_name)
        self.home = self.spec.home_in(data_root)
        used = ("image_condition", "motion_condition")
        self.synthesiser = SequenceSynthesiser(
            "cpu", model_path, data_name, str(self.home), used, sampling=sampling
        )
        optional = {"image_prior", "motion_field"} | ({"text"} if self.spec.has_text else set())
        self.reader = ConditionReader(self.spec, self.home, used=optional)

    def clips(self) -> list[Clip]:
        """Two test clips, of two classes if there are any."""
        found = self.spec.clips(self.home, "test")
        other = next((clip for clip in found if clip.cls != found[0].cls), found[-1])
        return [found[0], other][:PATIENTS]

    def synthesise(self, conditions: ClipConditions, seed: int) -> np.ndarray:
        """(F, 256, 256) uint8."""
        (frames,) = self.synthesiser.draw([conditions], [seed])
        if isinstance(frames, UserError):
            raise frames
        return frames

    def rows(self, clip: Clip, other: Clip) -> Iterator[tuple[str, np.ndarray]]:
        """The rows of ``clip``'s sheet, ``other`` lending its motion: (caption, frames)."""
        own, foreign = self.reader.read(clip), self.reader.read(other)
        yield f"{clip.name}, class {clip.cls}: the real clip, never trained on", read_video(self._file(clip))
        yield "its image prior, of the first frame", map_picture(own.prior.numpy(), IMAGE_SIZE)[None]
        yield "its motion field: the brighter, the further a block moved", field_picture(own.motion.numpy())  # type: ignore[union-attr]
        for seed in (0, 1):
            yield f"synthetic from both, seed {seed}", self.synthesise(own, seed)
        for step in range(1, len(self.spec.classes)):
            cls = (own.class_id + step) % len(self.spec.classes)
            frames = self.synthesise(own.of_class(cls), 0)
            yield f"the same, seed 0, with class {self.spec.classes[cls]}", frames
            if step == 2:
                break
        yield "the same without image prior", self.synthesise(own.without(["image_prior"]), 0)
        moved = replace(own, motion=foreign.motion, trajectories=foreign.trajectories)
        yield f"the same with the motion of {other.name}", self.synthesise(moved, 0)
        if self.spec.has_text:
            described = self.synthesise(replace(own, text=foreign.text), 0)
            yield f"the same with the text of {other.name}: {foreign.text}", described

    def _file(self, clip: Clip) -> Path:
        return self.home / self.spec.clips_dir / clip.file_name


def draw_sheet(model: str, data_name: str, data_root: str, sampling: Sampling, out: str, number: int) -> bool:
    """Draws the sheet of test patient ``number`` to ``out``, with its share of the cores; whether there is one."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // PATIENTS))
    painter = Painter(model, data_name, data_root, sampling)
    clips = painter.clips()
    if number >= len(clips):
        return False
    rows = list(painter.rows(clips[number], clips[1 - number] if len(clips) > 1 else clips[0]))
    save_picture(Path(out) / f"patient_{number}.png", contact_sheet(rows))
    return True


def main() -> int:
    """Draws the sheets, the patients side by side."""
    parser = steps.parser(
        "Draws what each condition does to a clip: two test patients, one condition changed at a time. Each clip "
        "starts from the seed beside it, whatever --noise says.",
        "python -m augment.demo.pictures --data_name MosMed --model sequence_model_MosMed --out pictures",
    )
    parser.add_argument("--data_name", default="MosMed", help="the data set (default: %(default)s)")
    parser.add_argument("--data_root", default=".", help="folder with its home (default: %(default)s)")
    parser.add_argument("--model", required=True, help="the sequence model's folder")
    parser.add_argument("--out", required=True, help="folder for the pictures")
    add_sampling(parser)
    parser.set_defaults(scheduler="unipc", num_inference_steps=20, guidance_scale=1.0)
    options = parser.parse_args()
    draw = partial(
        draw_sheet, options.model, options.data_name, options.data_root, sampling_of(options), options.out
    )
    with ProcessPoolExecutor(PATIENTS, mp_context=get_context("spawn")) as pool:
        drawn = sum(pool.map(draw, range(PATIENTS)))
    print(f"{drawn} sheets of conditions and what they do are in {options.out}")
    return 0


if __name__ == "__main__":
    steps.run(main)
