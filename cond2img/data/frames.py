"""The sampled frames as training samples; every sample is a pure function of (seed, epoch, index)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from cond2img.latent_codec import to_pixels
from ctrlgenaug import datasets
from ctrlgenaug.conditions.clip import OPTIONAL, ClipConditions, ClipConditionsBatch, ConditionReader
from ctrlgenaug.conditions.provenance import noted_settings
from ctrlgenaug.conditions.variants import WEIGHTS_FILE, check_variants, variant_name, vary
from ctrlgenaug.datasets import IMAGE_SIZE, Clip
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import to_json
from ctrlgenaug.training.batch import Batch
from ctrlgenaug.training.config import DiffusionConfig, TrainingConfig
from ctrlgenaug.training.dropping import kept_conditions
from ctrlgenaug.training.order import SampleKey, class_groups, generator
from ctrlgenaug.training.timesteps import sample_timestep

LATENT_SHAPE = (4, IMAGE_SIZE // 8, IMAGE_SIZE // 8)


def read_frame(path: str | Path) -> np.ndarray:
    """A frame's PNG as (1, 256, 256) uint8."""
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error):
        picture = None
    remedy = "Run the sampling step for this case again"
    if picture is None:
        raise UserError("is missing or not a readable picture", remedy, path)
    if picture.shape != (IMAGE_SIZE, IMAGE_SIZE):
        raise UserError(f"is {picture.shape}, expected {IMAGE_SIZE} x {IMAGE_SIZE}", remedy, path)
    return picture[None]


