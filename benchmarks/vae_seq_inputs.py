"""Makes what the rows of the VAE in `against_published.py` need: a VAE of random weights, and synthetic clips.

    python vae_seq_inputs.py FOLDER CLIPS CHANNELS

CHANNELS are those of the first level; Stable Diffusion's VAE has 128. The clips move at different speeds, so that their
scores differ. A classifier for our filter lies beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

CLASSES = ("CT-0", "CT-1", "CT-234")


def sizes(channels: int) -> dict[str, object]:
    """The config of a VAE of Stable Diffusion's shape with one grey channel."""
    return {
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (channels, 2 * channels, 4 * channels, 4 * channels),
        "layers_per_block": 2,
        "latent_channels": 4,
    }


def main() -> None:
    from augment import classifiers
    from cond2img.models import AutoencoderKL
    from ctrlgenaug.video import write_mp4

    folder, number, channels = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.manual_seed(0)
    AutoencoderKL(**sizes(channels)).save_pretrained(
        folder / "model" / "vae-pretrained", safe_serialization=False
    )
    built = classifiers.build("tiny", len(CLASSES), input_size=64)
    classifiers.save(folder / "classifier.pth", built, "tiny", CLASSES, "MosMed")
    rng = np.random.default_rng(0)
    for index in range(number):
        base = rng.integers(0, 255, (64, 64), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        frames = np.stack([np.roll(base, (1 + index) * frame, axis=1) for frame in range(8)])
        write_mp4(folder / "clips" / f"study_{index // 4:04d}_s01_CT-0_{66 + index % 4}.mp4", frames)


if __name__ == "__main__":
    main()
