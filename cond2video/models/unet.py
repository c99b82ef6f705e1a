"""The sequence UNet: the image UNet, inflated, plus motion encoder, insert_unit, SAM and sequential attention."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import ModelMixin  # noqa: F401  diffusers looks it up here when it loads a whole pipeline
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from cond2img.models.checkpoints import draw_as_published
from cond2img.models.conditioning import Conditioning, Trajectories
from cond2img.models.unet import UNet2DMultiConditionModel
from cond2video.config import FINETUNED
from cond2video.models import checkpoints
from cond2video.models.attention import SequenceTransformerBlock
from cond2video.models.config_fields import inherit_fields
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.errors import UserError

logger = logging.getLogger(__name__)

Initialisation = Literal["identity", "official"]


class MotionEncoder(nn.Module):
    """Encodes each motion field by itself, down to the size of the latents."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        widths = [(16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 96, 2), (96, 96, 1), (96, 256, 2)]
        self.conv_in = nn.Conv2d(2, 16, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Conv2d(a, b, 3, stride, padding=1) for a, b, stride in widths])
        self.conv_out = nn.Conv2d(256, out_channels, 3, padding=1)

    def initialise(self, init: Initialisation) -> None:
        """Draws the weights anew.

        Args:
            init: "official": as PyTorch does. Each layer then shrinks what it passes on: a movement of 3 pixels comes
                out as 3e-4, which nothing after it learns to see for a long time. "identity": a movement of 8 pixels,
                one place of the latents, becomes about 1.
        """
        for layer in (self.conv_in, *self.blocks, self.conv_out):
            layer.reset_parameters()
            if init == "identity":
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        if init == "identity":
            self.conv_in.weight.div_(8)

    def forward(self, fields: Tensor) -> Tensor:
        """(N, 2, 8H, 8W) displacements in pixels -> (N, C, H, W)."""
        x = F.silu(self.conv_in(fields))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class UNet3DMultiConditionModel(UNet2DMultiConditionModel):
    """Predicts the noise in the latents of a sequence from class, text, image prior and motion field.

    Takes the image model's config fields and those below. Sequential attention starts at zero and insert_unit passes
    the image features on, so that an inflated image model starts from what it knows.

    Args:
        self_attn_mode: "SAM"; another value is warned of and taken as "SAM".
        insert_strategy: "concat", the only one.
        motion_condition: whether the model has a motion encoder and insert_unit.
        frame_positions: sequential attention is told each frame's place in the clip, by sines as in AnimateDiff's
            motion module; without weights of its own. As published it is not: then only the first frame is known.
        prior_follows_motion: what a frame sees of the image prior, which is the first frame's, is taken to where the
            motion field has moved it; without weights of its own. As published it stays where it was.

    Raises:
        ValueError: a field has a value this architecture has no meaning for.
    """

    transformer_block = SequenceTransformerBlock

    @register_to_config
    @inherit_fields(
        UNet2DMultiConditionModel,
        down_block_types=("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
        mid_block_type="UNetMidBlock3DCrossAttn",
        up_block_types=("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
    )
    def __init__(
        self,
        self_attn_mode: str = "SAM",
        insert_strategy: str = "concat",
        motion_condition: bool = True,
        frame_positions: bool = False,
        prior_follows_motion: bool = False,
        **image_fields: Any,
    ) -> None:
        super().__init__(**image_fields)
        self.initialise_sequence_parts("identity")

    def _check_config(self) -> None:
        super()._check_config()
        if self.config.insert_strategy != "concat":
            raise ValueError(
                f"insert_strategy is {self.config.insert_strategy!r}, this architecture has 'concat'"
            )
        if (
            str(self.config.self_attn_mode).upper() != "SAM"
        ):  # it leaves no trace in the weights, so others are let in
            logger.warning(
                "self_attn_mode is %r; self-attention is SAM all the same", self.config.self_attn_mode
            )

    def _add_sequence_input(self) -> None:
        channels = self.config.block_out_channels[0]
        if self.config.motion_condition:
            self.insert_unit = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def _add_sequence_conditions(self) -> None:
        if self.config.motion_condition:
            self.motion_encoder = MotionEncoder(self.config.block_out_channels[0])

    @torch.no_grad()
    def initialise_sequence_parts(self, init: Initialisation) -> None:
        """Sets the parts that could disturb an inflated image model.

        Args:
            init: "identity": sequential attention adds zero, insert_unit passes the image features and ignores the
                motion, whose encoder keeps the movement's scale; "official": all as the official code leaves it,
                attention with deviation 0.02.
        """
        if init not in ("identity", "official"):
            raise ValueError(f"init is {init!r}, must be 'identity' or 'official'")
        modules = [m.attn_temp.to_out[0] for m in self.modules() if isinstance(m, SequenceTransformerBlock)]
        modules += [self.insert_unit] if self.config.motion_condition else []
        for module in modules:
            module.reset_parameters()
            if init == "identity":
                module.weight.zero_()
                module.bias.zero_()
        if self.config.motion_condition:
            self.motion_encoder.initialise(init)
        if init == "official":
            draw_as_published(self, [name for name, _ in self.named_parameters() if "attn_temp" in name])
        elif self.config.motion_condition:
            image_half = self.insert_unit.weight[:, : self.insert_unit.out_channels]
            image_half[:, :, 1, 1].fill_diagonal_(1.0)

    def _encode(self, text: Tensor, conditions: ClipConditionsBatch, frames: int) -> Conditioning:
        encoded = self._encode_static(text, conditions.prior, conditions.class_id, frames)
        if conditions.trajectories is not None:
            lines = Trajectories.from_numbers(conditions.trajectories, frames, self.dtype)
            encoded = replace(encoded, trajectories=lines)
        if self.config.frame_positions:
            numbers = conditions.frame_numbers
            if numbers is None:
                numbers = torch.arange(frames).expand(encoded.batch, -1)
            encoded = replace(encoded, frame_numbers=numbers.to(text.device))
        motion = conditions.motion
        if motion is None:
            return encoded
        if not self.config.motion_condition:
            raise ValueError("a motion field was given to a model without motion_condition")
        expected = (encoded.batch, frames - 1, 2)
        if motion.ndim != 5 or motion.shape[:3] != expected:
            shown = f"({', '.join(map(str, expected))}, 8H, 8W)"
            raise ValueError(f"motion fields have shape {tuple(motion.shape)}, expected {shown}")
        if self.config.prior_follows_motion and frames > 1:
            places = conditions.all_origins()
            assert places is not None  # there is a motion field
            encoded = replace(encoded, origins=places.to(motion.device).float().flatten(0, 1))
        return encoded if frames == 1 else replace(encoded, motion=self._encode_motion(motion.to(self.dtype)))

    def _encode_motion(self, fields: Tensor) -> Tensor:
        """(B, F-1, 2, 8H, 8W) -> (B*F, C, H, W): the motion half of insert_unit.

        insert_unit is a convolution, so conv([x, m]) = conv_x(x) + conv_m(m); the second term is the same at every
        noise level. Frame 0 has no field: its motion features are zero, and so is its term.
        """
        batch = len(fields)
        fields = fields.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (B*(F-1), 2, 8H, 8W)
        features = self.motion_encoder(fields)  # (B*(F-1), C, H, W)
        weight = self.insert_unit.weight[:, self.insert_unit.out_channels :]
        term = F.conv2d(features, weight, padding=1).unflatten(0, (batch, -1))  # (B, F-1, C, H, W)
        return torch.cat([torch.zeros_like(term[:, :1]), term], dim=1).flatten(0, 1)

    def _first_features(self, x: Tensor, conditions: Conditioning) -> Tensor:
        x = self.conv_in(x)
        if not self.config.motion_condition:
            return x
        unit = self.insert_unit
        x = F.conv2d(x, unit.weight[:, : unit.out_channels], unit.bias, padding=1)
        if conditions.motion is None:
            return x
        if conditions.motion.shape != x.shape:
            height, width = x.shape[2:]
            raise ValueError(f"motion fields must be {8 * height} x {8 * width} pixels for these latents")
        return x + conditions.motion

    @classmethod
    def from_pretrained_2d(  # type: ignore[override]  # the method's name for what makes one model of the other
        cls,
        pretrained_model_path: str | Path,
        subfolder: str | None = None,
        init: Initialisation = "identity",
        **overrides: Any,
    ) -> UNet3DMultiConditionModel:
        """Inflates a trained image UNet.

        Args:
            pretrained_model_path: a model folder.
            subfolder: the folder with config.json in it, e.g. "unet".
            init: how the new parts start, see `initialise_sequence_parts`.
            **overrides: config fields that win over config.json.

        Raises:
            ctrlgenaug.errors.UserError: missing or damaged files, or the weights of another stage.
        """
        return checkpoints.inflate_unet(cls, pretrained_model_path, subfolder, init, overrides)

    @classmethod
    def from_trained_3d(
        cls, pretrained_model_path: str | Path, subfolder: str | None = None, **overrides: Any
    ) -> UNet3DMultiConditionModel:
        """Loads a trained sequence UNet.

        Args:
            pretrained_model_path: a model folder.
            subfolder: the folder with config.json in it; None: the path itself, or the first of unet3d/, unet/,
                checkpoint/unet3d/ and the newest checkpoint-N/unet3d/ in it.
            **overrides: config fields that win over config.json.

        Raises:
            ctrlgenaug.errors.UserError: missing or damaged files, or the weights of another stage.
        """
        return checkpoints.load_unet_3d(cls, pretrained_model_path, subfolder, overrides)


def mark_finetuned(unet: UNet3DMultiConditionModel, modules: Sequence[str] = FINETUNED) -> list[str]:
    """Freezes all but what the sequence stage trains (method, section 6).

    Args:
        unet: the model.
        modules: what the names of trained parameters contain.

    Returns:
        The trained parameters' names.

    Raises:
        UserError: one of ``modules`` is in no parameter's name.
    """
    parameters = dict(unet.named_parameters())
    for part in modules:
        if not any(part in name for name in parameters):
            remedy = f"Use parts of parameter names, e.g. {', '.join(FINETUNED)}"
            raise UserError(f"trainable_modules names {part!r}, which no parameter is called", remedy)
    for name, parameter in parameters.items():
        parameter.requires_grad_(any(part in name for part in modules))
    return [name for name, parameter in parameters.items() if parameter.requires_grad]
