"""The real training scripts killed without warning and started again: the weights of a run that nobody disturbed.

`test_resume.py` does the same at every kind of point with a toy model; here the moments are whatever the clock makes
them, and everything is what a user runs: the script, its config, its checkpoints, its export.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPTS = {"vae": "train_vae.py", "ldm": "train_LDM.py", "sequence_ldm": "train_sequence_LDM.py"}
FOLDERS = {"vae": "vae", "ldm": "unet", "sequence_ldm": "unet3d"}
EXPORTS = {
    "vae": "pretrained_2d_model_MosMed/MosMed-vae-pretrained",
    "ldm": "pretrained_2d_model_MosMed/unet",
    "sequence_ldm": "sequence_model_MosMed/unet3d",
}
STEPS = 8
SETTINGS = (
    *(f"max_train_steps={STEPS}", "gradient_accumulation_steps=2", "lr_warmup_steps=3", "num_threads=1"),
    *("checkpointing_steps=2", "checkpoints_to_keep=2", "log_steps=1"),
)
OF_STAGE = {
    "vae": (
        "train_batch_size=1",
        "pretrained_model_path=weights/stable-diffusion/vae",
        "validation_images=1",
        "validation_max_frames=1",
    ),
    "ldm": (
        "pretrained_model_path=weights/stable-diffusion",
        "train_batch_size=1",
        "validation_data.num_inference_steps=1",
        "steering_samples=0",
    ),
    "sequence_ldm": (
        "sequence_parts=null",
        "validation_data.num_inference_steps=1",
        "validation_data.names=[study_0004_s01]",
        "steering_samples=0",
    ),
}


def command(repository: Path, stage: str) -> list[str]:
    """What a user would type, in a list."""
    config = repository / "configs" / "demo" / f"{stage}.yaml"
    return [
        *(sys.executable, str(repository / SCRIPTS[stage]), "--config", str(config)),
        *(*SETTINGS, *OF_STAGE[stage]),
    ]


def start(repository: Path, stage: str, cwd: Path) -> subprocess.Popen[str]:
    """Starts the stage's script in ``cwd``, on one thread, on the CPU."""
    return subprocess.Popen(
        command(repository, stage),
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Waits for the end; returns the output."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-3000:]
    return output


def disturb(process: subprocess.Popen[str], run: Path, lines: int, delay: float, number: int) -> None:
    """Sends signal ``number`` some ``delay`` seconds after stats.jsonl has ``lines`` lines."""
    stats = run / "stats.jsonl"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if stats.is_file() and stats.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.005)
    assert process.poll() is None, f"ended before it could be disturbed: {process.communicate()[0][-2000:]}"
    time.sleep(delay)
    process.send_signal(number)


def home(folder: Path, world: Path, models: Path | None = None) -> Path:
    """A working folder with the data and weights, and with the models that earlier stages exported to ``models``."""
    folder.mkdir(exist_ok=True)
    for name in ("MosMedData", "weights"):
        (folder / name).symlink_to(world / name)
    if models is not None:
        (folder / "pretrained_2d_model_MosMed").symlink_to(models / "pretrained_2d_model_MosMed")
    return folder


def assert_same_weights(stage: str, one: Path, other: Path) -> None:
    """Bit for bit: the last checkpoint's model and average, and what was exported."""
    last = Path("runs") / stage / f"checkpoint-{STEPS}"
    for folder in (last / FOLDERS[stage], last / f"{FOLDERS[stage]}_ema", Path(EXPORTS[stage])):
        a, b = (load_file(cwd / folder / "diffusion_pytorch_model.safetensors") for cwd in (one, other))
        assert a.keys() == b.keys()
        differing = [name for name in a if not a[name].equal(b[name])]
        assert not differing, f"{folder}: {differing[:5]}"


@pytest.fixture(scope="module")
def undisturbed(world, repository, tmp_path_factory):
    """``undisturbed(stage)``: a folder where this stage, and all before it, ran to the end in peace."""
    cwd, done = home(tmp_path_factory.mktemp("undisturbed"), world), []

    def train(stage: str) -> Path:
        for needed in list(SCRIPTS)[len(done) : list(SCRIPTS).index(stage) + 1]:
            finish(start(repository, needed, cwd))
            done.append(needed)
        return cwd

    return train


@pytest.mark.parametrize(
    ("stage", "kills"),
    [
        ("vae", 1),
        *(pytest.param(stage, 3, marks=pytest.mark.slow) for stage in SCRIPTS),
    ],
)
def test_killed_at_random_moments_ends_bit_for_bit_equal(
    stage, kills, undisturbed, world, repository, tmp_path
):
    expected = undisturbed(stage)
    cwd = home(tmp_path / "killed", world)
    if stage == "sequence_ldm":  # reads what the stages before it exported
        (cwd / "pretrained_2d_model_MosMed").symlink_to(expected / "pretrained_2d_model_MosMed")
    elif stage == "ldm":  # reads the VAE, and exports beside it
        (cwd / "pretrained_2d_model_MosMed").mkdir()
        trained = EXPORTS["vae"]
        (cwd / trained).symlink_to(expected / trained)
    chosen = random.Random(f"{os.environ.get('PYTEST_SEED', 'killed')} {stage} {kills}")
    run = cwd / "runs" / stage
    # lines of stats.jsonl; the later kills come after the earlier ones' resumption, so that each disturbs new steps
    moments = sorted(chosen.sample(range(3, STEPS - 2), kills))
    for lines in moments:
        process = start(repository, stage, cwd)
        disturb(process, run, lines, chosen.uniform(0, 0.1), signal.SIGKILL)
        assert "error:" not in finish(process, -signal.SIGKILL)
        assert not (run / f"checkpoint-{STEPS}").exists()
    if kills > 1:
        process = start(repository, stage, cwd)
        disturb(process, run, moments[-1] + 1, 0, signal.SIGTERM)
        assert "stopped on request" in finish(process, 143)
    output = finish(start(repository, stage, cwd))
    assert "continuing from" in output and "exported to" in output
    assert_same_weights(stage, expected, cwd)
    assert not list(cwd.rglob(".unfinished-*"))
