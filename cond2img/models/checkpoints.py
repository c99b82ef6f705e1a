"""Reading model folders: which stage their weights come from, what was renamed, started fresh or ignored."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.tensor_files import read_folder

logger = logging.getLogger(__name__)

# What a stage adds to the one before, by what the parameters' names contain.
MULTIMODAL_PARTS = ("class_embedding", "image_proj", "attn_condImage", "norm_condImage")
SEQUENCE_PARTS = ("motion_encoder", "insert_unit", "norm_temp", "attn_temp")

# Fields of the published code's config.json that leave nothing to choose here.
PUBLISHED_FIELDS = {"image_condition": True, "image_encode": "MedSAM"}

# Lines that the sequence stage adds to an image UNet's config.json.
SEQUENCE_FIELDS = ("self_attn_mode", "insert_strategy", "motion_condition")


@dataclass
class Checkpoint:
    """A model folder as it was found.

    Args:
        folder: where config.json and the weights lie.
        config: config.json.
        weights: name -> tensor, on the CPU.
    """

    folder: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]

    def has(self, part: str) -> bool:
        """Whether any parameter's name contains ``part``."""
        return any(part in name for name in self.weights)


def find_folder(path: str | Path, subfolder: str | None, fallbacks: Iterable[str] = ()) -> Path:
    """The folder that holds config.json.

    Args:
        path: a model folder, or the folder of a whole pipeline.
        subfolder: where in ``path``; None: ``path`` itself or else one of ``fallbacks`` in it.
        fallbacks: names (or patterns) that are tried in this order if it is not there.

    Raises:
        UserError: there is none, or more than one matches a pattern.
    """
    path = Path(path)
    wanted = path / subfolder if subfolder else path
    if (wanted / "config.json").is_file():
        return wanted
    fallbacks = list(fallbacks)
    for pattern in fallbacks:
        found = sorted(folder.parent for folder in path.glob(f"{pattern}/config.json"))
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise UserError(f"holds several candidates: {names}", "Name the one to load", path)
        if found:
            if subfolder:
                logger.info("%s: not there, using %s", wanted, found[0])
            return found[0]
    where = f"in it or in {', '.join(fallbacks)}" if fallbacks else "in it"
    raise UserError(f"is not a model folder (no config.json {where})", "Check the path", wanted)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads config.json and the weights of ``folder``, without running anything that they contain.

    Raises:
        UserError: a file is missing or damaged, or holds other things than tensors.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        remedy = "Copy it from the checkpoint again"
        raise UserError("is not a model's config", remedy, folder / "config.json")
    for field, value in PUBLISHED_FIELDS.items():  # what they could say, the weights say
        if field in config and config[field] in (value, None):
            del config[field]
    for field in SEQUENCE_FIELDS:  # null in an image model's config: decided in the next stage
        if field in config and config[field] is None:
            del config[field]
    return Checkpoint(folder, config, read_folder(folder))


def _part(name: str) -> str:
    """The part of the model that a parameter belongs to, whichever level it is in: ``attn_temp``, ``image_proj``."""
    path = [piece for piece in name.split(".")[:-1] if not piece.isdigit()] or [name]
    if "transformer_blocks" in path:
        path = path[path.index("transformer_blocks") + 1 :]
        return ".".join(path[: 2 if path[0] == "multi_modal_attn" else 1])
    return ".".join(path) if path[0] in ("down_blocks", "mid_block", "up_blocks") else path[0]


def summarise(names: Iterable[str], most: int = 8) -> str:
    """A long list of parameters as a short list of the parts they belong to."""
    parts = sorted({_part(name) for name in names})
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return ", ".join(parts[:most]) + more


