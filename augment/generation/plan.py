"""Which sample comes from which real clip with which seed (method, section 7). Pure: no files, no models."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctrlgenaug.datasets import Clip, DatasetSpec
from ctrlgenaug.errors import UserError

PLAN_SEED = 3407  # draws which clips are used once more, and is the noise seed of those samples
FIRST_NOISE_SEED = 66  # the q samples that every clip gets have noise seeds 66, 67, ..., 65 + q

# In the order in which their first letters name the output folder.
CONDITIONS = ("image_condition", "motion_condition", "text_condition")
# What the command line's conditions are called everywhere else.
PUBLISHED_NAMES = dict(zip(CONDITIONS, ("image_prior", "motion_field", "text"), strict=True))


@dataclass(frozen=True)
class Sample:
    """One synthetic clip to be made.

    Attributes:
        clip: name of the real clip whose conditions are used, e.g. ``study_0001_s01``.
        cls: the class asked for, which is the real clip's, e.g. ``CT-0``.
        seed: seed of the initial noise.
        text: the real clip's description, or "".
    """

    clip: str
    cls: str
    seed: int
    text: str = ""

    @property
    def file_name(self) -> str:
        """``{clip}_{class}_{seed}.mp4``."""
        return f"{self.clip}_{self.cls}_{self.seed}.mp4"

    def noise_seed(self, noise: str) -> int:
        """The seed of the initial noise.

        Args:
            noise: ``shared``: the sample's seed, which the plan gives to every clip alike; ``own``: a number that
                depends on clip, class and seed.
        """
        if noise == "shared":
            return self.seed
        return int.from_bytes(hashlib.sha256(self.file_name.encode()).digest()[:7])


def parse_file_name(file_name: str, spec: DatasetSpec | None = None) -> Sample:
    """The sample that a synthetic file's name speaks of; class names hold no underscore, clip names may.

    Args:
        file_name: ``{clip}_{class}_{seed}.mp4`` (any suffix or none).
        spec: the data set, if its class must be checked.

    Raises:
        UserError: another form of name, or a class that ``spec`` does not have.
    """
    stem = file_name.rsplit(".", 1)[0] if file_name.endswith((".mp4", ".avi", ".npy")) else file_name
    parts = stem.rsplit("_", 2)
    if len(parts) != 3 or not all(parts) or not (parts[2].isascii() and parts[2].isdigit()):
        raise UserError(
            "is not named {clip}_{class}_{seed}.mp4",
            "Keep only files made by generate.py in the folder",
            file_name,
        )
    clip, cls, seed = parts
    if spec is not None:
        spec.class_id(cls)
    return Sample(clip, cls, int(seed))


def plan_class(clips: Sequence[Clip], wanted: int, seed: int = PLAN_SEED) -> list[Sample]:
    """``wanted`` samples of one class from its real ``clips`` (in metadata order).

    With m clips, q = wanted // m and r = wanted % m: every clip is used q times, and r clips drawn at random once more.
    A plan of a multiple of m is contained in every larger one, so such a folder can be extended.

    Args:
        clips: the class's real clips; all of one class.
        wanted: how many samples.
        seed: of the draw, and noise seed of the r extra samples when q > 0.

    Raises:
        UserError: samples wanted of a class without clips.
    """
    if wanted and not clips:
        raise UserError("samples are wanted of a class without a clip in this split", "Leave the class out")
    if wanted <= 0:
        return []
    draw = random.Random(seed)
    times, rest = divmod(wanted, len(clips))
    samples = []
    if times:
        noise_seeds = draw.sample(range(FIRST_NOISE_SEED, FIRST_NOISE_SEED + times), times)
        samples += [_sample(clip, noise_seed) for clip in clips for noise_seed in noise_seeds]
    if rest:
        samples += [
            _sample(clip, seed if times else FIRST_NOISE_SEED) for clip in draw.sample(list(clips), rest)
        ]
    return list(dict.fromkeys(samples))  # with q > 3341 the seeds reach 3407: never write one file twice


def _sample(clip: Clip, seed: int) -> Sample:
    return Sample(clip.name, clip.cls, seed, clip.text)


def make_plan(
    clips: Sequence[Clip], classes: Sequence[str], wanted: Mapping[str, int | None], seed: int = PLAN_SEED
) -> list[Sample]:
    """The plan for several classes, one after the other.

    Args:
        clips: the real clips of the split, in metadata order.
        classes: the classes wanted, in the order of the plan.
        wanted: samples by class; None means as many as the class has real clips.
        seed: see `plan_class`.
    """
    plan = []
    for cls in classes:
        of_class = [clip for clip in clips if clip.cls == cls]
        number = wanted[cls]
        try:
            plan += plan_class(of_class, len(of_class) if number is None else number, seed)
        except UserError as error:
            raise UserError(f"class {cls}: {error.problem}", error.remedy) from None
    return plan


def take_shard(plan: Sequence[Sample], index: int, count: int) -> list[Sample]:
    """Every ``count``-th sample from ``index`` (1 to ``count``) on: shards are disjoint and together the plan."""
    return list(plan[index - 1 :: count])


def conditions_tag(conditions: Sequence[str]) -> str:
    """First letters of the conditions in a fixed order, e.g. ``im``; ``c`` if the class label stands alone."""
    return "".join(name[0] for name in CONDITIONS if name in conditions) or "c"


def folder_name(conditions: Sequence[str], split: str = "train") -> str:
    """``cond_im_synthesis_mp4``; samples from test conditions never share a folder with training material."""
    return f"cond_{conditions_tag(conditions)}_synthesis_mp4" + ("" if split == "train" else f"_{split}")
