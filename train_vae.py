"""Step 1: trains the VAE."""

from __future__ import annotations

from cond2img.config import VAEConfig
from ctrlgenaug import steps
from ctrlgenaug.training import cli


def build_stage(config: VAEConfig) -> object:
    """The stage; imported late, because models take seconds to import."""
    from cond2img.training.vae import VAEStage

    return VAEStage(config)


def main() -> int:
    return cli.main(
        VAEConfig,
        build_stage,
        description="Trains the VAE on the sampled frames, from Stable Diffusion's.",
        script="train_vae.py",
        default_config="configs/compress_ratio_8_vae_config/MosMed-vae.yaml",
    )


if __name__ == "__main__":
    steps.run(main)
