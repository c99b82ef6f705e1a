"""A run folder belongs to one set of settings: what may differ when a run goes on, and what may not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ctrlgenaug.errors import UserError
from ctrlgenaug.training import checkpoints, inputs
from ctrlgenaug.training.config import TrainingConfig
from ctrlgenaug.training.export import CONFIG_FILE, read_run_config

# Where things lie, how fast they go and what is recorded: the weights would be the same, but for rounding.
FREE = {
    *("data", "data_root", "train_data_dir", "test_data_dir", "test_split", "output_dir", "export_dir"),
    *("image_prior_dir", "motion_field_dir", "trajectory_dir", "latent_cache_dir", "lpips_weights"),
    *(
        "dataloader_num_workers",
        "num_threads",
        "cache_latents",
        "channels_last",
        "torch_compile",
        "allow_tf32",
    ),
    *(
        "gradient_checkpointing",
        "enable_xformers_memory_efficient_attention",
        "fused_adamw",
        "mixed_precision",
    ),
    *("checkpointing_steps", "checkpoints_to_keep", "resume_from_checkpoint", "log_steps", "tracker"),
    *("validation_steps", "validation_names", "validation_images", "validation_max_frames"),
    *("validation_samples", "validation_data", "steering_samples"),
}
# A run may go on for longer, or with its batch dealt out in another way: both are told.
TOLD = {"num_train_epochs", "max_train_steps", "train_batch_size", "gradient_accumulation_steps"}


def differences(config: TrainingConfig, run_folder: str | Path) -> dict[str, str]:
    """What the run in ``run_folder`` was started with and ``config`` says otherwise: field -> ``1e-4, now 1e-3``.

    A folder without checkpoints is free for any settings. A field that the saved config does not have, because it is
    younger, differs from nothing.
    """
    path = Path(run_folder) / CONFIG_FILE
    if not checkpoints.find(run_folder) or not path.is_file():
        return {}
    noted = _flat(read_run_config(path))
    now = _flat(OmegaConf.to_container(OmegaConf.structured(config)))
    return {
        name: f"{noted[name]}, now {value}"
        for name, value in now.items()
        if name in noted and noted[name] != value and name.split(".")[0] not in FREE
    }


def refuse_other_settings(config: TrainingConfig) -> str:
    """Raises a `UserError` that names the settings which a begun or finished run of other settings differs in.

    Returns:
        A line on differences that are allowed and matter, or "".
    """
    found = differences(config, config.output_dir)
    refused = {name: text for name, text in found.items() if name not in TOLD}
    if refused:
        named = "; ".join(f"{name}: {text}" for name, text in refused.items())
        raise UserError(
            f"holds a training with other settings ({named})",
            "Give the same settings, choose another output_dir, or delete this one",
            config.output_dir,
        )
    named = "; ".join(f"{name}: {text}" for name, text in found.items())
    return f"note: {named}; the learning rate follows the new schedule from here on" if named else ""


def refuse_other_inputs(config: TrainingConfig, now: Mapping[str, str]) -> None:
    """Raises a `UserError` if a begun or finished run started from another VAE, other weights or other samples.

    A run of an earlier version noted none, and is not refused.
    """
    if checkpoints.find(config.output_dir) and (found := inputs.changed(config.output_dir, now)):
        raise UserError(
            f"was trained with other content than there is now: {', '.join(found)}",
            "Restore it, or choose another output_dir (there resume_from_checkpoint=PATH goes on from these weights)",
            config.output_dir,
        )


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
