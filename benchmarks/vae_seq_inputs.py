"""Makes what VAE-Seq is timed on: a full-size VAE of random weights, and synthetic clips; for `against_published.py`.

python vae_seq_inputs.py FOLDER CLIPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from cond2img.models import AutoencoderKL
from ctrlgenaug.video import write_mp4

SIZES = {
    "in_channels": 1,
    "out_channels": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}


def main() -> None:
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(0)
    AutoencoderKL(**SIZES).save_pretrained(folder / "model" / "vae-pretrained", safe_serialization=False)
    rng = np.random.default_rng(0)
    for index in range(number):
        base = rng.integers(0, 255, (64, 64), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        frames = np.stack([np.roll(base, 3 * frame, axis=1) for frame in range(8)])
        write_mp4(folder / "clips" / f"study_{index:04d}_s01_CT-0_66.mp4", frames)


if __name__ == "__main__":
    main()
