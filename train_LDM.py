"""Step 2: trains the image diffusion model."""

from __future__ import annotations

from cond2img.config import LDMConfig
from ctrlgenaug import steps
from ctrlgenaug.training import cli


def build_stage(config: LDMConfig) -> object:
    """The stage; imported late, because models take seconds to import."""
    from cond2img.training.ldm import LDMStage

    return LDMStage(config)


def main() -> int:
    return cli.main(
        LDMConfig,
        build_stage,
        description="Trains the image diffusion model on the trained VAE's latents, from Stable Diffusion's UNet.",
        script="train_LDM.py",
        default_config="configs/compress_ratio_8_sd_config/MosMed-LDM.yaml",
    )


if __name__ == "__main__":
    steps.run(main)
