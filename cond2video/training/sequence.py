"""Stage 3: the sequence diffusion model, inflated from the image model (docs/method.md, sections 5 and 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cond2img.pipelines.denoising import make_scheduler
from cond2img.training.diffusion import DiffusionStage, DiffusionStep
from cond2video.config import SequenceConfig
from cond2video.data import LabelledClipData
from cond2video.models import UNet3DMultiConditionModel, mark_finetuned
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.stage import Batch


class SequenceStep(DiffusionStep):
    """Noise prediction for clips, conditioned on class, text, image prior, motion field and trajectories."""

    def predict(self, noisy: torch.Tensor, text: torch.Tensor, batch: Batch) -> torch.Tensor:
        sample = self.model(
            noisy.transpose(1, 2),  # (B, 4, F, 32, 32)
            batch["timestep"],
            encoder_hidden_states=text,
            class_labels=batch["class_label"],
            image_cond=batch["image_prior"],
            motion_cond=batch["motion_field"],
            traj=batch["traj"],
            traj_mask=batch["traj_mask"],
        ).sample
        return sample.transpose(1, 2)


class SequenceStage(DiffusionStage):
    """Trains what sequences add, and the attention that must learn to use it."""

    folder = "unet3d"
    config: SequenceConfig
    data: LabelledClipData

    def __init__(self, config: SequenceConfig) -> None:
        data = LabelledClipData(config, config.train_split)
        model = UNet3DMultiConditionModel.from_pretrained_2d(
            config.pretrained_model_path, subfolder="unet", init=config.fresh_init
        )
        mark_finetuned(model)
        super().__init__(config, data, SequenceStep(model))
        self.check_classes()
        self.test_data = LabelledClipData(config, config.test_split)
        self.next_step = f"Next: python generate.py --sequence_model {config.export_dir or 'FOLDER'} ..."

    def read_weights(self, folder: Path) -> dict[str, torch.Tensor]:
        return UNet3DMultiConditionModel.from_trained_3d(folder).state_dict()

    def validate(self, step: int, records: Records) -> None:
        """For each configured clip a strip of its real frames above strips sampled from its conditions."""
        from cond2video.pipelines import GenVideoPipeline  # only validation pays for it

        settings, data = self.config.validation_data, self.test_data
        pipeline = GenVideoPipeline(self.vae, self.model, make_scheduler())
        pipeline.set_progress_bar_config(disable=True)
        folder = records.folder / "inter_test_results" / f"iter_{step}"
        for index in data.pick(settings.names):
            row = data.rows[index]
            strips = [(f"{row.name}, real, class {row.cls}", data.frames(index))]
            motion = torch.from_numpy(np.ascontiguousarray(data.motion(index).swapaxes(0, 1)))
            points, mask = data.trajectories(index)
            for label in settings.class_labels or [row.cls]:
                frames = pipeline(
                    class_labels=torch.tensor([data.spec.class_id(label)], device=self.device),
                    image_cond=torch.from_numpy(data.prior(index))[None].to(self.device),
                    motion_cond=motion[None].to(self.device),
                    traj=points[None].to(self.device),
                    traj_mask=mask[None].to(self.device),
                    prompt_embeds=self.step_module.texts[:1],
                    negative_prompt_embeds=self.step_module.texts[:1],
                    num_frames=data.num_frames,
                    num_inference_steps=settings.num_inference_steps,
                    guidance_scale=settings.guidance_scale,
                    generator=torch.Generator().manual_seed(settings.seed),
                    output_type="np",
                ).frames
                frames = (np.asarray(frames).reshape(-1, IMAGE_SIZE, IMAGE_SIZE) * 255).astype(np.uint8)
                strips.append((f"synthetic at step {step}, class {label}", frames))
            save_picture(folder / f"{row.name}.png", contact_sheet(strips, IMAGE_SIZE))
        records.log(f"step {step}: clips in {folder}")
