"""From a sample of the plan to its frames: the sequence model on one device, and the conditions of a clip."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from augment.generation.plan import Sample
from cond2img.models import load_vae
from cond2img.models.text import load_text
from cond2img.pipelines.denoising import make_scheduler, to_uint8
from cond2video.model_folder import find_model_folder
from cond2video.models import UNet3DMultiConditionModel
from cond2video.pipelines import GenVideoPipeline
from ctrlgenaug import datasets
from ctrlgenaug.conditions.trajectories import link, load_trajectories
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import load_npy

PRIOR_SHAPE = (256, 64, 64)
FIELD_SHAPE = (None, 2, datasets.IMAGE_SIZE, datasets.IMAGE_SIZE)  # (F-1, x and y, H, W)
REMEDY = "Run the extraction step for this split, or leave the condition out"

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Conditions:
    """What one sample is conditioned on. A condition that is not wanted is what training showed for a dropped one.

    Attributes:
        class_id: its class.
        prior: (256, 64, 64) float32.
        motion: (2, F-1, 256, 256) float32, in pixels.
        points: (F*1024, F, 3) integers, the trajectories of the field.
        mask: (F*1024, F) bool.
        text: the prompt.
    """

    class_id: int
    prior: torch.Tensor
    motion: torch.Tensor
    points: torch.Tensor
    mask: torch.Tensor
    text: str

    @property
    def num_frames(self) -> int:
        """F."""
        return self.motion.shape[1] + 1


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
        scheduler: a key of `cond2img.pipelines.denoising.SOLVERS`.
        num_inference_steps: denoising steps.
        guidance_scale: classifier-free guidance; 1 is none.
        guidance_interval: (low, high) timesteps with guidance, of 0 to 999; None: all.
        noise: ``shared`` or ``own``, see `Sample.noise_seed`.
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
        guidance_interval: tuple[float, float] | None = None,
        noise: str = "shared",
        dtype: str = "float32",
        compile_unet: bool = False,
        num_frames: int | None = None,
    ) -> None:
        self.spec, self.home, self.conditions = datasets.get(data_name), Path(home), tuple(conditions)
        _quieten()
        self.device = _usable(device)
        self.num_frames, self.noise = num_frames, noise
        self._settings = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "guidance_interval": guidance_interval,
        }
        folder = find_model_folder(model_path, data_name, vae_path)
        unet = UNet3DMultiConditionModel.from_trained_3d(folder.unet)
        _check_classes(unet, self.spec, folder.unet)
        tokenizer, encoder = load_text(folder.unet.parent)
        self.has_image_branch = any(unet.config.condition_insert_block)
        self.has_motion_branch = bool(unet.config.motion_condition)
        vae = load_vae(folder.vae)
        for part in (unet, vae, encoder):
            part.eval().requires_grad_(False).to(self.device, DTYPES[dtype])
        if compile_unet:
            unet.compile()
        self.pipeline = GenVideoPipeline(vae, unet, make_scheduler(scheduler), encoder, tokenizer)
        self.pipeline.set_progress_bar_config(disable=True)

    def load(self, sample: Sample) -> Conditions:
        """Reads the conditions of ``sample``; a `UserError` if a file is missing or damaged."""
        if "motion_condition" in self.conditions:
            field = load_npy(self.spec.motion_path(self.home, sample.clip), FIELD_SHAPE, remedy=REMEDY)
            path = self.spec.trajectory_path(self.home, sample.clip)
            points, mask = load_trajectories(path, len(field) + 1)
        else:  # nothing moves: each point's trajectory stays where it is
            frames = self.num_frames or self.spec.required_clip_num
            field = np.zeros((frames - 1, *FIELD_SHAPE[1:]), np.float32)
            points, mask = link(field, seed=0)
        prior = np.zeros(PRIOR_SHAPE, np.float32)
        if "image_condition" in self.conditions:
            path = self.spec.prior_path(self.home, self.spec.first_frame(sample.clip))
            prior = load_npy(path, PRIOR_SHAPE, remedy=REMEDY).astype(np.float32)
        return Conditions(
            self.spec.class_id(sample.cls),
            torch.from_numpy(prior),
            torch.from_numpy(np.ascontiguousarray(field.swapaxes(0, 1), dtype=np.float32)),
            torch.as_tensor(points),
            torch.as_tensor(mask),
            sample.text if "text_condition" in self.conditions else "",
        )

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
        def stack(name: str) -> torch.Tensor:
            return torch.stack([getattr(one, name) for one in conditions]).to(self.device)

        result = self.pipeline(
            class_labels=torch.tensor([c.class_id for c in conditions], device=self.device),
            image_cond=stack("prior") if self.has_image_branch else None,
            motion_cond=stack("motion") if self.has_motion_branch else None,
            traj=stack("points"),
            traj_mask=stack("mask"),
            prompt=[c.text for c in conditions],
            num_frames=conditions[0].num_frames,
            # drawn on the CPU, so that every device starts from the same noise
            generator=[
                torch.Generator("cpu").manual_seed(sample.noise_seed(self.noise)) for sample in samples
            ],
            output_type="np",
            **self._settings,
        )
        frames = np.asarray(result.frames, dtype=np.float32)  # (B, F, H, W) in [0, 1]
        return to_uint8(frames)

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


def _check_classes(unet: UNet3DMultiConditionModel, spec: datasets.DatasetSpec, path: Path) -> None:
    classes = unet.config.num_class_embeds
    if classes != len(spec.classes):
        raise UserError(
            f"knows {classes} classes, {spec.data_name} has {len(spec.classes)}",
            "Check --data_name and the model's folder",
            path,
        )
