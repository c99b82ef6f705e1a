"""Stage 2: the image diffusion model, from Stable Diffusion's UNet (docs/method.md, sections 5 and 6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cond2img.config import LDMConfig
from cond2img.data import LabelledFrameData
from cond2img.guidance import Guidance
from cond2img.latent_codec import to_uint8
from cond2img.models import UNet2DMultiConditionModel
from cond2img.pipelines.solvers import make_scheduler
from cond2img.training.diffusion import DiffusionStage, DiffusionStep
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.contact_sheet import contact_sheet, save_picture
from ctrlgenaug.datasets import IMAGE_SIZE
from ctrlgenaug.training.config import default_config
from ctrlgenaug.training.feature_picture import map_picture
from ctrlgenaug.training.records import Records


class LDMStage(DiffusionStage):
    """Trains the whole UNet."""

    folder = "unet"
    config: LDMConfig

    def __init__(self, config: LDMConfig) -> None:
        data = LabelledFrameData(config, config.train_split)
        model = UNet2DMultiConditionModel.from_pretrained_2d(
            config.pretrained_model_path,
            subfolder="unet",
            load_trained=config.load_trained,
            fresh_init=config.fresh_init,
            num_class_embeds=None if config.load_trained else len(data.spec.classes),
            **(
                {} if config.load_trained else {"condition_insert_block": list(config.condition_insert_block)}
            ),
        )
        super().__init__(config, data, DiffusionStep(model))
        self.model.require_classes(data.spec, config.pretrained_model_path)
        self.test_data = LabelledFrameData(config, config.test_split)
        self.next_step = f"Next: sh sequence_LDM_train.sh{default_config(config.data_name, 'sequence-LDM')}"

    def read_weights(self, folder: Path) -> dict[str, torch.Tensor]:
        return UNet2DMultiConditionModel.from_pretrained_2d(folder, load_trained=True).state_dict()

    def validate(self, step: int, records: Records) -> None:
        """One column a pair of class and frame: the real frame, its image prior, and what is sampled from it."""
        from cond2img.pipelines import GenImagePipeline  # only validation pays for it

        settings, pairs = self.config.validation_data, self.pairs
        conditions = [pair.conditions() for pair in pairs]
        pipeline = GenImagePipeline(self.vae, self.model, make_scheduler(schedule=self.schedule))
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline.sample(
            ClipConditionsBatch.stack(conditions),
            (1, IMAGE_SIZE, IMAGE_SIZE),
            prompt_embeds=self.step_module.texts[:1],
            negative_prompt_embeds=self.step_module.texts[:1],
            num_inference_steps=settings.num_inference_steps,
            guidance=Guidance(settings.guidance_scale),
            generator=[torch.Generator().manual_seed(settings.seed + n) for n in range(len(pairs))],
        )
        names = ", ".join(f"{pair.row.name} ({pair.row.cls})" for pair in pairs)
        rows = [
            (f"real frames: {names}", np.concatenate([pair.data.frames(pair.index) for pair in pairs])),
            ("their image priors", np.stack([map_picture(c.prior.numpy(), IMAGE_SIZE) for c in conditions])),
            (
                f"synthetic at step {step}, of class {', '.join(pair.label for pair in pairs)}",
                to_uint8(np.asarray(images)).reshape(len(pairs), IMAGE_SIZE, IMAGE_SIZE),
            ),
        ]
        path = records.folder / "inter_test_results" / f"iter_{step}.png"
        save_picture(path, contact_sheet(rows, IMAGE_SIZE))
        records.log(f"step {step}: samples in {path}")