def _bytes(path: Path) -> int:
    """A file's size; 0 where there is none, which the check of the samples will name."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@dataclass(frozen=True)
class FrameBatch(Batch):
    """Frames for the VAE.

    Attributes:
        pixels: (B, 1, 256, 256) in [-1, 1].
        posterior_noise: (B, 4, 32, 32), what latents are sampled from the posterior with.
        latent_noise: (B, 4, 32, 32), what the decoder finds on top of them, in their own deviations; None: nothing.
    """

    pixels: torch.Tensor
    posterior_noise: torch.Tensor
    latent_noise: torch.Tensor | None = None


@dataclass(frozen=True)
class DiffusionBatch(Batch):
    """Frames (F = 1) or clips for a diffusion model, with all that is random about them.

    Attributes:
        conditions: what they are conditioned on, some of it dropped.
        caption: (B,) int64, each text's index in the table of texts.
        timestep: (B,) int64, the noise level t, 0 to 999.
        noise: (B, F, 4, 32, 32), the noise that is added.
        posterior_noise: (B, F, 4, 32, 32), what latents are sampled from the posterior with.
        pixels: (B, F, 1, 256, 256) in [-1, 1], or None:
        moments: (B, F, 8, 32, 32), the posterior's from the cache.
    """

    conditions: ClipConditionsBatch
    caption: torch.Tensor
    timestep: torch.Tensor
    noise: torch.Tensor
    posterior_noise: torch.Tensor
    pixels: torch.Tensor | None = None
    moments: torch.Tensor | None = None


class FrameData:
    """Frames with what the VAE's training draws for them.

    Args:
        config: names the data set and its folders.
        split: ``train`` or ``test``.
    """

    def __init__(self, config: TrainingConfig, split: str) -> None:
        self.config, self.split = config, split
        self.spec = datasets.get(config.data_name)
        self.home = self.spec.home_in(config.data_root)
        self.folder = self.home / self.own_folder()
        if given := config.data_dir(split):
            self.folder = Path(given)
            if self.folder.name == self.own_folder():
                # the conditions lie beside it, as the convention has it
                self.home = self.folder.parent
        self.rows: list[Clip] = list(
            self.spec.rows(
                self.folder,
                split,
                file_column=config.image_column,
                class_column=config.class_column,
                text_column=getattr(config, "caption_column", None),
            )
        )
        if not self.rows:
            path = self.spec.metadata_path(self.folder, split)
            raise UserError("names no sample", "Run the sampling step for this split first", path)

    def own_folder(self) -> str:
        """The samples' folder below the data set's home."""
        return self.spec.frames_dir

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def groups(self) -> list[np.ndarray]:
        """The samples of each class, if ``balance_classes``; else empty."""
        return class_groups([row.cls for row in self.rows]) if self.config.balance_classes else []

    def file(self, index: int) -> Path:
        """The sample's file."""
        return self.folder / self.rows[index].file_name

    def frames(self, index: int) -> np.ndarray:
        """The sample's frames, (F, 256, 256) uint8; F = 1 here."""
        return read_frame(self.file(index))

    def pixels(self, index: int, variant: int = 0) -> torch.Tensor:
        """The sample's frames, or a variant of them, (F, 1, 256, 256) float32 in [-1, 1]."""
        frames = self.frames(index)
        if variant:
            frames = np.stack([vary(frame, self.rows[index].name, variant) for frame in frames])
        return to_pixels(frames)

    def __getitem__(self, key: SampleKey) -> Batch:
        """A batch of one sample."""
        noise = torch.randn(LATENT_SHAPE, generator=self.generator(key, "posterior"))
        added = None
        if most := getattr(self.config, "latent_noise", 0.0):
            drawn = self.generator(key, "decoder")
            added = most * torch.rand(1, generator=drawn) * torch.randn((1, *LATENT_SHAPE), generator=drawn)
        return FrameBatch((self.rows[key.index].file_name,), self.pixels(key.index), noise[None], added)

    def generator(self, key: SampleKey, purpose: str) -> torch.Generator:
        """The sample's own generator in this epoch."""
        return generator(self.config.seed, key.epoch, key.index, purpose)

    def case(self, index: int) -> str:
        """The volume or film that the sample is of."""
        return self.spec.parse_frame(self.rows[index].name)[0]

    def fingerprint(self) -> str:
        """Changes with the samples' names, classes and order."""
        text = "\n".join(f"{row.file_name}\t{row.cls}" for row in self.rows)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def content(self) -> str:
        """Changes with the sizes of the samples' files, which are others when extracted anew, and with used texts."""
        texts = bool(getattr(self.config, "caption_column", None))
        lines = (
            f"{row.file_name}\t{_bytes(self.file(index))}\t{row.text if texts else ''}"
            for index, row in enumerate(self.rows)
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    # --- checks before the first step ----------------------------------------------------------------------------

    def check_sample(self, index: int) -> None:
        """Raises a `UserError` if a file of the sample is missing or damaged."""
        self.frames(index)

    def check(self) -> None:
        """Checks every sample; the first bad one, in order, is a `UserError`."""
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(self.check_sample, range(len(self))):
                pass

    def spread(self, count: int) -> list[int]:
        """At most ``count`` indices at even distances over the split."""
        return sorted(
            {round(place) for place in np.linspace(0, len(self) - 1, min(count, len(self))).tolist()}
        )

    def index_of(self, name: str) -> int | None:
        """The index of the sample called ``name`` (without suffix); None: there is none."""
        return next((index for index, row in enumerate(self.rows) if row.name == name), None)

    def pick(self, names: Iterable[str]) -> list[int]:
        """Indices of the samples called ``names``, which may be paths; a `UserError` names one that is not there."""
        found = []
        for name in names:
            index = self.index_of(Path(name).stem)
            if index is None:
                path = self.spec.metadata_path(self.folder, self.split)
                raise UserError(f"does not name {name!r}", "Mend validation_names", path)
            found.append(index)
        return found


class LabelledFrameData(FrameData):
    """Frames with conditions, noise and timestep: what a diffusion model trains on.

    Set ``moments`` (N, F, 8, 32, 32) to take latents from the cache instead of pixels.
    """

    config: DiffusionConfig
    condition_names: Sequence[str] = ("image_prior",)

    def __init__(self, config: DiffusionConfig, split: str) -> None:
        super().__init__(config, split)
        self.captions = sorted({""} | {row.text for row in self.rows}) if config.caption_column else [""]
        self.moments: np.ndarray | None = None
        self.reader = self.make_reader({"text"} if config.caption_column else set())
        asked = getattr(config, "prior_variants", 0)
        if asked:
            check_variants(self.reader.prior_dir, asked)
        self.variants = asked if split == config.train_split else 0

    @property
    def used_conditions(self) -> list[str]:
        """Those of `condition_names` that the config does not switch off."""
        off = {"image_prior": "image_condition", "motion_field": "motion_condition"}
        return [name for name in self.condition_names if getattr(self.config, off[name], True)]

    def made_with(self) -> dict[str, str]:
        """The settings that the used conditions were made with, by name; "" where their folder does not say."""
        noted = {
            "image_prior": noted_settings(self.reader.prior_dir, WEIGHTS_FILE),
            "motion_field": noted_settings(self.reader.motion_dir),
        }
        # of the priors: the number of variants may grow, and their encoder's name is a mere name
        return {
            name: to_json(found.get("fingerprint", found)) if (found := noted[name]) else ""
            for name in self.used_conditions
        }

    @property
    def num_frames(self) -> int:
        """F."""
        return 1

    def make_reader(self, used: set[str]) -> ConditionReader:
        """Reads the samples' conditions: image prior and class, and those ``used`` besides."""
        return ConditionReader(
            self.spec,
            self.home,
            num_frames=self.num_frames,
            used={*self.used_conditions, *used},
            prior_dir=self.config.image_prior_dir,
        )

    def conditions(self, index: int, kept: Collection[str] | None = None, variant: int = 0) -> ClipConditions:
        """What the sample is conditioned on; ``kept`` (None: all) of `condition_names` alone, the others dropped.

        With nothing else to go by the model must not go by the text either: guidance needs such samples.
        """
        row = self.rows[index]
        if variant:
            row = replace(row, name=variant_name(row.name, variant))
        if kept is None:
            return self.reader.read(row)
        return self.reader.read(row, set(self.condition_names) - set(kept) if kept else OPTIONAL)

    def variant(self, key: SampleKey) -> int:
        """Which variant of its frame the sample shows in this epoch; 0 is the frame itself."""
        if not self.variants:
            return 0
        return int(torch.randint(self.variants + 1, (), generator=self.generator(key, "variant")))

    def timestep(self, key: SampleKey) -> torch.Tensor:
        """The sample's noise level in this epoch, () int64."""
        config = self.config
        rng = self.generator(key, "timestep")
        return sample_timestep(config.timestep_sampling, config.timestep_mixture, rng)

    def kept(self, key: SampleKey) -> set[str]:
        """The conditions that the sample keeps in this epoch."""
        return kept_conditions(
            self.condition_names,
            self.config.condition_dropping,
            seed=self.config.seed,
            epoch=key.epoch,
            index=key.index,
        )

    def __getitem__(self, key: SampleKey) -> DiffusionBatch:
        """A batch of one sample."""
        index, shape = key.index, (1, self.num_frames, *LATENT_SHAPE)
        variant = self.variant(key)
        conditions = self.conditions(index, self.kept(key), variant)
        moments = None if self.moments is None else torch.from_numpy(np.array(self.moments[index]))[None]
        return DiffusionBatch(
            names=(self.rows[index].file_name,),
            conditions=ClipConditionsBatch.stack([conditions]),
            caption=torch.tensor([self.captions.index(conditions.text)]),
            timestep=self.timestep(key)[None],
            noise=torch.randn(shape, generator=self.generator(key, "noise")),
            posterior_noise=torch.randn(shape, generator=self.generator(key, "posterior")),
            pixels=self.pixels(index, variant)[None] if moments is None else None,
            moments=moments,
        )

    def check_sample(self, index: int) -> None:
        super().check_sample(index)
        row = self.rows[index]
        for number in range(self.variants + 1):
            self.reader.check(replace(row, name=variant_name(row.name, number)))
