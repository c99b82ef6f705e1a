"""The fields of the VAE's and the image diffusion model's configs (docs/configuration.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ctrlgenaug.training.config import DiffusionConfig, TrainingConfig


@dataclass
class VAEConfig(TrainingConfig):
    """The VAE's training. Defaults are the published values."""

    channels_last: bool = True
    perceptual_loss: bool = True
    lpips_weights: str | None = None  # torchvision's VGG16; None: looked for where it usually lies
    kl_weight: float = 1e-6
    # above 0: trains the decoder alone, from latents with noise of up to so many of their own deviations
    latent_noise: float = 0.0
    grey: str = "fold"  # or random: how 3-channel weights become 1-channel ones
    fit_scaling_factor: bool = False  # True: latents of unit deviation; False: Stable Diffusion's 0.18215
    validation_names: list[str] = field(default_factory=list)  # test frames; empty: spread over the split
    validation_images: int = 8  # columns of the picture
    validation_max_frames: int | None = (
        None  # frames that the test figures average over; None: the whole split
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grey not in ("fold", "random"):
            raise ValueError(f"grey must be fold or random, got {self.grey!r}")
        if not 0 <= self.kl_weight < math.inf:
            raise ValueError(f"kl_weight must be a number of 0 or more, got {self.kl_weight}")
        if not 0 <= self.latent_noise <= 1:
            raise ValueError(f"latent_noise must be 0 to 1, got {self.latent_noise}")
        if self.latent_noise and self.grey == "random":
            raise ValueError(
                "grey=random draws the encoder's first weights anew, latent_noise leaves the encoder: choose one"
            )
        if self.validation_images < 1 or (self.validation_max_frames or 1) < 1:
            raise ValueError("validation_images and validation_max_frames must be above 0")


@dataclass
class LDMConfig(DiffusionConfig):
    """The image diffusion model's training. Defaults are the published values."""

    train_batch_size: int = 64
    # where the UNet has the image prior's branch: down, mid, up blocks
    condition_insert_block: list[bool] = field(default_factory=lambda: [True, True, True])
    fresh_init: str = "torch"  # or official, identity: how the parts start that the weights lack
    load_trained: bool = False  # pretrained_model_path holds a UNet of this project, to train further
    # N of extract_image_priors.py --variants: train on as many variants of each frame, too
    prior_variants: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fresh_init not in ("torch", "official", "identity"):
            raise ValueError(f"fresh_init must be torch, official or identity, got {self.fresh_init!r}")
        if self.prior_variants < 0:
            raise ValueError(f"prior_variants must be 0 or more, got {self.prior_variants}")
        if self.prior_variants and self.cache_latents:
            raise ValueError("prior_variants changes frames, cache_latents keeps their latents: choose one")
