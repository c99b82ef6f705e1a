"""The fields of the three training configs (docs/configuration.md). An unknown field is an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from ctrlgenaug import datasets
from ctrlgenaug.noise_schedule import NoiseSchedule

TIMESTEP_SAMPLINGS = ("uniform", "high", "logit_normal", "mixture")
SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
PRECISIONS = ("no", "fp16", "bf16")

# field -> lowest and highest value, and how an error says it; null is allowed where the field allows it
_ABOVE_0 = (math.ulp(0.0), math.inf, "above 0")
_NOT_NEGATIVE = (0, math.inf, "0 or more")
RANGES = {
    **dict.fromkeys(("num_train_epochs", "max_train_steps", "train_batch_size"), _ABOVE_0),
    **dict.fromkeys(("checkpointing_steps", "validation_steps", "checkpoints_to_keep", "log_steps"), _ABOVE_0),
    **dict.fromkeys(("learning_rate", "adam_epsilon", "max_grad_norm"), _ABOVE_0),
    **dict.fromkeys(("gradient_accumulation_steps", "schedule_batch_size", "num_threads"), _ABOVE_0),
    **dict.fromkeys(("lr_warmup_steps", "dataloader_num_workers", "adam_weight_decay"), _NOT_NEGATIVE),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, 1 - 2**-53, "in [0, 1)")),
    "ema_decay": (0, 1, "in [0, 1]"),
    "seed": (0, 2**32 - 1, "in [0, 4294967295]"),
}  # fmt: skip


CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PUBLISHED_NAMES = {"TUSC": "Thyroid"}  # what the published config files call a data set, if not by its name


def default_config(data_name: str, stage: str) -> str:
    """`` configs/...`` for a stage's command line: its config of a data set, or nothing where there is none.

    Args:
        data_name: the data set.
        stage: ``vae``, ``LDM`` or ``sequence-LDM``.
    """
    file = f"{PUBLISHED_NAMES.get(data_name, data_name)}-{stage}.yaml"
    found = next(CONFIGS.rglob(file), None)
    return f" {found.relative_to(CONFIGS.parent)}" if found else ""


@dataclass
class TrainingConfig:
    """What every stage shares. Defaults are the published values (docs/method.md, section 6)."""

    # data
    data_name: str = MISSING  # a registered data set, or a data file (.yaml)
    data: str | None = None  # its data file, where it is not registered
    data_root: str = "."
    train_data_dir: str | None = None  # None: the folder that the data set's convention names
    test_data_dir: str | None = None  # None: that of the training data
    train_split: str = "train"
    test_split: str = "test"
    image_column: str = "file_name"
    class_column: str = "cls"
    balance_classes: bool = False  # True: every class equally often, the samples of rare ones again and again
    dataloader_num_workers: int = 4

    # what comes in and goes out
    pretrained_model_path: str = MISSING
    output_dir: str = MISSING
    export_dir: str | None = None  # None: export by hand with export_model.py

    # length, in epochs over the training split or in optimizer steps
    num_train_epochs: int = 200
    max_train_steps: int | None = None
    train_batch_size: int = 16  # samples a process and micro-batch
    gradient_accumulation_steps: int = 1
    seed: int = 3407

    # optimizer and schedule
    learning_rate: float = 1e-4
    scale_lr: bool = False
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 500
    schedule_batch_size: int | None = (
        None  # samples in a step of the schedule; None: train_batch_size, as published
    )
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-2
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    use_8bit_adam: bool = False
    fused_adamw: bool = False

    # speed and memory
    mixed_precision: str = "no"
    gradient_checkpointing: bool = True
    enable_xformers_memory_efficient_attention: bool = False
    allow_tf32: bool = False
    channels_last: bool = False
    torch_compile: bool = False
    num_threads: int | None = None  # CPU threads a process; None: torch's own choice

    # average of the weights over the steps
    ema: bool = False
    ema_decay: float = 0.9999

    # checkpoints, validation, records
    checkpointing_steps: int = 1000
    checkpoints_to_keep: int = 3
    resume_from_checkpoint: str | None = "latest"
    validation_steps: int = 1000
    log_steps: int = 10
    tracker: str | None = "tensorboard"

    def __post_init__(self) -> None:
        if self.mixed_precision == "False":  # YAML reads a bare `no` as false
            self.mixed_precision = "no"
        spec = datasets.get(self.data or self.data_name)
        self.data_name = spec.data_name
        self.data = None if spec.is_registered else str(spec.file)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
        for name, (low, high, what) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} must be {what}, got {value}")
        for name, allowed in (("lr_scheduler", SCHEDULES), ("mixed_precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.use_8bit_adam and self.fused_adamw:
            raise ValueError("use_8bit_adam and fused_adamw exclude each other")
        if self.tracker not in (None, "tensorboard"):
            raise ValueError(f"tracker must be tensorboard or null, got {self.tracker!r}")

    def data_dir(self, split: str) -> str | None:
        """The folder of a split's samples and metadata, where it is not the convention's."""
        if split == self.test_split and split != self.train_split:
            return self.test_data_dir or self.train_data_dir
        return self.train_data_dir


@dataclass
class ConditionDropping:
    """With what probability conditions are dropped, per sample and epoch (docs/method.md, section 6)."""

    keep_all: float = 0.1
    drop_all: float = 0.1
    drop_each: float = 0.5  # in all other cases, each condition by itself
    drop_image_prior: float | None = None  # None: drop_each
    drop_motion_field: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"condition_dropping.{name} must lie in [0, 1], got {value}")
        if self.keep_all + self.drop_all > 1:
            raise ValueError("condition_dropping.keep_all + drop_all must not exceed 1")

    def drop_probability(self, condition: str) -> float:
        """With what probability ``image_prior`` or ``motion_field`` is dropped by itself."""
        own = getattr(self, f"drop_{condition}", None)
        return self.drop_each if own is None else own


@dataclass
class TimestepMixture:
    """How often ``timestep_sampling=mixture`` samples in each way; the shares need not add up to 1."""

    uniform: float = 0.5
    high: float = 0.5
    logit_normal: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.uniform, self.high, self.logit_normal)
        if not all(0 <= share < math.inf for share in shares) or sum(shares) == 0:
            raise ValueError(
                f"timestep_mixture must be shares of at least 0, one of them above 0, got {shares}"
            )


@dataclass
class ValidationData:
    """What validation samples: one picture for each pair of a class and the conditions of an image or clip."""

    names: list[str] = field(
        default_factory=list
    )  # frames or clips, paths too; empty: the first of each class
    class_labels: list[str] = field(default_factory=list)  # one a name; empty: every name's own class
    num_inference_steps: int = 200
    guidance_scale: float = 7.5
    seed: int = 3407

    def __post_init__(self) -> None:
        if self.names and self.class_labels and len(self.names) != len(self.class_labels):
            raise ValueError(
                f"validation_data has {len(self.class_labels)} labels for {len(self.names)} images or videos; "
                "it needs one a picture"
            )
        if not 1 <= self.num_inference_steps <= 1000:
            raise ValueError(
                f"validation_data.num_inference_steps must lie in [1, 1000], got {self.num_inference_steps}"
            )
        if not 0 <= self.guidance_scale < math.inf:
            raise ValueError(
                f"validation_data.guidance_scale must be finite and 0 or more, got {self.guidance_scale}"
            )


@dataclass
class DiffusionConfig(TrainingConfig):
    """What the two diffusion stages share."""

    vae_path: str | None = None  # None: looked for in pretrained_model_path
    image_prior_dir: str | None = None
    caption_column: str | None = None
    image_condition: bool = True  # False: the image prior of every sample is dropped
    cache_latents: bool = False
    latent_cache_dir: str | None = None  # None: latent_cache in output_dir
    condition_dropping: ConditionDropping = field(default_factory=ConditionDropping)

    # what is predicted, and at which noise levels; None: as the scheduler config in pretrained_model_path says
    prediction_type: str | None = None  # epsilon (Stable Diffusion's) or v_prediction
    rescale_betas_zero_snr: bool | None = None  # the last timestep is noise alone; v_prediction only
    timestep_sampling: str = "uniform"  # or high, logit_normal, mixture
    timestep_mixture: TimestepMixture = field(default_factory=TimestepMixture)
    snr_gamma: float | None = None  # Min-SNR weighting (Hang et al. 2023), 5.0 there; None: all levels alike

    validation_samples: int = 32  # test samples that test_loss.txt averages over; 0: none
    steering_samples: int = 8  # samples that steering.csv measures the conditions' effect on; 0: none
    validation_data: ValidationData = field(default_factory=ValidationData)
    enable_sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction_type is not None:
            NoiseSchedule(self.prediction_type, bool(self.rescale_betas_zero_snr))
        if self.timestep_sampling not in TIMESTEP_SAMPLINGS:
            raise ValueError(
                f"timestep_sampling must be one of {', '.join(TIMESTEP_SAMPLINGS)}, got {self.timestep_sampling!r}"
            )
        for name in ("validation_samples", "steering_samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (none) or more, got {getattr(self, name)}")
        if self.snr_gamma is not None and self.snr_gamma <= 0:
            raise ValueError(f"snr_gamma must be above 0 or null, got {self.snr_gamma}")
