"""Stand-ins for the weights the method starts from, in the real ones' formats. For the demo and tests.

``python -m augment.demo.weights --out weights`` writes ``weights/medsam`` (a Hugging Face SAM vision encoder) and
``weights/base`` (the miniature base model, in the folder layout of Stable Diffusion v1-4). For tests that need nothing
trained there is also a small Stable Diffusion with random weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from augment.demo.encoder import medsam_encoder
from ctrlgenaug import steps
from ctrlgenaug.arguments import seed_number
from ctrlgenaug.files import atomic_path, write_text
from ctrlgenaug.folders import check_sums
from ctrlgenaug.plain_data import write_json

BASE = Path(__file__).parent / "base" / "weights"
NOTE = (
    "Small stand-in with random weights, written by augment.demo.weights (seed {seed}) for the demo and the tests. "
    "It has learned nothing. Replace this folder with {real} for real work."
)
MEDSAM_NOTE = (
    "Small stand-in with chosen weights, written by augment.demo.weights for the demo and the tests. It passes on "
    "pixels and positions and has learned nothing. Replace this folder with MedSAM (ViT-B) for real work."
)
TEXT_WIDTH = 64  # of the text tokens; 768 in the real model

SMALL_VAE: dict[str, Any] = {
    "sample_size": 256,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 16, 32, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
}

SCHEDULER = {  # Stable Diffusion's own; clip_sample is for those who make another scheduler of it
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def small_vae() -> torch.nn.Module:
    """A small grey AutoencoderKL, its weights random: (B, 1, 256, 256) to latents (B, 4, 32, 32)."""
    from cond2img.models.vae import AutoencoderKL

    return AutoencoderKL(in_channels=1, out_channels=1, **SMALL_VAE)


def small_text_encoder() -> torch.nn.Module:
    """A small CLIP text encoder, its weights random, for the tokenizer that `write_tokenizer` writes."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary = _vocabulary()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
            pad_token_id=vocabulary["<|endoftext|>"],
        )
    )


def _stable_diffusion_parts(seed: int) -> dict[str, object]:
    """The parts that know how to save themselves, by folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=32,
        # one attention at 32 x 32, where trajectories are followed; the rest further down, where it is cheap
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=1,
        attention_head_dim=1,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
    )
    vae = AutoencoderKL(**SMALL_VAE)
    with torch.no_grad():
        # a trained VAE is nearly sure of its latents; a random one would drown them in noise
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0  # log variance
    return {"unet": unet, "vae": vae, "text_encoder": small_text_encoder()}


def _vocabulary() -> dict[str, int]:
    """CLIP's byte alphabet, each byte alone and at a word's end: no merges, any text can be spelled."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: place for place, token in enumerate(tokens)}


def write_tokenizer(folder: Path) -> None:
    """Writes a CLIP tokenizer that knows bytes alone."""
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(_vocabulary(), ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
    }
    settings = {**special, "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")


def write_medsam(folder: str | Path, seed: int = 0) -> None:
    """Writes `augment.demo.encoder.medsam_encoder` as a Hugging Face folder, whole or not at all.

    An existing folder stays. The miniature base model has learned to read the encoder of seed 0.
    """
    if Path(folder).exists():
        return
    with atomic_path(folder) as temporary:
        medsam_encoder(seed).save_pretrained(temporary)
        write_text(temporary / "README.txt", MEDSAM_NOTE + "\n")


def write_stable_diffusion(folder: str | Path, seed: int = 0) -> None:
    """Writes a small Stable Diffusion v1-4 folder, whole or not at all; an existing folder stays."""
    if Path(folder).exists():
        return
    with atomic_path(folder) as temporary:
        parts: dict[str, Any] = _stable_diffusion_parts(seed)
        for name, part in parts.items():
            part.save_pretrained(temporary / name)
        write_tokenizer(temporary / "tokenizer")
        write_json(temporary / "scheduler" / "scheduler_config.json", SCHEDULER)
        index: dict[str, Any] = {
            "_class_name": "StableDiffusionPipeline",
            "note": NOTE.format(seed=seed, real="Stable Diffusion v1-4"),
            **{name: _library(part) for name, part in parts.items()},
            "scheduler": ["diffusers", "PNDMScheduler"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
        }
        write_json(temporary / "model_index.json", index)
        write_text(temporary / "README.txt", index["note"] + "\n")


def _library(part: object) -> list[str]:
    return [type(part).__module__.split(".")[0], type(part).__name__]


def write_base(folder: str | Path) -> None:
    """Copies the miniature base model, checked, to ``folder``, whole or not at all; an existing folder stays."""
    if Path(folder).exists():
        return
    check_sums(BASE)
    with atomic_path(folder) as temporary:
        shutil.copytree(BASE, temporary)


def main() -> int:
    """Writes the folders."""
    parser = steps.parser(
        "Writes what the demo starts from where real work starts from MedSAM and Stable Diffusion v1-4, in their "
        "formats: a stand-in for MedSAM, and the miniature base model (augment/demo/base).",
        "python -m augment.demo.weights --out weights",
    )
    parser.add_argument("--out", required=True, help="folder for medsam/ and base/")
    parser.add_argument(
        "--random", action="store_true", help="also stable-diffusion/, a small one with random weights"
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="of the random weights (default: %(default)s)"
    )
    options = parser.parse_args()
    out = Path(options.out)
    write_medsam(out / "medsam")
    write_base(out / "base")
    if options.random:
        write_stable_diffusion(out / "stable-diffusion", options.seed)
    print(f"stand-in for MedSAM and miniature base model (trained on drawings alone) are in {out}")
    return 0


if __name__ == "__main__":
    steps.run(main)