def fill(
    model: ModelMixin, checkpoint: Checkpoint, may_be_fresh: Callable[[str], bool] | None = None
) -> list[str]:
    """Loads ``checkpoint`` into ``model`` and logs what was loaded and what started fresh.

    Args:
        model: the model.
        checkpoint: names and shapes must be the model's, nothing more.
        may_be_fresh: which parameters the checkpoint may lack; None: none.

    Returns:
        The names of what started fresh.

    Raises:
        UserError: names or shapes differ.
    """
    folder, weights, own = checkpoint.folder, checkpoint.weights, model.state_dict()
    remedy = f"Give a folder that holds a {type(model).__name__} with this config.json"
    unknown = [name for name in weights if name not in own]
    if unknown:
        raise UserError(
            f"holds {len(unknown)} tensors that the model lacks: {summarise(unknown)}", remedy, folder
        )
    missing = [name for name in own if name not in weights]
    needed = [name for name in missing if may_be_fresh is None or not may_be_fresh(name)]
    if needed:
        raise UserError(f"lacks {len(needed)} of the model's tensors: {summarise(needed)}", remedy, folder)
    wrong = [name for name in weights if weights[name].shape != own[name].shape]
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{len(wrong)} tensors have another shape than config.json says, e.g. {first} "
            f"{tuple(weights[first].shape)} instead of {tuple(own[first].shape)}",
            "Mend config.json",
            folder,
        )
    model.load_state_dict(weights, strict=False)
    model.eval()
    logger.info("%s: loaded %d of %d tensors", folder, len(weights), len(own))
    if missing:
        logger.info("%s: %d tensors start fresh: %s", folder, len(missing), summarise(missing))
    return missing


def build(cls: type[ModelMixin], checkpoint: Checkpoint, **fields: Any) -> ModelMixin:
    """A model of class ``cls`` with the checkpoint's config, ``fields`` in place of its own.

    Raises:
        UserError: the config asks for an architecture that is not this one.
    """
    try:
        config = without_neutral_fields(cls, checkpoint.config)
        return cls.from_config({**config, "_class_name": cls.__name__}, **fields)
    except (ValueError, TypeError) as error:
        raise UserError(str(error), "Mend the field", checkpoint.folder / "config.json") from None


def without_neutral_fields(cls: type[ModelMixin], config: dict[str, Any]) -> dict[str, Any]:
    """``config`` less the fields that ``cls`` has not and that ask for nothing: they hold diffusers' own default.

    A Stable Diffusion saved by a recent diffusers lists every option of its UNet. One that is set stays, and diffusers
    warns that it is not honoured.
    """
    own = inspect.signature(cls.__init__).parameters
    foreign = [name for name in config if name not in own and not name.startswith("_")]
    if not foreign:
        return config
    from diffusers import UNet2DConditionModel  # takes time to import

    theirs = inspect.signature(UNet2DConditionModel.__init__).parameters
    neutral = {name for name in foreign if name in theirs and theirs[name].default == config[name]}
    return {name: value for name, value in config.items() if name not in neutral}


# ---------------------------------------------------------------------------------------------- UNets


def is_stable_diffusion(checkpoint: Checkpoint) -> bool:
    return not checkpoint.has("multi_modal_attn")


def is_sequence(checkpoint: Checkpoint) -> bool:
    return any(checkpoint.has(part) for part in SEQUENCE_PARTS)


def _rename_stable_diffusion(checkpoint: Checkpoint) -> None:
    """Moves ``norm2`` and ``attn2`` of every transformer block into ``multi_modal_attn``; no other norm2."""
    pattern = re.compile(r"(\.transformer_blocks\.\d+\.)(norm2|attn2)\.")
    renamed = {pattern.sub(r"\1multi_modal_attn.\2.", name): name for name in checkpoint.weights}
    count = sum(new != old for new, old in renamed.items())
    checkpoint.weights = {new: checkpoint.weights[old] for new, old in renamed.items()}
    logger.info("%s: renamed %d tensors: norm2, attn2 -> multi_modal_attn", checkpoint.folder, count)


def _check_classes(checkpoint: Checkpoint, wanted: int | None) -> int | None:
    """The number of classes: what was asked for, else what the weights hold, else what the config says."""
    embedding = checkpoint.weights.get("class_embedding.weight")
    if embedding is None:
        return wanted or checkpoint.config.get("num_class_embeds")
    if wanted is not None and wanted != embedding.shape[0]:
        raise UserError(
            f"was trained with {embedding.shape[0]} classes, not {wanted}",
            "Give the model of this data set, or set num_class_embeds to its number of classes",
            checkpoint.folder,
        )
    return embedding.shape[0]


