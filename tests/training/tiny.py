"""A tiny MosMed data set with conditions, and Stable-Diffusion-like weights, in the formats of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ctrlgenaug import datasets
from ctrlgenaug.conditions.trajectories import save_tracks, track
from ctrlgenaug.plain_data import save_npy, write_jsonl
from ctrlgenaug.video import write_avi

TEXT_WIDTH = 32


def picture(cls: int, case: int, frame: int) -> np.ndarray:
    """A disc whose size tells the class and which moves from frame to frame; (256, 256) uint8."""
    image = np.full((256, 256), 30 + 5 * (case % 4), np.uint8)
    cv2.circle(image, (100 + 4 * frame, 120 + 6 * case), 20 + 25 * cls, 200, -1, cv2.LINE_AA)
    return image


def make_data(root: Path, train: int = 3, test: int = 3) -> Path:
    """Writes ``root/MosMedData`` with ``train`` and ``test`` cases of one clip each; returns ``root``."""
    spec = datasets.get("MosMed")
    home = root / spec.home
    case = 0
    for split, count in (("train", train), ("test", test)):
        frame_rows, clip_rows = [], []
        for number in range(count):
            case += 1
            cls = spec.classes[number % 3]
            name = f"study_{case:04d}"
            clip = spec.clip_name(name, 1)
            frames = np.stack([picture(number % 3, case, frame) for frame in range(8)])
            (home / spec.frames_dir).mkdir(parents=True, exist_ok=True)
            for place, frame in enumerate(frames):
                frame_name = spec.frame_name(name, 2 * place + 1)
                cv2.imwrite(str(home / spec.frames_dir / f"{frame_name}.png"), frame)
                frame_rows.append({"file_name": f"{frame_name}.png", "cls": cls})
                small = cv2.resize(frame, (64, 64)).astype(np.float32) / 255
                prior = np.zeros((256, 64, 64), np.float32)
                prior[:4] = small
                save_npy(spec.prior_path(home, frame_name), prior)
            write_avi(home / spec.clips_dir / f"{clip}.avi", frames)
            clip_rows.append({"file_name": f"{clip}.avi", "cls": cls})
            field = np.zeros((7, 2, 256, 256), np.float32)
            field[:, 0, 96:160, 96:160] = 8.0
            save_npy(spec.motion_path(home, clip), field)
            save_tracks(spec.trajectory_path(home, clip), track(field, case))
        write_jsonl(spec.metadata_path(home / spec.frames_dir, split), frame_rows)
        write_jsonl(spec.metadata_path(home / spec.clips_dir, split), clip_rows)
    return root


def make_weights(folder: Path) -> Path:
    """Writes a small random stand-in for Stable Diffusion v1-4 to ``folder``; returns it."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(16, 16, 16, 16),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=256,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    characters = [chr(code) for code in range(33, 127)]
    words = characters + [f"{character}</w>" for character in characters]
    words += ["<|startoftext|>", "<|endoftext|>"]
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=len(words) - 2,
            eos_token_id=len(words) - 1,
            pad_token_id=len(words) - 1,
        )
    ).save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 77})
    )
    (tokenizer / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
                    "pad_token": "<|endoftext|>"})
    )  # fmt: skip
    return folder


def write_vgg(path: Path) -> Path:
    """Writes random VGG16 weights in torchvision's format (without the classifier, which nothing needs); 59 MB."""
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    features = make_layers(cfgs["D"], batch_norm=False).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"features.{name}": tensor for name, tensor in features.items()}, path)
    return path
