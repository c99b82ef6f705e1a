"""The classifiers by name: mmaction2 recipes for one input channel and short clips.

Widths and depths are the published ones. What differs from mmaction2's own recipes is what 8 grey frames need; each
such place has a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CONVOLUTIONAL, TRANSFORMER = 3e-4, 1e-4  # AdamW learning rates from scratch


@dataclass(frozen=True)
class Recipe:
    """How one classifier is made.

    Attributes:
        model: mmaction2's model dictionary, without the number of classes.
        lr: default learning rate.
        multiple_of: what the frames' side must be a multiple of.
    """

    model: dict[str, Any]
    lr: float = CONVOLUTIONAL
    multiple_of: int = 1


def _recogniser(backbone: dict[str, Any], head: dict[str, Any], neck: dict[str, Any] | None = None) -> dict:
    model = {"type": "Recognizer3D", "backbone": backbone, "cls_head": head}
    return model if neck is None else {**model, "neck": neck}


def _pooled(in_channels: int, head: str = "I3DHead", **rest: Any) -> dict[str, Any]:
    return {"type": head, "in_channels": in_channels, "spatial_type": "avg", "dropout_ratio": 0.5, **rest}


def _tiny() -> Recipe:
    # An inflated ResNet-18 with an eighth of its channels: seconds on a CPU, for the demo and for tests.
    backbone = {
        "type": "ResNet3d",
        "depth": 18,
        "pretrained": None,
        "in_channels": 1,
        "base_channels": 8,
        "conv1_kernel": (3, 7, 7),
        "conv1_stride_t": 1,
        "pool1_stride_t": 1,
        "with_pool2": False,
        "inflate": ((1, 1), (1, 1), (1, 1), (1, 1)),
        "norm_eval": False,
    }
    return Recipe(_recogniser(backbone, _pooled(64, dropout_ratio=0.2)), lr=3e-3)


def _i3d() -> Recipe:
    backbone = {
        "type": "ResNet3d",
        "depth": 50,
        "pretrained": None,
        "in_channels": 1,
        "conv1_kernel": (5, 7, 7),
        "conv1_stride_t": 2,
        "pool1_stride_t": 2,
        "inflate": ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0)),
        "norm_eval": False,
    }
    return Recipe(_recogniser(backbone, _pooled(2048)))


def _slowfast() -> Recipe:
    def pathway(**rest: Any) -> dict[str, Any]:
        common = {"depth": 50, "pretrained": None, "in_channels": 1, "conv1_stride_t": 1, "pool1_stride_t": 1}
        return {"type": "resnet3d", **common, "norm_eval": False, **rest}

    backbone = {
        "type": "ResNet3dSlowFast",
        "pretrained": None,
        # published for 32 frames as 8 and 8, which would leave the slow pathway a single frame of 8; no shape changes
        "resample_rate": 4,
        "speed_ratio": 4,
        "channel_ratio": 8,
        "slow_pathway": pathway(
            lateral=True, conv1_kernel=(1, 7, 7), dilations=(1, 1, 1, 1), inflate=(0, 0, 1, 1)
        ),
        "fast_pathway": pathway(lateral=False, base_channels=8, conv1_kernel=(5, 7, 7)),
    }
    return Recipe(_recogniser(backbone, _pooled(2304, "SlowFastHead")))


def _r2plus1d() -> Recipe:
    backbone = {
        "type": "ResNet2Plus1d",
        "depth": 34,
        "pretrained": None,
        "pretrained2d": False,
        "in_channels": 1,
        "norm_eval": False,
        "conv_cfg": {"type": "Conv2plus1d"},
        "norm_cfg": {"type": "BN3d", "requires_grad": True, "eps": 1e-3},
        "conv1_kernel": (3, 7, 7),
        "conv1_stride_t": 1,
        "pool1_stride_t": 1,
        "inflate": (1, 1, 1, 1),
        "spatial_strides": (1, 2, 2, 2),
        "temporal_strides": (1, 2, 2, 2),
    }
    return Recipe(_recogniser(backbone, _pooled(512)))


def _slow_pathway(**rest: Any) -> dict[str, Any]:
    return {
        "type": "ResNet3dSlowOnly",
        "depth": 50,
        "pretrained": None,
        "in_channels": 1,
        "lateral": False,
        "conv1_kernel": (1, 7, 7),
        "conv1_stride_t": 1,
        "pool1_stride_t": 1,
        "inflate": (0, 0, 1, 1),
        "norm_eval": False,
        **rest,
    }


def _tpn() -> Recipe:
    fusion = {
        "in_channels": (1024, 1024),
        "mid_channels": (1024, 1024),
        "out_channels": 2048,
        "downsample_scales": ((1, 1, 1), (1, 1, 1)),
    }
    neck = {
        "type": "TPN",
        "in_channels": (1024, 2048),
        "out_channels": 1024,
        "spatial_modulation_cfg": {"in_channels": (1024, 2048), "out_channels": 2048},
        "temporal_modulation_cfg": {"downsample_scales": (8, 8)},
        "upsample_cfg": {"scale_factor": (1, 1, 1)},
        "downsample_cfg": {"downsample_scale": (1, 1, 1)},
        "level_fusion_cfg": fusion,
        "aux_head_cfg": {"loss_weight": 0.5},
    }
    return Recipe(_recogniser(_slow_pathway(out_indices=(2, 3)), _pooled(2048, "TPNHead"), neck))


def _csn() -> Recipe:
    backbone = {
        "type": "ResNet3dCSN",
        "pretrained2d": False,
        "pretrained": None,
        "in_channels": 1,
        "depth": 152,
        "with_pool2": False,
        "bottleneck_mode": "ir",
        "norm_eval": False,
    }
    return Recipe(_recogniser(backbone, _pooled(2048)))


def _swin() -> Recipe:
    backbone = {
        "type": "SwinTransformer3D",
        "arch": "tiny",
        "pretrained": None,
        "pretrained2d": False,
        "in_channels": 1,
        "patch_size": (2, 4, 4),
        "window_size": (8, 7, 7),
        "drop_path_rate": 0.1,
        "patch_norm": True,
    }
    return Recipe(_recogniser(backbone, _pooled(768)), lr=TRANSFORMER)


def _timesformer(input_size: int, num_frames: int) -> Recipe:
    backbone = {
        "type": "TimeSformer",
        "pretrained": None,
        "num_frames": num_frames,
        "img_size": input_size,
        "patch_size": 16,
        "in_channels": 1,
        "attention_type": "divided_space_time",
    }
    head = {"type": "TimeSformerHead", "in_channels": 768}
    return Recipe(_recogniser(backbone, head), lr=TRANSFORMER, multiple_of=16)


def _uniformerv2(input_size: int, num_frames: int) -> Recipe:
    backbone = {
        "type": "UniFormerV2",
        "input_resolution": input_size,
        "patch_size": 16,
        "t_size": num_frames,
        "double_lmhra": True,
        "clip_pretrained": False,  # CLIP's weights would be downloaded; give them as `pretrained`
        "pretrained": None,
    }
    head = {"type": "UniFormerHead", "in_channels": 768, "dropout_ratio": 0.5}
    return Recipe(_recogniser(backbone, head), lr=TRANSFORMER, multiple_of=16)


def _slowonly() -> Recipe:
    return Recipe(_recogniser(_slow_pathway(), _pooled(2048)))


def _x3d() -> Recipe:
    backbone = {"type": "X3D", "in_channels": 1, "gamma_w": 1, "gamma_b": 2.25, "gamma_d": 2.2}
    return Recipe(_recogniser(backbone, _pooled(432, "X3DHead", fc1_bias=False)))


def _mvit(input_size: int, num_frames: int) -> Recipe:
    backbone = {
        "type": "MViT",
        "arch": "small",
        "drop_path_rate": 0.2,
        "in_channels": 1,
        "spatial_size": input_size,
        "temporal_size": num_frames,
    }
    return Recipe(
        _recogniser(backbone, {"type": "MViTHead", "in_channels": 768}), lr=TRANSFORMER, multiple_of=32
    )


def _for_any_size(make: Callable[[], Recipe]) -> Callable[[int, int], Recipe]:
    return lambda input_size, num_frames: make()


# by frame side and number of frames, on which the weights of three of them depend
_RECIPES: dict[str, Callable[[int, int], Recipe]] = {
    "i3d": _for_any_size(_i3d),
    "slowfast": _for_any_size(_slowfast),
    "r2plus1d": _for_any_size(_r2plus1d),
    "tpn": _for_any_size(_tpn),
    "csn": _for_any_size(_csn),
    "swin": _for_any_size(_swin),
    "timesformer": _timesformer,
    "uniformerv2": _uniformerv2,
    "slowonly": _for_any_size(_slowonly),
    "x3d": _for_any_size(_x3d),
    "mvit": _mvit,
    "tiny": _for_any_size(_tiny),
}

NAMES = tuple(name for name in _RECIPES if name != "tiny")  # the eleven of full size


def recipe(name: str, input_size: int, num_frames: int) -> Recipe | None:
    """The recipe called ``name`` for clips of ``num_frames`` frames of ``input_size`` pixels; None if unknown."""
    make = _RECIPES.get(name)
    return None if make is None else make(input_size, num_frames)


def known() -> tuple[str, ...]:
    """All names, the small one last."""
    return tuple(_RECIPES)
