"""From a sample of the plan to its frames: the sequence model on one device, and the conditions of a clip."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, SchedulerMixin, UniPCMultistepScheduler

from cond2img.models import load_vae
from cond2video.model_folder import ModelFolder, find_model_folder
from cond2video.models import UNet3DMultiConditionModel
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.files import load_npy, read_json
from ctrlgenaug.generation.plan import Sample
from ctrlgenaug.motion.trajectories import load_trajectories

PRIOR_SHAPE = (256, 64, 64)
REMEDY = "Run the extraction step for this split, or leave the condition out"

# Both fast solvers start from the same noise as DDIM and approximate the same trajectory in fewer steps.
SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2}),
}
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def make_scheduler(name: str, folder: Path | None = None) -> SchedulerMixin:
    """The sampler called ``name`` (a key of `SCHEDULERS`), on the noise schedule that the model was trained with.

    Args:
        name: ``ddim`` is the method's; the others reach similar results in 20 to 50 steps.
        folder: the model's ``scheduler/``; its betas win over the method's where it has any.
    """
    kind, settings = SCHEDULERS[name]
    trained = read_json(folder / "scheduler_config.json") if folder else {}
    schedule = {key: trained.get(key, value) for key, value in NOISE_SCHEDULE.items()}
    return kind(**{**schedule, "steps_offset": 1, "timestep_spacing": "leading", **settings})


@dataclass
class Conditions:
    """What one sample is conditioned on.

    Attributes:
        class_id: its class.
        num_frames: F.
        prior: (256, 64, 64) float32, or None.
        motion: (2, F-1, 256, 256) float32, or None.
        trajectories: (F*1024, F, 3) integers and their mask (F*1024, F) bool, or None.
        text: the prompt.
    """

    class_id: int
    num_frames: int
    prior: torch.Tensor | None
    motion: torch.Tensor | None
    trajectories: tuple[torch.Tensor, torch.Tensor] | None
    text: str


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
        scheduler: a key of `SCHEDULERS`.
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 is none.
        dtype: a key of `DTYPES`.
        compile_unet: compile the UNet (seconds to minutes at the start, faster steps afterwards).
        num_frames: F where the clip has no motion field to tell; None is the data set's.

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
        scheduler: str = "ddim",
        num_inference_steps: int = 200,
        guidance_scale: float = 7.5,
        dtype: str = "float32",
        compile_unet: bool = False,
        num_frames: int | None = None,
    ) -> None:
        self.spec, self.home, self.conditions = datasets.get(data_name), Path(home), tuple(conditions)
        self.device = _usable(device)
        self.num_frames = num_frames
        self._settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        folder = find_model_folder(model_path, data_name, vae_path)
        unet = UNet3DMultiConditionModel.from_trained_3d(folder.unet)
        _check_classes(unet, self.spec, folder.unet)
        encoder, tokenizer = _load_text(folder)
        parts = [
            part.eval().requires_grad_(False)
            for part in (unet, load_vae(folder.vae), encoder)
            if part is not None
        ]
        for part in parts:
            part.to(self.device, DTYPES[dtype])
        if compile_unet:
            unet = torch.compile(unet)
        self.pipeline = GenVideoPipeline(
            parts[1], unet, make_scheduler(scheduler, folder.scheduler), encoder, tokenizer
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def load(self, sample: Sample) -> Conditions:
        """Reads the conditions of ``sample``; a `UserError` if a file is missing or damaged."""
        motion = trajectories = prior = None
        num_frames = self.num_frames or self.spec.required_clip_num
        if "motion_condition" in self.conditions:
            path = self.spec.motion_path(self.home, sample.clip)
            size = datasets.IMAGE_SIZE
            field = load_npy(path, (None, 2, size, size), remedy=REMEDY)
            num_frames = len(field) + 1
            motion = torch.from_numpy(np.ascontiguousarray(field.swapaxes(0, 1), dtype=np.float32))
            points, mask = load_trajectories(self.spec.trajectory_path(self.home, sample.clip), num_frames)
            trajectories = torch.as_tensor(points), torch.as_tensor(mask)
        if "image_condition" in self.conditions:
            path = self.spec.prior_path(self.home, self.spec.first_frame(sample.clip))
            prior = torch.from_numpy(load_npy(path, PRIOR_SHAPE, remedy=REMEDY).astype(np.float32))
        text = sample.text if "text_condition" in self.conditions else ""
        return Conditions(self.spec.class_id(sample.cls), num_frames, prior, motion, trajectories, text)

    def synthesise(self, samples: Sequence[Sample], conditions: Sequence[Conditions]) -> Iterator[np.ndarray]:
        """Frames (F, H, W) uint8 of each sample, in order."""
        pairs = list(zip(samples, conditions, strict=True))
        while pairs:
            length = 1
            if self.device.type != "cpu":  # neighbours with as many frames go together
                same = [c.num_frames == pairs[0][1].num_frames for _, c in pairs]
                length = same.index(False) if False in same else len(same)
            batch, pairs = pairs[:length], pairs[length:]
            yield from self._batch([sample for sample, _ in batch], [c for _, c in batch])

    @torch.inference_mode()
    def _batch(self, samples: Sequence[Sample], conditions: Sequence[Conditions]) -> np.ndarray:
        def stack(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
            return None if parts[0] is None else torch.stack(parts).to(self.device)

        trajectories = [c.trajectories or (None, None) for c in conditions]
        result = self.pipeline(
            class_labels=torch.tensor([c.class_id for c in conditions], device=self.device),
            image_cond=stack([c.prior for c in conditions]),
            motion_cond=stack([c.motion for c in conditions]),
            traj=stack([points for points, _ in trajectories]),
            traj_mask=stack([mask for _, mask in trajectories]),
            prompt=[c.text for c in conditions],
            num_frames=conditions[0].num_frames,
            # drawn on the CPU, so that every device starts from the same noise
            generator=[torch.Generator("cpu").manual_seed(sample.seed) for sample in samples],
            output_type="np",
            **self._settings,
        )
        frames = np.asarray(result.frames, dtype=np.float32)  # (B, F, H, W) in [0, 1]
        return (frames.clip(0, 1) * 255).astype(np.uint8)  # truncated, as the method has it

    def release(self) -> None:
        """Frees cached GPU memory."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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


def _check_classes(unet: UNet3DMultiConditionModel, spec: datasets.DatasetSpec, path: Path) -> None:
    classes = unet.config.num_class_embeds
    if classes != len(spec.classes):
        raise UserError(
            f"knows {classes} classes, {spec.data_name} has {len(spec.classes)}",
            "Check --data_name and the model's folder",
            path,
        )


def _load_text(folder: ModelFolder) -> tuple[Any, Any]:
    if folder.text_encoder is None or folder.tokenizer is None:
        raise UserError(
            "lacks text_encoder/ or tokenizer/", "Copy them from the 2-D model's folder", folder.unet.parent
        )
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        return (
            CLIPTextModel.from_pretrained(folder.text_encoder),
            CLIPTokenizer.from_pretrained(folder.tokenizer),
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be loaded ({error})", "Copy them from the 2-D model's folder", folder.unet.parent
        ) from None
