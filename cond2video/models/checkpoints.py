"""Reading sequence UNets: trained ones, and image UNets that become one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from cond2img.models.checkpoints import (
    SEQUENCE_PARTS,
    Checkpoint,
    build,
    fill,
    find_folder,
    is_sequence,
    is_stable_diffusion,
    read_checkpoint,
    summarise,
    trained_fields,
)
from ctrlgenaug.errors import UserError
from ctrlgenaug.training.official_export import SEQUENCE_ADDITIONS

logger = logging.getLogger(__name__)

LAYOUTS = ("unet3d", "unet", "checkpoint/unet3d")  # where a sequence UNet lies in a model's folder


def _without_block_types(checkpoint: Checkpoint) -> None:
    """Forgets the image model's names of its levels; the sequence model has its own for the same levels."""
    for field in ("down_block_types", "up_block_types"):
        names = checkpoint.config.get(field)
        if names:
            checkpoint.config[field] = [str(name).replace("2D", "3D") for name in names]
    checkpoint.config.pop("mid_block_type", None)


def inflate_unet(
    cls: type[ModelMixin], path: str | Path, subfolder: str | None, init: str, overrides: dict[str, Any]
) -> ModelMixin:
    """See `UNet3DMultiConditionModel.from_pretrained_2d`."""
    checkpoint = read_checkpoint(find_folder(path, subfolder))
    if is_stable_diffusion(checkpoint):
        raise UserError(
            "is a Stable Diffusion UNet; the sequence model starts from a trained LDM-UNet",
            "Run LDM_train.sh first and give the folder that it made",
            checkpoint.folder,
        )
    if is_sequence(checkpoint):
        raise UserError(
            "is a sequence UNet already", "Load it with from_trained_3d, or give the LDM's", checkpoint.folder
        )
    _without_block_types(checkpoint)
    classes = overrides.pop("num_class_embeds", None)
    model = build(cls, checkpoint, **trained_fields(checkpoint, classes), **overrides)
    fill(model, checkpoint, lambda name: any(part in name for part in SEQUENCE_PARTS))
    model.initialise_sequence_parts(init)
    logger.info("%s: inflated, sequential attention and insert_unit start as %s", checkpoint.folder, init)
    return model


def load_sequence_parts(model: ModelMixin, path: str | Path, trained: Sequence[str]) -> None:
    """Takes over what the sequence stage trains from another sequence UNet, as one would from a motion module.

    What they were trained to that leaves no trace in weights (`SEQUENCE_ADDITIONS`) is taken over with them.

    Args:
        model: a sequence UNet, inflated.
        path: folder of a sequence UNet, or of these tensors alone.
        trained: what the names of the tensors contain that are taken over.

    Raises:
        UserError: they are not the model's, all of them and with its shapes.
    """
    checkpoint = read_checkpoint(Path(path))
    own = model.state_dict()
    wanted = {name for name in own if any(part in name for part in trained)}
    found = {name: value for name, value in checkpoint.weights.items() if name in wanted}
    remedy = "Give the parts of a sequence UNet of the same architecture"
    if len(found) < len(wanted):
        lacking = summarise(sorted(wanted - found.keys()))
        raise UserError(f"lacks {len(wanted) - len(found)} sequence parts: {lacking}", remedy, path)
    for name, value in found.items():
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(own[name].shape)}"
            raise UserError(f"has another shape of {name}: {shapes}", remedy, path)
    model.load_state_dict(found, strict=False)
    model.register_to_config(**{name: bool(checkpoint.config.get(name)) for name in SEQUENCE_ADDITIONS})
    logger.info("%s: took over %d tensors of sequence parts", path, len(found))


def newest_checkpoint(path: str | Path) -> list[str]:
    """The newest ``checkpoint-N/unet3d`` in a run's folder, if there is one."""
    found = [folder.parent for folder in Path(path).glob("checkpoint-*/unet3d/config.json")]
    numbered = [folder for folder in found if folder.parent.name.removeprefix("checkpoint-").isdigit()]
    if not numbered:
        return []
    newest = max(numbered, key=lambda folder: int(folder.parent.name.removeprefix("checkpoint-")))
    return [newest.relative_to(path).as_posix()]


def load_unet_3d(
    cls: type[ModelMixin], path: str | Path, subfolder: str | None, overrides: dict[str, Any]
) -> ModelMixin:
    """See `UNet3DMultiConditionModel.from_trained_3d`."""
    checkpoint = read_checkpoint(find_folder(path, subfolder, (*LAYOUTS, *newest_checkpoint(path))))
    if not is_sequence(checkpoint):
        raise UserError(
            "is an image UNet, a trained sequence UNet is needed here",
            "Run sequence_LDM_train.sh first and give the folder that it made",
            checkpoint.folder,
        )
    classes = overrides.pop("num_class_embeds", None)
    fields = trained_fields(checkpoint, classes) | {"motion_condition": checkpoint.has("motion_encoder")}
    _without_block_types(checkpoint)
    model = build(cls, checkpoint, **fields, **overrides)
    fill(model, checkpoint)
    return model
