"""From a sample of the plan to its frames: the sequence model on one device, and the conditions of a clip."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from augment.generation.plan import PUBLISHED_NAMES, Sample
from cond2img.latent_codec import to_uint8
from cond2img.models import load_vae
from cond2img.models.text import load_text
from cond2img.pipelines.solvers import make_scheduler
from cond2img.sampling import Sampling
from cond2video.model_folder import find_model_folder
from cond2video.models import UNet3DMultiConditionModel
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug import datasets
from ctrlgenaug.conditions.clip import ClipConditions, ClipConditionsBatch, ConditionReader
from ctrlgenaug.conditions.motion_extraction import require_followed
from ctrlgenaug.datasets import Clip
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule


class SequenceSynthesiser:
    """Frames for samples, from a sequence model on one device.

    A sample's frames depend on the sample alone: its noise comes from a CPU generator of its own, and on a CPU samples
    go through the model one at a time, on one thread, because kernels round differently for other batch sizes and
    thread counts. On a GPU batches are formed; see docs/generation.md for what that changes.

    Args:
        device: ``cpu`` or ``cuda:N``.
        model_path: the sequence model's folder.
        data_name: the data set, for names and classes.
        home: the data set's home folder, for the conditions.
        conditions: which of ``image_condition``, ``motion_condition``, ``text_condition`` to use.
        vae_path: another VAE folder than the model's.
        image_model_path: the 2-D model's folder, for what the sequence model's has not; see `find_model_folder`.
        sampling: solver, guidance, noise, precision; None: the method's.
        num_frames: F where the clip has no motion field to tell, and of all clips with a ``context_length``; None is
            the data set's.

    Raises:
        UserError: a folder that is not a sequence model's, another class count, a device that does not exist.
    """

    def __init__(
        self,
        device: str,
        model_path: str,
        data_name: str,
        home: str,
        conditions: Sequence[str],
        *,
        vae_path: str | None = None,
        image_model_path: str | None = None,
        sampling: Sampling | None = None,
        num_frames: int | None = None,
    ) -> None:
        self.spec, self.home, self.conditions = datasets.get(data_name), Path(home), tuple(conditions)
        _quieten()
        self.device = _usable(device)
        self.num_frames, self.sampling = num_frames, sampling or Sampling()
        folder = find_model_folder(model_path, data_name, vae_path, image_model_path)
        unet = UNet3DMultiConditionModel.from_trained_3d(folder.unet)
        unet.require_classes(self.spec, folder.unet)
        if unet.config.prior_follows_motion and "motion_condition" in self.conditions:
            require_followed(self.home / self.spec.motion_dir)
        tokenizer, encoder = load_text(folder.companions, unet.config.cross_attention_dim)
        self.has_image_branch = any(unet.config.condition_insert_block)
        self.has_motion_branch = bool(unet.config.motion_condition)
        vae = load_vae(folder.vae)
        for part in (unet, vae, encoder):
            part.eval().requires_grad_(False).to(self.device, getattr(torch, self.sampling.dtype))
        if self.sampling.compiled:
            unet.compile()
        schedule = NoiseSchedule.of_folder(folder.companions, unet.config.prediction_type)
        scheduler = make_scheduler(self.sampling.solver, schedule, self.sampling.timestep_spacing)
        self.pipeline = GenVideoPipeline(vae, unet, scheduler, encoder, tokenizer)
        self.pipeline.set_progress_bar_config(disable=True)

    def load(self, sample: Sample) -> ClipConditions:
        """Reads the conditions of ``sample``; a `UserError` if a file is missing or damaged."""
        used = [PUBLISHED_NAMES[name] for name in self.conditions]
        reader = ConditionReader(self.spec, self.home, num_frames=self._frames_asked(), used=used)
        conditions = reader.read(Clip(sample.clip, sample.clip, sample.cls, sample.text))
        if self.sampling.context_length and self.num_frames:
            return conditions.of_length(self.num_frames)
        return conditions

    def _frames_asked(self) -> int | None:
        """F of the clips, or None: what their motion fields say."""
        return None if "motion_condition" in self.conditions else self.num_frames

    def synthesise(
        self, samples: Sequence[Sample], conditions: Sequence[ClipConditions]
    ) -> Iterator[np.ndarray | UserError]:
        """Frames (F, H, W) uint8 of each sample, in order, or why they are none."""
        pairs = list(zip(samples, conditions, strict=True))
        while pairs:
            length = 1
            if self.device.type != "cpu":  # neighbours with as many frames go together
                same = [c.num_frames == pairs[0][1].num_frames for _, c in pairs]
                length = same.index(False) if False in same else len(same)
            batch, pairs = pairs[:length], pairs[length:]
            seeds = [sample.noise_seed(self.sampling.noise) for sample, _ in batch]
            yield from self.draw([c for _, c in batch], seeds)

    def draw(
        self, conditions: Sequence[ClipConditions], seeds: Sequence[int]
    ) -> Iterator[np.ndarray | UserError]:
        """Frames (F, H, W) uint8 of a batch whose clips are equally long, each from noise of its own seed."""
        batch = ClipConditionsBatch.stack(conditions)
        if not self.has_image_branch:
            batch = replace(batch, prior=None)
        if not self.has_motion_branch:
            batch = replace(batch, motion=None)
        sampling = self.sampling
        latents = self.pipeline.sample(
            batch,
            (conditions[0].num_frames, datasets.IMAGE_SIZE, datasets.IMAGE_SIZE),
            # drawn on the CPU, so that every device starts from the same noise
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            noise_correlation=sampling.noise_correlation,
            num_inference_steps=sampling.num_inference_steps,
            guidance=sampling.guidance,
            cache_interval=sampling.cache_interval,
            cache_center=sampling.cache_center,
            context_length=sampling.context_length,
            context_stride=sampling.context_stride,
            batch_norm=sampling.batch_norm,
            output_type="latent",
        )
        pixels, errors = self.pipeline.decode_clips(latents.transpose(1, 2))  # (B, F, 1, H, W)
        for frames, error in zip(pixels[:, :, 0].numpy(), errors, strict=True):
            yield error or to_uint8(frames)

    def release(self) -> None:
        """Frees cached GPU memory."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _quieten() -> None:
    """Keeps the libraries' remarks about loading out of the progress bar; several workers would repeat them."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _usable(device: str) -> torch.device:
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise UserError(
                f"device {device} does not exist here ({torch.cuda.device_count()} GPUs)",
                "Give --device_id_list",
            )
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = False  # a kernel chosen by a race could differ from run to run
    else:
        torch.set_num_threads(1)
    return chosen
