"""The fields of the sequence stage's config (docs/configuration.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrlgenaug.training.config import DiffusionConfig

# Parameters whose names contain one of these are trained (docs/method.md, section 6).
FINETUNED = (
    "attn1",
    "motion_encoder",
    "insert_unit",
    "multi_modal_attn.attn2.to_q",
    "multi_modal_attn.attn_condImage.to_q",
    "norm_temp",
    "attn_temp",
)


@dataclass
class SequenceConfig(DiffusionConfig):
    """The sequence diffusion model's training. Defaults are the published values."""

    train_batch_size: int = 8
    num_frames: int = 8  # F
    motion_condition: bool = True  # False: the motion field of every sample is dropped
    trainable_modules: list[str] = field(default_factory=lambda: list(FINETUNED))
    motion_field_dir: str | None = None
    trajectory_dir: str | None = None
    sequence_parts: str | None = (
        None  # a sequence UNet whose trained parts this one starts from; None: fresh_init
    )
    frame_positions: bool | None = (
        None  # sequential attention knows the frames' places; None: as sequence_parts
    )
    prior_follows_motion: bool | None = (
        None  # the image prior is taken along the motion field; None: as sequence_parts
    )
    fresh_init: str = "identity"  # or official: how the parts that the image model lacks start
    freeze_batch_norm: bool = True  # False: the frozen BatchNorm's statistics go on moving, as published

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fresh_init not in ("identity", "official"):
            raise ValueError(f"fresh_init must be identity or official, got {self.fresh_init!r}")
        if self.num_frames < 2:
            raise ValueError(f"num_frames must be at least 2, got {self.num_frames}")
