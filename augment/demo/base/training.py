"""How the miniature base model is trained: the three stages one after the other, and what is kept of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from augment.demo.base import card, store
from augment.demo.base.drawn_data import DrawnClips, DrawnFrames, DrawnPictures
from augment.demo.base.recipe import Recipe
from augment.demo.base.stages import BaseLDMStage, BaseSequenceStage, BaseVAEStage
from augment.demo.weights import BASE, SCHEDULER, small_text_encoder, write_tokenizer
from cond2img.config import LDMConfig, VAEConfig
from cond2img.models import load_vae
from cond2video.config import FINETUNED, SequenceConfig
from ctrlgenaug.files import atomic_path
from ctrlgenaug.folders import write_sums
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.training import checkpoints, cli
from ctrlgenaug.training.config import ConditionDropping, TrainingConfig
from ctrlgenaug.training.export import copy_folder, model_in
from ctrlgenaug.training.stage import Stage

WEIGHTS = "diffusion_pytorch_model.safetensors"
PARTS = "sequence_parts"  # the folder of what the sequence stage trained
MEASURED = 8  # unseen clips that the sequence stage is measured on


class BaseTraining:
    """The training in a scratch folder, whose finished parts a second run finds again.

    Args:
        scratch: drawn patients, latents, runs; some gigabytes.
        recipe: how much of everything.
        num_threads: CPU threads.
    """

    def __init__(self, scratch: Path, recipe: Recipe, num_threads: int = 1) -> None:
        self.scratch, self.recipe, self.num_threads = scratch, recipe, num_threads
        self.start = scratch / "start"  # grows into a folder of Stable Diffusion's layout
        self.drawn = scratch / "drawn"
        torch.set_num_threads(num_threads)

    def run(self) -> None:
        """All stages, each from where it was left."""
        recipe = self.recipe
        self._write_companions()
        train = store.drawn_patients(self.drawn, recipe.seed, recipe.patients)
        test = store.drawn_patients(self.drawn, recipe.seed + 1, recipe.unseen)
        self._train_decoder(train, test)
        vae = load_vae(self.start / "vae").eval().to(memory_format=torch.channels_last)
        moments = store.encoded(self.drawn, f"moments-{recipe.seed}-{recipe.patients}", train[0], vae)
        test_moments = store.encoded(self.drawn, f"moments-{recipe.seed + 1}-{recipe.unseen}", test[0], vae)
        self._train_image((*train, moments), (*test, test_moments))
        clips = slice(recipe.clips)
        self._train_sequence(
            self._clips(recipe.seed, train[0][clips], train[1][clips], vae),
            self._clips(recipe.seed + 1, test[0][:MEASURED], test[1][:MEASURED], vae),
        )

    def _clips(self, seed: int, frames: np.ndarray, texts: list[str], vae: torch.nn.Module) -> tuple:
        """What the sequence stage is shown of patients: moving clips, texts, latents, motion."""
        clips = store.moving(self.drawn, seed, frames, self.recipe.movement)
        name = f"moving-{seed}-{len(frames)}-{self.recipe.movement:g}"
        moments = store.encoded(self.drawn, f"moments-{name}", clips, vae)
        published = self.recipe.published_fields
        kind = "published-motion" if published else "motion"
        motion = store.Motion(self.drawn, f"{kind}-{name}", clips, published)
        return clips, texts, moments, motion

    def _write_companions(self) -> None:
        """Tokenizer, text encoder with random weights, and the scheduler config."""
        if (self.start / "text_encoder").exists():
            return
        torch.manual_seed(self.recipe.seed)
        write_tokenizer(self.start / "tokenizer")
        write_json(self.start / "scheduler" / "scheduler_config.json", SCHEDULER)
        NoiseSchedule(self._image_config().prediction_type or "epsilon").write(self.start)
        with atomic_path(self.start / "text_encoder") as temporary:
            small_text_encoder().save_pretrained(temporary)

    def _settings(self, stage: str, steps: int) -> dict[str, Any]:
        """What the configs of all stages share."""
        return {
            "data_name": "MosMed",  # whose frames have the same size; the patients are of all four data sets
            "pretrained_model_path": str(self.start),
            "output_dir": str(self.scratch / "runs" / stage),
            "max_train_steps": steps,
            "seed": self.recipe.seed,
            "gradient_checkpointing": False,
            "fused_adamw": True,
            "channels_last": True,
            "dataloader_num_workers": 0,
            "num_threads": self.num_threads,
            "ema": True,
            "checkpointing_steps": 200,
            "checkpoints_to_keep": 2,
            "validation_steps": max(1, steps // 2),
            "log_steps": 20,
            "tracker": None,
        }

    def _finish(self, stage: Stage, config: TrainingConfig, target: Path) -> None:
        """Trains to the end, and puts the averaged model where the next stage looks for it."""
        if target.exists():
            return
        AcceleratorState._reset_state(True)  # a process knows one precision, the stages have two
        cli.train(config, lambda config: stage)
        newest = checkpoints.newest_whole(config.output_dir, print)
        assert newest is not None  # a training that ends leaves one
        copy_folder(model_in(newest, stage.folder), target)

    def _train_decoder(self, train: tuple, test: tuple) -> None:
        config = VAEConfig(
            **self._settings("vae", self.recipe.decoder_steps),
            perceptual_loss=False,
            latent_noise=0.5,
            train_batch_size=2,
            learning_rate=2e-3,
            lr_warmup_steps=50,
            ema_decay=0.99,
            validation_max_frames=32,
        )
        stage = BaseVAEStage(config, DrawnPictures(config, *train), DrawnPictures(config, *test))
        self._finish(stage, config, self.start / "vae")

    def _image_stage(self, config: LDMConfig, train: DrawnFrames, test: DrawnFrames) -> Stage:
        """What trains on frames; benchmarks put their own in its place."""
        return BaseLDMStage(config, train, test)

    def _image_config(self) -> LDMConfig:
        """Of the image stage; benchmarks change one field at a time."""
        steps = self.recipe.image_steps
        return LDMConfig(
            **self._settings("image", steps),
            vae_path=str(self.start / "vae"),
            steering_samples=0,  # measured by the stage itself, without classes
            prediction_type="v_prediction",
            timestep_sampling="mixture",
            condition_dropping=ConditionDropping(keep_all=0.9, drop_all=0.1),
            train_batch_size=self.recipe.batch_size,
            learning_rate=1e-3,
            lr_warmup_steps=min(200, steps // 5),
            ema_decay=0.999 if steps > 1000 else 0.99,
            mixed_precision="bf16",
        )

    def _train_image(self, train: tuple, test: tuple) -> None:
        config = self._image_config()
        frames, texts, moments = test
        # one frame a patient, each of another place in its clip
        places = np.arange(len(frames)) // 4 % frames.shape[1]
        own = (np.arange(len(frames)), places)
        test = (frames[own][:, None], texts, moments[own][:, None])
        stage = self._image_stage(config, DrawnFrames(config, *train), DrawnFrames(config, *test))
        self._finish(stage, config, self.start / "unet")

    def _train_sequence(self, train: tuple, test: tuple) -> None:
        config = SequenceConfig(
            **self._settings("sequence", self.recipe.sequence_steps),
            vae_path=str(self.start / "vae"),
            steering_samples=0,  # measured by the stage itself, without classes
            frame_positions=True,
            prior_follows_motion=self.recipe.prior_follows_motion,
            timestep_sampling="mixture",
            condition_dropping=ConditionDropping(keep_all=0.7, drop_all=0.1),
            train_batch_size=2,
            learning_rate=5e-4,
            lr_warmup_steps=50,
            ema_decay=0.995,
            mixed_precision="bf16",
        )
        stage = BaseSequenceStage(config, DrawnClips(config, *train), DrawnClips(config, *test))
        self._finish(stage, config, self.start / "unet3d")

    def export(self, out: Path) -> None:
        """Writes the model in float16 with its card and checksums, replacing what was there."""
        with atomic_path(out) as temporary:
            for name in ("tokenizer", "scheduler"):
                shutil.copytree(self.start / name, temporary / name)
            for name in ("text_encoder", "vae", "unet"):
                shutil.copytree(self.start / name, temporary / name)
                for file in (temporary / name).glob("*.safetensors"):
                    save_file(_halved(load_file(file)), file, metadata={"format": "pt"})
            whole = self.start / "unet3d"
            (temporary / PARTS).mkdir()
            shutil.copy(whole / "config.json", temporary / PARTS / "config.json")
            weights = load_file(whole / WEIGHTS)
            parts = {name: value for name, value in weights.items() if any(p in name for p in FINETUNED)}
            save_file(_halved(parts), temporary / PARTS / WEIGHTS, metadata={"format": "pt"})
            card.write(temporary, self.recipe, self.scratch / "runs")
            write_sums(temporary)
            if out.exists():
                shutil.rmtree(out)


def take_base(folder: Path, names: Sequence[str]) -> None:
    """Copies models of the tracked base into ``folder``, in float32, for a training to go on from."""
    for name in names:
        if not (folder / name).exists():
            with atomic_path(folder / name) as temporary:
                shutil.copytree(BASE / name, temporary)
                for file in temporary.glob("*.safetensors"):
                    weights = {key: value.float() for key, value in load_file(file).items()}
                    save_file(weights, file, metadata={"format": "pt"})


def _halved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in weights.items()
    }
