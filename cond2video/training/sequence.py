"""Stage 3: the sequence diffusion model, inflated from the image model (docs/method.md, sections 5 and 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cond2img.guidance import Guidance
from cond2img.latent_codec import to_uint8
from cond2img.pipelines.solvers import make_scheduler
from cond2img.training.diffusion import DiffusionStage, DiffusionStep
from cond2video.config import FINETUNED, SequenceConfig
from cond2video.data import LabelledClipData
from cond2video.models import UNet3DMultiConditionModel, mark_finetuned
from cond2video.models.checkpoints import load_sequence_parts
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.conditions.motion_extraction import require_followed
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.training.inputs import content_of
from ctrlgenaug.training.official_export import SEQUENCE_ADDITIONS
from ctrlgenaug.training.records import Records


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
        if config.sequence_parts:
            load_sequence_parts(model, config.sequence_parts, FINETUNED)
        for addition in SEQUENCE_ADDITIONS:  # what the run keeps is what the model does
            if getattr(config, addition) is None:
                setattr(config, addition, model.config[addition])
            model.register_to_config(**{addition: getattr(config, addition)})
        if config.prior_follows_motion and config.motion_condition:
            require_followed(data.reader.motion_dir)
        mark_finetuned(model, config.trainable_modules)
        super().__init__(config, data, DiffusionStep(model))
        self.model.require_classes(data.spec, config.pretrained_model_path)
        self.test_data = LabelledClipData(config, config.test_split)
        self.next_step = f"Next: python generate.py --sequence_model {config.export_dir or 'FOLDER'} ..."

    def inputs(self) -> dict[str, str]:
        parts = self.config.sequence_parts
        return super().inputs() | ({"sequence_parts": content_of(parts)} if parts else {})

    def read_weights(self, folder: Path) -> dict[str, torch.Tensor]:
        return UNet3DMultiConditionModel.from_trained_3d(folder).state_dict()

    def validate(self, step: int, records: Records) -> None:
        """One picture a pair of class and clip: the real frames above those sampled from its conditions."""
        from cond2video.pipelines import GenVideoPipeline  # only validation pays for it

        settings = self.config.validation_data
        pipeline = GenVideoPipeline(self.vae, self.model, make_scheduler(schedule=self.schedule))
        pipeline.set_progress_bar_config(disable=True)
        folder = records.folder / "inter_test_results" / f"iter_{step}"
        names = [pair.row.name for pair in self.pairs]
        for pair, name in zip(self.pairs, names, strict=True):
            frames = pipeline.sample(
                ClipConditionsBatch.stack([pair.conditions()]),
                (pair.data.num_frames, IMAGE_SIZE, IMAGE_SIZE),
                prompt_embeds=self.step_module.texts[:1],
                negative_prompt_embeds=self.step_module.texts[:1],
                num_inference_steps=settings.num_inference_steps,
                guidance=Guidance(settings.guidance_scale),
                generator=torch.Generator().manual_seed(settings.seed),
            )
            strips = [
                (f"{name}, real, class {pair.row.cls}", pair.data.frames(pair.index)),
                (
                    f"synthetic at step {step}, class {pair.label}",
                    to_uint8(np.asarray(frames)).reshape(-1, IMAGE_SIZE, IMAGE_SIZE),
                ),
            ]
            # a clip that is asked for in several classes has a picture of each
            file = f"{name}.png" if names.count(name) == 1 else f"{name}_{pair.label}.png"
            save_picture(folder / file, contact_sheet(strips, IMAGE_SIZE))
        records.log(f"step {step}: clips in {folder}")
