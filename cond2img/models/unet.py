"""The multimodal UNet. Images are its case F = 1; `cond2video.models` adds what only sequences need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from cond2img.models import checkpoints
from cond2img.models.attention import MultiModalAttention, SpatialTransformer, TransformerBlock
from cond2img.models.blocks import DownLevel, FramesGroupNorm, MidLevel, TransformerFactory, UpLevel
from cond2img.models.conditioning import Conditioning, number_points
from ctrlgenaug.conditions.clip import ClipConditionsBatch
from ctrlgenaug.datasets import DatasetSpec
from ctrlgenaug.errors import UserError

IMAGE_PRIOR_CHANNELS = 256

# Fields of Stable Diffusion's config that have one meaning here. Kept, because its and the official checkpoints'
# config.json hold them; refused with any other value, because the weights would then mean something else.
FIXED_FIELDS = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "only_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "upcast_attention": False,
    "resnet_time_scale_shift": "default",
}


@dataclass
class UNetOutput(BaseOutput):
    """The predicted noise, ``sample``, in the shape of the input; ``deep`` features for later steps."""

    sample: Tensor
    deep: Tensor | None = None


class ImageProjection(nn.Module):
    """Turns the image prior into tokens: batch norm, 3x3 conv of stride 2, SiLU, linear, layer norm."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.proj = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, prior: Tensor) -> Tensor:
        """(B, 256, 64, 64) -> (B, 1024, D)."""
        x = prior.contiguous(
            memory_format=torch.channels_last
        )  # as the weights: else half of a small model's time
        x = F.silu(self.down(self.bn(x)))  # (B, 256, 32, 32)
        return self.norm(self.proj(x.flatten(2).transpose(1, 2)))


