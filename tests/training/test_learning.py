"""Both diffusion stages learn on from the miniature base model, and its VAE keeps what it knows: the demo's configs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PHANTOM = "--data_name MosMed --cases 15 --balance --in_plane 256 --slices 20,24 --out MosMedData"
PREPARATION = (  # folder, command
    (".", f"-m ctrlgenaug.phantom {PHANTOM}"),
    (".", "-m augment.demo.weights --out weights"),
    ("MosMedData", "{root}/MosMedData/extract_all_slices.py --in_plane 256"),
    ("MosMedData", "{root}/MosMedData/sample_sequences.py --max_clips 1"),
    (
        ".",
        "{root}/extract_image_priors.py --data_dir MosMedData/MosMed_data --medsam_checkpoint weights/medsam",
    ),
    (
        ".",
        "{root}/extract_motion_field_trajs.py --clip_data_dir MosMedData/MosMed_volume "
        "--adjacent_reference --fill_blocks",
    ),
)
STAGES = {
    "vae": ("vae_train.sh", 40),
    "ldm": ("LDM_train.sh", 80),
    "sequence_ldm": ("sequence_LDM_train.sh", 40),
}


def run(command, cwd):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def figures(path):
    """Before and after, of a test figure's file."""
    before, after = (float(line.split()[-1]) for line in path.read_text().splitlines())
    return before, after


@pytest.mark.slow
def test_each_stage_learns(repository, tmp_path):
    (tmp_path / "MosMedData").mkdir()
    for folder, command in PREPARATION:
        run([sys.executable, *(word.format(root=repository) for word in command.split())], tmp_path / folder)
    found = {}
    for stage, (script, steps) in STAGES.items():
        config = repository / f"configs/demo/{stage}.yaml"
        run(["bash", str(repository / script), str(config), f"max_train_steps={steps}"], tmp_path)
        name = "test_l1.txt" if stage == "vae" else "test_loss.txt"
        found[stage] = figures(tmp_path / "runs" / stage / name)
    # the same samples and the same noise before and after: a small fall is a fall
    # the base's decoder has nothing left to learn of these drawings, and must not forget them
    assert found["vae"][1] < 1.05 * found["vae"][0] < 0.03, found  # mean |x - x'|, pixels in [-1, 1]
    assert found["ldm"][1] < 0.9 * found["ldm"][0] < 0.4, found  # 1 is what the latents' mean costs
    assert found["sequence_ldm"][1] < 0.95 * found["sequence_ldm"][0] < 0.3, found
