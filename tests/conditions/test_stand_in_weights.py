"""The stand-in weights: in the real ones' formats, and an encoder that sees."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from diffusers import DDIMScheduler, UNet2DConditionModel
from moving import texture
from transformers import CLIPTextModel, CLIPTokenizer

from augment.demo.weights import write_stable_diffusion
from cond2img.models import UNet2DMultiConditionModel, load_vae
from ctrlgenaug.conditions.medsam import encode, load_encoder
from ctrlgenaug.folders import check_sums, fingerprint_folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory, repository):
    folder = tmp_path_factory.mktemp("stand-ins")
    command = [sys.executable, "-m", "augment.demo.weights", "--out", str(folder / "weights"), "--random"]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1].startswith("stand-in for MedSAM and miniature base model")
    return folder / "weights"


def test_they_say_what_they_are(weights):
    text = (weights / "stable-diffusion" / "README.txt").read_text()
    assert "has learned nothing" in text and "seed 0" in text
    assert "has learned nothing" in (weights / "medsam" / "README.txt").read_text()
    assert "nothing of it is medical" in (weights / "base" / "README.md").read_text()
    check_sums(weights / "base")


def test_the_encoder_tells_frames_apart_even_under_noise(weights):
    model = load_encoder(weights / "medsam")
    frames = np.stack([texture(seed, 256) for seed in range(4)] + [np.roll(texture(0, 256), 24, axis=1)])
    noise = np.random.default_rng(0).normal(0, 6, frames.shape)
    noisy = np.clip(frames + noise, 0, 255).astype(np.uint8)
    priors, again = (encode(model, images).reshape(len(frames), -1) for images in (frames, noisy))
    distance = np.linalg.norm(again[:, None] - priors[None], axis=-1)
    assert distance.argmin(axis=1).tolist() == [0, 1, 2, 3, 4]
    others = distance[~np.eye(len(frames), dtype=bool)]
    assert np.diag(distance).max() < 0.5 * others.min()


def test_the_encoder_keeps_places(weights):
    """A change in one corner of the frame changes that corner of the prior."""
    frame = texture(0, 256)
    changed = frame.copy()
    changed[:32, 224:] = 255 - changed[:32, 224:]
    one, other = encode(load_encoder(weights / "medsam"), np.stack([frame, changed]))
    difference = np.abs(one - other).mean(0)  # (64, 64)
    assert difference[:8, 56:].mean() > 20 * difference[32:, :32].mean()


def test_the_models_of_the_method_start_from_them(weights):
    folder = weights / "stable-diffusion"
    unet = UNet2DMultiConditionModel.from_pretrained_2d(folder, subfolder="unet", num_class_embeds=3)
    source = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    name = "down_blocks.0.resnets.0.conv1.weight"
    assert (unet.state_dict()[name] == source[name]).all()
    vae = load_vae(folder / "vae")
    assert vae.config.scaling_factor == 0.18215 and vae.config.in_channels == 1
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    assert (scheduler.config.steps_offset, scheduler.config.set_alpha_to_one) == (1, False)
    assert abs(float(scheduler.betas[0]) - 0.00085) < 1e-8 and scheduler.config.clip_sample is False


def test_any_text_can_be_encoded(weights):
    folder = weights / "stable-diffusion"
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    texts = ["", "The nodule is solid, hypoechoic, wider-than-tall, and smooth.", "très Ü 结节 \U0001fa7b"]
    tokens = tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    assert tokens.shape == (3, 77) and int(tokens.max()) < encoder.config.vocab_size
    assert tokenizer.decode(tokens[2], skip_special_tokens=True).split() == [
        "très",
        "ü",
        "结节",
        "\U0001fa7b",
    ]
    states = encoder(tokens).last_hidden_state
    assert states.shape == (3, 77, 64) and (states[0] != states[1]).any()


def test_the_same_seed_gives_the_same_weights_and_an_existing_folder_stays(weights, tmp_path):
    write_stable_diffusion(tmp_path / "a", seed=0)
    assert fingerprint_folder(tmp_path / "a") == fingerprint_folder(weights / "stable-diffusion")
    write_stable_diffusion(tmp_path / "b", seed=1)
    before = fingerprint_folder(tmp_path / "b")
    assert before != fingerprint_folder(tmp_path / "a")
    write_stable_diffusion(tmp_path / "b", seed=0)
    assert fingerprint_folder(tmp_path / "b") == before
