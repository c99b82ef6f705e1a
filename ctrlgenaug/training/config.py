"""The fields of the three training configs (docs/configuration.md). An unknown field is an error."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from ctrlgenaug import datasets

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
PRECISIONS = ("no", "fp16", "bf16")


@dataclass
class TrainingConfig:
    """What every stage shares. Defaults are the published values (docs/method.md, section 6)."""

    # data
    data_name: str = MISSING  # a registered data set, or a data file (.yaml)
    data: str | None = None  # its data file, where it is not registered
    data_root: str = "."
    train_data_dir: str | None = None  # None: the folder that the data set's convention names
    train_split: str = "train"
    test_split: str = "test"
    image_column: str = "file_name"
    class_column: str = "cls"
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
    schedule_batch_size: int | None = None  # samples in a step of the schedule; None: this run's global batch
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
        spec = datasets.get(self.data or self.data_name)
        self.data_name = spec.data_name
        self.data = None if spec.is_registered else str(spec.file)
        positive = (
            *("num_train_epochs", "train_batch_size", "gradient_accumulation_steps", "learning_rate"),
            *("checkpointing_steps", "validation_steps", "checkpoints_to_keep", "log_steps", "max_grad_norm"),
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("max_train_steps", "schedule_batch_size", "num_threads"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0 or null, got {getattr(self, name)}")
        if self.mixed_precision == "False":  # YAML reads a bare `no` as false
            self.mixed_precision = "no"
        for name, allowed in (("lr_scheduler", SCHEDULES), ("mixed_precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.lr_warmup_steps < 0 or self.dataloader_num_workers < 0:
            raise ValueError("lr_warmup_steps and dataloader_num_workers must not be negative")
        if self.use_8bit_adam and self.fused_adamw:
            raise ValueError("use_8bit_adam and fused_adamw exclude each other")
        if self.tracker not in (None, "tensorboard"):
            raise ValueError(f"tracker must be tensorboard or null, got {self.tracker!r}")


@dataclass
class ConditionDropping:
    """With what probability conditions are dropped, per sample and epoch (docs/method.md, section 6)."""

    keep_all: float = 0.1
    drop_all: float = 0.1
    drop_each: float = 0.5  # in all other cases, each condition by itself

    def __post_init__(self) -> None:
        for name in ("keep_all", "drop_all", "drop_each"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"condition_dropping.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.keep_all + self.drop_all > 1:
            raise ValueError("condition_dropping.keep_all + drop_all must not exceed 1")


@dataclass
class ValidationData:
    """What validation samples: for these classes, from the conditions of these images or clips."""

    names: list[str] = field(default_factory=list)  # frame or clip names; empty: the first of each class
    class_labels: list[str] = field(default_factory=list)  # empty: every name's own class
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    seed: int = 3407


@dataclass
class DiffusionConfig(TrainingConfig):
    """What the two diffusion stages share."""

    vae_path: str | None = None  # None: looked for in pretrained_model_path
    image_prior_dir: str | None = None
    caption_column: str | None = None
    cache_latents: bool = False
    latent_cache_dir: str | None = None  # None: latent_cache in output_dir
    condition_dropping: ConditionDropping = field(default_factory=ConditionDropping)
    validation_samples: int = 32  # test samples that test_loss.txt averages over; 0: none
    validation_data: ValidationData = field(default_factory=ValidationData)
    enable_sync_batch_norm: bool = True
