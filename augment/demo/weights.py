"""Stand-ins for the weights the method starts from: small, random, in the real ones' formats. For the demo and tests.

``python -m augment.demo.weights --out weights --seed 0`` writes ``weights/medsam`` (a Hugging Face SAM vision
encoder) and ``weights/stable-diffusion`` (the folder layout of Stable Diffusion v1-4).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from ctrlgenaug import steps
from ctrlgenaug.arguments import seed_number
from ctrlgenaug.files import atomic_path, write_text
from ctrlgenaug.plain_data import write_json

NOTE = (
    "Small stand-in with random weights, written by augment.demo.weights (seed {seed}) for the demo and the tests. "
    "It has learned nothing. Replace this folder with {real} for real work."
)
TEXT_WIDTH = 64  # of the text tokens; 768 in the real model

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


def medsam_encoder(seed: int = 0) -> torch.nn.Module:
    """A small SAM vision encoder: images (B, 3, 1024, 1024) in [0, 1] to (B, 256, 64, 64).

    Wholly random filters would see little but noise. Its patch embedding is therefore the 64 slowest cosine patterns of
    a 16 x 16 patch, randomly mixed: brightness and edges come through, as in a trained encoder.
    """
    from transformers import SamVisionConfig, SamVisionModel

    torch.manual_seed(seed)
    model = SamVisionModel(
        SamVisionConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            mlp_dim=128,
            window_size=4,  # of the 64 x 64 places: 30 ms a frame on 2 cores
            global_attn_indexes=[],
            initializer_range=0.05,
        )
    )
    encoder = model.vision_encoder
    with torch.no_grad():
        place = (torch.arange(16) + 0.5) * math.pi / 16
        waves = torch.cos(torch.arange(8)[:, None] * place)  # (8, 16)
        patterns = torch.einsum("iy,jx->ijyx", waves, waves).reshape(64, 16, 16) / 256
        mixing, _ = torch.linalg.qr(torch.randn(64, 64))
        filters = 8 * mixing @ patterns.flatten(1)  # (64, 256)
        encoder.patch_embed.projection.weight.copy_(filters.view(64, 1, 16, 16).expand(-1, 3, -1, -1) / 3)
        # the neck normalises each place by its own deviation: against a fixed bias brightness still shows
        encoder.patch_embed.projection.bias.normal_(std=0.3)
        # places: slow waves over the map, as trained encoders have them; attention can tell by them where a token is
        across = torch.cos(torch.arange(4)[:, None] * (torch.arange(64) + 0.5) * math.pi / 64)  # (4, 64)
        places = torch.einsum("iy,jx->yxij", across, across).reshape(64, 64, 16)
        encoder.pos_embed.copy_(0.05 * places @ mixing[16:32])
        encoder.neck.conv1.weight.normal_(std=0.1)
        encoder.neck.conv2.weight.normal_(std=0.02)
    return model.eval()


def _stable_diffusion_parts(seed: int) -> dict[str, object]:
    """The parts that know how to save themselves, by folder."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

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
    vae = AutoencoderKL(
        sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        scaling_factor=0.18215,
    )
    with torch.no_grad():
        # a trained VAE is nearly sure of its latents; a random one would drown them in noise
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0  # log variance
    vocabulary = _vocabulary()
    text_encoder = CLIPTextModel(
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
    return {"unet": unet, "vae": vae, "text_encoder": text_encoder}


def _vocabulary() -> dict[str, int]:
    """CLIP's byte alphabet, each byte alone and at a word's end: no merges, any text can be spelled."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {token: place for place, token in enumerate(tokens)}


def _write_tokenizer(folder: Path) -> None:
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
    """Writes `medsam_encoder` as a Hugging Face folder, whole or not at all; an existing folder stays."""
    if Path(folder).exists():
        return
    with atomic_path(folder) as temporary:
        medsam_encoder(seed).save_pretrained(temporary)
        write_text(temporary / "README.txt", NOTE.format(seed=seed, real="MedSAM (ViT-B)") + "\n")


def write_stable_diffusion(folder: str | Path, seed: int = 0) -> None:
    """Writes a small Stable Diffusion v1-4 folder, whole or not at all; an existing folder stays."""
    if Path(folder).exists():
        return
    with atomic_path(folder) as temporary:
        parts: dict[str, Any] = _stable_diffusion_parts(seed)
        for name, part in parts.items():
            part.save_pretrained(temporary / name)
        _write_tokenizer(temporary / "tokenizer")
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


def main() -> int:
    """Writes both folders."""
    parser = steps.parser(
        "Small random stand-ins for MedSAM and Stable Diffusion v1-4, in their formats.",
        "python -m augment.demo.weights --out weights",
    )
    parser.add_argument("--out", required=True, help="folder for medsam/ and stable-diffusion/")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the weights (default: %(default)s)")
    options = parser.parse_args()
    out = Path(options.out)
    write_medsam(out / "medsam", options.seed)
    write_stable_diffusion(out / "stable-diffusion", options.seed)
    print(f"small random stand-in weights (not trained, for trying things out) are in {out}")
    return 0


if __name__ == "__main__":
    steps.run(main)