class UNet2DMultiConditionModel(ModelMixin, ConfigMixin):
    """Predicts the noise in image latents from class, text and image prior (method, section 5).

    The arguments are Stable Diffusion's, by the names of its config.json, and:

    Args:
        attention_head_dim: the number of heads, as in Stable Diffusion v1 (the name is historical).
        num_class_embeds: number of classes; None: a model without class embedding.
        condition_insert_block: whether [down, mid, up] levels attend to the image prior.
        prediction_type: what the weights were trained to predict, epsilon or v_prediction; None: unknown, then epsilon.

    Raises:
        ValueError: a field has a value this architecture has no meaning for.
    """

    _supports_gradient_checkpointing = True
    transformer_block = TransformerBlock

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 4,
        out_channels: int = 4,
        center_input_sample: bool = False,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        down_block_types: Sequence[str] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        mid_block_type: str = "UNetMidBlock2DCrossAttn",
        up_block_types: Sequence[str] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        only_cross_attention: bool = False,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        downsample_padding: int = 1,
        mid_block_scale_factor: float = 1,
        act_fn: str = "silu",
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        attention_head_dim: int = 8,
        dual_cross_attention: bool = False,
        use_linear_projection: bool = False,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        upcast_attention: bool = False,
        resnet_time_scale_shift: str = "default",
        condition_insert_block: Sequence[bool] = (True, True, True),
        prediction_type: str | None = None,
    ) -> None:
        super().__init__()
        self._check_config()
        channels, time_dim = list(block_out_channels), block_out_channels[0] * 4
        norm = {"time_dim": time_dim, "groups": norm_num_groups, "eps": norm_eps}

        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self._add_sequence_input()
        self.time_proj = Timesteps(channels[0], flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(channels[0], time_dim)
        self.class_embedding = nn.Embedding(num_class_embeds, time_dim) if num_class_embeds else None
        self._add_sequence_conditions()
        self.image_proj = ImageProjection(IMAGE_PRIOR_CHANNELS, cross_attention_dim)

        down, mid, up = (self._transformer(bool(with_image)) for with_image in condition_insert_block)
        self.down_blocks = nn.ModuleList()
        for number, (kind, width) in enumerate(zip(down_block_types, channels, strict=True)):
            attend, downsample = down if "CrossAttn" in kind else None, number < len(channels) - 1
            above = channels[max(number - 1, 0)]
            self.down_blocks.append(DownLevel(above, width, layers_per_block, attend, downsample, **norm))
        self.up_blocks = nn.ModuleList()
        wide = channels[::-1]
        for number, (kind, width) in enumerate(zip(up_block_types, wide, strict=True)):
            attend, upsample = up if "CrossAttn" in kind else None, number < len(wide) - 1
            below, above = wide[max(number - 1, 0)], wide[min(number + 1, len(wide) - 1)]
            layers = layers_per_block + 1
            self.up_blocks.append(UpLevel(below, width, above, layers, attend, upsample, **norm))
        self.mid_block = MidLevel(channels[-1], mid, **norm)

        self.conv_norm_out = FramesGroupNorm(norm_num_groups, channels[0], eps=norm_eps)
        self.conv_out = nn.Conv2d(channels[0], out_channels, 3, padding=1)

        self.attentions = [module for module in self.modules() if isinstance(module, MultiModalAttention)]
        for slot, attention in enumerate(self.attentions):
            attention.slot = slot
        self.to(memory_format=torch.channels_last)  # faster convolutions, see docs/performance.md

    def _check_config(self) -> None:
        config = self.config
        for name, value in FIXED_FIELDS.items():
            if config[name] != value:
                raise ValueError(f"{name} is {config[name]!r}, this architecture has {value!r}")
        levels = len(config.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            if len(config[name]) != levels:
                raise ValueError(f"{name} names {len(config[name])} levels, block_out_channels {levels}")
        if not isinstance(config.attention_head_dim, int):
            raise ValueError("attention_head_dim must be one number, the number of heads")
        for channels in config.block_out_channels:
            if channels % config.norm_num_groups or channels % config.attention_head_dim:
                raise ValueError(
                    f"{channels} channels cannot be shared out to {config.norm_num_groups} groups "
                    f"and {config.attention_head_dim} heads"
                )
        if len(config.condition_insert_block) != 3:
            raise ValueError("condition_insert_block must be three values: [down, mid, up]")

    def _transformer(self, with_image: bool) -> TransformerFactory:
        config = self.config

        def make(channels: int) -> SpatialTransformer:
            heads, context = config.attention_head_dim, config.cross_attention_dim
            block = self.transformer_block(channels, heads, context, with_image)
            return SpatialTransformer(block, channels, config.norm_num_groups)

        return make

    def _add_sequence_input(self) -> None:
        """For sequences: what follows conv_in. (The order of the parts is the official checkpoints'.)"""

    def _add_sequence_conditions(self) -> None:
        """For sequences: what encodes the motion field."""

    @apply_forward_hook
    def condition(
        self, text: Tensor, conditions: ClipConditionsBatch, frames: int = 1, precompute: bool = True
    ) -> Conditioning:
        """Encodes everything that does not depend on the noise level, for `forward`'s ``conditions``.

        Args:
            text: (B, T, D) text tokens, those of ``conditions.text``.
            conditions: of B samples. Without a prior the image branch is left out.
            frames: F.
            precompute: also compute the keys and values of text and prior for all attentions. For sampling; in
                training they are needed once only and would cost memory.

        Raises:
            ValueError: a condition is missing, has the wrong shape, or is none of this model's.
        """
        encoded = self._encode(text, conditions, frames)
        return self._precompute(encoded) if precompute else encoded

    @apply_forward_hook
    def encode_conditions(
        self,
        encoder_hidden_states: Tensor,
        image_cond: Tensor | None = None,
        motion_cond: Tensor | None = None,
        class_labels: Tensor | None = None,
        traj: Tensor | None = None,
        traj_mask: Tensor | None = None,
        frames: int = 1,
        precompute: bool = True,
    ) -> Conditioning:
        """`condition`, with the conditions as the official code gives them.

        Args:
            encoder_hidden_states: (B, T, D) text tokens.
            image_cond: (B, 256, 64, 64) image prior; None leaves the image branch out.
            class_labels: (B,) or (B, 1) class ids.
            motion_cond: (B, 2, F - 1, 8H, 8W) motion fields in pixels, x then y; None: no motion condition. Sequence
                models only, as are the following.
            traj: (B, F * side * side, L, 3) integers (frame, row, column) on a square grid, 32 x 32 for 256 pixels,
                rows ordered by frame, row, column, column 0 the point itself. None: no motion field attention.
                It acts on the feature maps of the grid's size.
            traj_mask: (B, F * side * side, L) bool, True where an entry counts.
            frames: F.
            precompute: as in `condition`.

        Raises:
            ValueError: as `condition`.
        """
        if motion_cond is not None and motion_cond.ndim != 5:
            shape = tuple(motion_cond.shape)
            raise ValueError(f"motion_cond has shape {shape}, expected (B, 2, F - 1, 8H, 8W)")
        conditions = ClipConditionsBatch(
            class_labels,
            ("",) * len(encoder_hidden_states),
            image_cond,
            None if motion_cond is None else motion_cond.transpose(1, 2),
            None if traj is None else number_points(traj, traj_mask, frames),
        )
        return self.condition(encoder_hidden_states, conditions, frames, precompute)

    def _encode(self, text: Tensor, conditions: ClipConditionsBatch, frames: int) -> Conditioning:
        if conditions.motion is not None or conditions.trajectories is not None:
            raise ValueError("an image model takes no motion field and no trajectories")
        return self._encode_static(text, conditions.prior, conditions.class_id, frames)

    def _encode_static(
        self, text: Tensor, image_cond: Tensor | None, class_labels: Tensor | None, frames: int
    ) -> Conditioning:
        """The conditions that images and sequences share."""
        batch, width = text.shape[0], self.config.cross_attention_dim
        if text.ndim != 3 or text.shape[-1] != width:
            raise ValueError(f"encoder_hidden_states has shape {tuple(text.shape)}, expected (B, T, {width})")
        if image_cond is not None and (
            image_cond.ndim != 4 or image_cond.shape[:2] != (batch, IMAGE_PRIOR_CHANNELS)
        ):
            expected = f"({batch}, {IMAGE_PRIOR_CHANNELS}, H, W)"
            raise ValueError(f"image_cond has shape {tuple(image_cond.shape)}, expected {expected}")
        classes = None
        if self.class_embedding is not None:
            if class_labels is None or class_labels.numel() != batch:
                raise ValueError(f"class_labels must hold {batch} class ids, got {class_labels}")
            classes = self.class_embedding(class_labels.reshape(batch))
        elif class_labels is not None:
            raise ValueError("class_labels were given to a model without classes (num_class_embeds is None)")
        image = None if image_cond is None else self.image_proj(image_cond.to(self.dtype))
        return Conditioning(frames, text.to(self.dtype), image, classes)

    def _precompute(self, conditions: Conditioning) -> Conditioning:
        pairs = tuple(attention.keys_values(conditions) for attention in self.attentions)
        return replace(conditions, cache=pairs)

    def _first_features(self, x: Tensor, conditions: Conditioning) -> Tensor:
        """(B*F, 4, H, W) -> (B*F, C, H, W)."""
        return self.conv_in(x)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor | None = None,
        image_cond: Tensor | None = None,
        motion_cond: Tensor | None = None,
        class_labels: Tensor | None = None,
        traj: Tensor | None = None,
        traj_mask: Tensor | None = None,
        conditions: Conditioning | None = None,
        return_dict: bool = True,
        deep: Tensor | None = None,
    ) -> UNetOutput | tuple[Tensor]:
        """Predicts the noise in ``sample``.

        Args:
            sample: noisy latents: (B*F, 4, H, W) frame by frame, F being what ``conditions`` say, or, as the official
                code has sequences, (B, 4, F, H, W). H and W are divisible by 8.
            timestep: one for all samples, or (B,).
            encoder_hidden_states, image_cond, motion_cond, class_labels, traj, traj_mask: see `encode_conditions`.
            conditions: the result of `condition`, in place of all of them.
            return_dict: False returns a tuple of one tensor.
            deep: an earlier step's deep features, in place of this one's (`DeepFeatures`).

        Returns:
            ``sample`` of the output: the predicted noise, in the shape of ``sample``; ``deep``: the deep features.
        """
        official = sample.ndim == 5
        if conditions is None:
            if encoder_hidden_states is None:
                raise ValueError("encoder_hidden_states is missing (or give conditions)")
            conditions = self.encode_conditions(
                encoder_hidden_states,
                image_cond,
                motion_cond,
                class_labels,
                traj,
                traj_mask,
                frames=sample.shape[2] if official else 1,
                precompute=False,
            )
        self._check_sample(sample, conditions)
        conditions = replace(conditions, time=self._embed_time(timestep, conditions))

        x = sample.transpose(1, 2).flatten(0, 1) if official else sample  # (B*F, 4, H, W)
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        x, deep = self._denoise(x, conditions, deep)
        if official:
            x = x.unflatten(0, (-1, conditions.frames)).transpose(1, 2)  # (B, 4, F, H, W)
        x = x.contiguous()
        return UNetOutput(sample=x, deep=deep) if return_dict else (x,)

    def _check_sample(self, sample: Tensor, conditions: Conditioning) -> None:
        divisor = 2 ** (len(self.down_blocks) - 1)
        if sample.shape[-1] % divisor or sample.shape[-2] % divisor:
            raise ValueError(f"height and width must be divisible by {divisor}, got {tuple(sample.shape)}")
        batch, frames = conditions.batch, conditions.frames
        fits = (
            (sample.shape[0], sample.shape[2]) == (batch, frames)
            if sample.ndim == 5
            else len(sample) == batch * frames
        )
        if not fits:
            raise ValueError(
                f"sample has shape {tuple(sample.shape)}, but the conditions are those of "
                f"{batch} samples with {frames} frames"
            )

    def _embed_time(self, timestep: Tensor | float | int, conditions: Conditioning) -> Tensor:
        """Activated sum of time and class embedding, (B, E): what every residual block projects."""
        timestep = torch.as_tensor(timestep, device=conditions.text.device).reshape(-1)
        timestep = timestep.expand(conditions.batch)
        embedding = self.time_embedding(self.time_proj(timestep).to(self.dtype))
        return F.silu(embedding if conditions.classes is None else embedding + conditions.classes)

    def _denoise(self, x: Tensor, conditions: Conditioning, deep: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B*F, 4, H, W) -> (B*F, 4, H, W), and the features below the last layer, if they were not given."""
        # fmt: off
        x = self._first_features(x, conditions)                   # (B*F, C, H, W)
        if deep is None:
            deep = self._deep_features(x, conditions)             # (B*F, C, H, W)
        x = self.up_blocks[-1].last_pair(deep, x, conditions)     # (B*F, C, H, W)
        x = F.silu(self.conv_norm_out(x, conditions.frames))      # (B*F, C, H, W), statistics over F
        return self.conv_out(x), deep                             # (B*F, 4, H, W)
        # fmt: on

    def _deep_features(self, x: Tensor, conditions: Conditioning) -> Tensor:
        """All the way down and up again, but for the outermost layer of the way up."""
        skips: list[Tensor] = []  # without x itself, which the outermost layer takes
        # fmt: off
        for level in self.down_blocks:
            x, carried = level(x, conditions)                     # (B*F, 4C, H/8, W/8) at the end
            skips += carried
        x = self.mid_block(x, conditions)                         # (B*F, 4C, H/8, W/8)
        for level in self.up_blocks:
            x = level(x, skips, conditions)                       # (B*F, C, H, W) at the end
        return x
        # fmt: on

    def require_classes(self, spec: DatasetSpec, folder: str | Path) -> None:
        """Raises a `UserError` that names ``folder`` if the model knows another number of classes than ``spec`` has."""
        known = self.config.num_class_embeds
        if known != len(spec.classes):
            raise UserError(
                f"is a model of {known} classes, {spec.data_name} has {len(spec.classes)}",
                "Check data_name and the model's folder",
                folder,
            )

    @classmethod
    def from_pretrained_2d(
        cls,
        pretrained_model_path: str | Path,
        subfolder: str | None = None,
        load_trained: bool = False,
        num_class_embeds: int | None = None,
        fresh_init: str = "torch",
        **overrides: Any,
    ) -> UNet2DMultiConditionModel:
        """Loads a Stable Diffusion v1-4 UNet, or a trained UNet of this class; the weights tell which.

        Args:
            pretrained_model_path: a model folder.
            subfolder: the folder with config.json in it, e.g. "unet".
            load_trained: insist on a trained UNet: refuse Stable Diffusion's, start nothing fresh.
            num_class_embeds: number of classes; None: what the weights or the config say.
            fresh_init: how linear layers that Stable Diffusion lacks start: "torch", as PyTorch draws them, or
                "official", with deviation 0.02 and without bias; or "identity", with what they add zero.
            **overrides: config fields that win over config.json.

        Raises:
            ctrlgenaug.errors.UserError: missing or damaged files, the weights of another stage, another number of
                classes, other shapes.
        """
        return checkpoints.load_unet_2d(
            cls, pretrained_model_path, subfolder, load_trained, num_class_embeds, fresh_init, overrides
        )