def _image_branches(checkpoint: Checkpoint) -> list[bool]:
    """Which of the down, mid and up levels attend to the image prior, by their weights."""
    with_image = [name for name in checkpoint.weights if "attn_condImage" in name]
    return [any(name.startswith(level) for name in with_image) for level in ("down", "mid", "up")]


def trained_fields(checkpoint: Checkpoint, num_class_embeds: int | None) -> dict[str, Any]:
    """Config fields that the weights of a trained UNet decide."""
    return {
        "num_class_embeds": _check_classes(checkpoint, num_class_embeds),
        "condition_insert_block": _image_branches(checkpoint),
    }


def load_unet_2d(
    cls: type[ModelMixin],
    path: str | Path,
    subfolder: str | None,
    load_trained: bool,
    num_class_embeds: int | None,
    fresh_init: str,
    overrides: dict[str, Any],
) -> ModelMixin:
    """See `UNet2DMultiConditionModel.from_pretrained_2d`."""
    checkpoint = read_checkpoint(find_folder(path, subfolder))
    folder = checkpoint.folder
    if is_sequence(checkpoint):
        raise UserError("is a sequence UNet, an image UNet is needed here", "Give the LDM's folder", folder)
    for field in SEQUENCE_FIELDS:  # they may be there already, for the next stage
        checkpoint.config.pop(field, None)
    if not is_stable_diffusion(checkpoint):
        fields = trained_fields(checkpoint, num_class_embeds)
        if load_trained:
            model = build(cls, checkpoint, **{**overrides, **fields})
            fill(model, checkpoint)
            return model
        model = build(cls, checkpoint, **{**fields, **overrides})
        start_fresh_parts(model, fill(model, checkpoint, _lacking(checkpoint)), fresh_init)
        return model
    if load_trained:
        raise UserError(
            "is a Stable Diffusion UNet, a trained LDM-UNet is needed here",
            "Run LDM_train.sh first and give the folder that it made",
            folder,
        )
    classes = _check_classes(checkpoint, num_class_embeds)
    if classes is None:
        raise UserError("says nothing of classes", "Set num_class_embeds to the data set's number", folder)
    _rename_stable_diffusion(checkpoint)
    checkpoint.config.pop("mid_block_type", None)  # its name in Stable Diffusion's config varies with the age
    model = build(cls, checkpoint, **{"num_class_embeds": classes, **overrides})
    fresh = fill(model, checkpoint, lambda name: any(part in name for part in MULTIMODAL_PARTS))
    start_fresh_parts(model, fresh, fresh_init)
    return model


def _lacking(checkpoint: Checkpoint) -> Callable[[str], bool]:
    """Which parameters a UNet that was trained without classes, or without some image branches, cannot have."""
    levels = ("down", "mid", "up")
    without = [level for level, has in zip(levels, _image_branches(checkpoint), strict=True) if not has]

    def lacks(name: str) -> bool:
        if name.startswith("class_embedding"):
            return not checkpoint.has("class_embedding")
        return "_condImage" in name and any(name.startswith(level) for level in without)

    return lacks


@torch.no_grad()
def start_fresh_parts(model: nn.Module, fresh: Iterable[str], init: str) -> None:
    """Sets the ``fresh`` parameters.

    Args:
        model: as it was made, fresh parameters as PyTorch draws them.
        fresh: their names.
        init: "torch": leaves them; "official": draws linear layers as the published code does, with deviation 0.02 and
            no bias; "identity": the classes' embedding and what the image branches add are zero, so that a model that
            is trained already starts as it was.
    """
    fresh = set(fresh)
    if init == "official":
        draw_as_published(model, fresh)
    if init == "identity":
        for name, parameter in model.named_parameters():
            if name in fresh and (name.startswith("class_embedding") or "attn_condImage.to_out" in name):
                parameter.zero_()


@torch.no_grad()
def draw_as_published(model: nn.Module, fresh: Iterable[str]) -> None:
    """Draws the linear layers among the ``fresh`` parameters as the published code does: deviation 0.02, no bias."""
    fresh = set(fresh)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and f"{name}.weight" in fresh:
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                module.bias.zero_()
