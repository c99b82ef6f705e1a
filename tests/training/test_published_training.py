"""The published commands, verbatim, in the published layout: `sh vae_train.sh` and so on, with hand copying in between.

The folder looks like a checkout of the published code: its scripts, its configs with every published field filled in by
a user, small weights where the published README wants Stable Diffusion's, and the data set beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import published_files
import pytest
import tiny
from safetensors.torch import load_file

from ctrlgenaug.plain_data import read_json, write_json
from ctrlgenaug.training.cli import ROOT

SCRIPTS = {"vae": "vae_train.sh", "ldm": "LDM_train.sh", "sequence_ldm": "sequence_LDM_train.sh"}
CONFIGS = {
    "vae": "configs/compress_ratio_8_vae_config/MosMed-vae.yaml",
    "ldm": "configs/compress_ratio_8_sd_config/MosMed-LDM.yaml",
    "sequence_ldm": "configs/MosMed-sequence-LDM.yaml",
}
EDITED = {
    "vae": {"width": "width: 256"},
    "ldm": {"gradient_accumulation_steps": "gradient_accumulation_steps: 24"},
    "sequence_ldm": {
        "gradient_accumulation_steps": "gradient_accumulation_steps: 3",
        "num_inference_steps": "num_inference_steps: 2",
        "lr_warmup_steps": "lr_warmup_steps: 0",
    },
}


@pytest.fixture(scope="module")
def checkout(world, tmp_path_factory):
    """The published checkout, with a user's data, weights and configs in it."""
    cwd = tmp_path_factory.mktemp("checkout")
    for name in ("scripts", *SCRIPTS.values()):
        (cwd / name).symlink_to(ROOT / name)
    shutil.copytree(world / "MosMedData", cwd / "MosMedData")
    frames = cwd / "MosMedData" / "MosMed_data"
    rows = (frames / "test_metadata.jsonl").read_text().splitlines()
    (frames / "few_metadata.jsonl").write_text(rows[0] + "\n")
    weights = world / "weights" / "stable-diffusion"
    shutil.copytree(weights / "vae", cwd / "configs/compress_ratio_8_vae_config/vae")
    for part in ("unet", "text_encoder", "tokenizer", "scheduler"):
        shutil.copytree(weights / part, cwd / "configs/compress_ratio_8_sd_config" / part)
    tiny.write_vgg(cwd / "weights" / "vgg16-397923af.pth")
    for stage, path in CONFIGS.items():
        edited = {**EDITED[stage], "output_dir": f'output_dir: "out_{stage}"'}
        written = published_files.write(cwd, stage, **edited)
        text = written.read_text()
        if stage == "vae":  # one frame is enough of a test split, and of an epoch
            text = text.replace("train_metadata", "few_metadata").replace("test_metadata", "few_metadata")
            text = text.replace("gradient_accumulation_steps: 8", "gradient_accumulation_steps: 1")
        (cwd / path).write_text(text)
        written.unlink()
    return cwd


def train(checkout: Path, stage: str) -> str:
    """The published command line of a stage, as a user types it."""
    result = subprocess.run(
        [shutil.which("dash") or "sh", SCRIPTS[stage]],
        cwd=checkout,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_the_three_published_commands_with_the_copying_in_between(checkout):
    # 1: the VAE, from Stable Diffusion's
    train(checkout, "vae")
    run = checkout / "out_vae"
    assert (run / "train_loss.txt").read_text().startswith("Iter1-Epo1:   ")
    figures = [line.split(":   ") for line in (run / "test_rec_loss.txt").read_text().splitlines()]
    assert [label for label, _ in figures] == ["Iter0-Epo0", "Iter1-Epo1"]
    only_l1 = float((run / "test_l1.txt").read_text().split()[1])
    assert float(figures[0][1]) > only_l1  # LPIPS is in it
    vae = checkout / "configs/compress_ratio_8_sd_config/MosMed-vae-pretrained"
    shutil.copytree(run / "checkpoint-1" / "vae", vae)  # by hand, as the README says

    # 2: the image model
    train(checkout, "ldm")
    run = checkout / "out_ldm"
    picture = cv2.imread(str(run / "inter_test_results/iter_1.png"), cv2.IMREAD_GRAYSCALE)
    assert picture.shape[1] >= 2 * 256 and picture.std() > 5  # two pairs of label and image
    model = checkout / "pretrained_2d_model_MosMed"
    for part in ("scheduler", "text_encoder", "tokenizer"):
        shutil.copytree(checkout / "configs/compress_ratio_8_sd_config" / part, model / part)
    shutil.copytree(vae, model / "MosMed-vae-pretrained")
    shutil.copytree(run / "checkpoint-1" / "unet", model / "unet")
    config = read_json(model / "unet" / "config.json")
    lines = {"self_attn_mode": "SAM", "insert_strategy": "concat", "motion_condition": True}
    write_json(model / "unet" / "config.json", {**config, **lines})

    # 3: the sequence model
    told = train(checkout, "sequence_ldm")
    run = checkout / "out_sequence_ldm"
    assert "checkpoint-1" in told and (run / "checkpoint-1/unet3d/config.json").is_file()
    assert (run / "inter_test_results/iter_1/study_0004_s01.png").is_file()
    before = load_file(model / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(run / "checkpoint-1/unet3d/diffusion_pytorch_model.safetensors")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and all("attn1" in name or ".to_q." in name for name in moved)
    stats = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert stats[-1]["samples"] == 3
