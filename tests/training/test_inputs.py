"""Another VAE, other weights, other frames under the same paths: a run of the former ones is not taken for theirs."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import tiny
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from cond2img.config import LDMConfig, VAEConfig
from cond2img.training.ldm import LDMStage
from cond2img.training.vae import VAEStage
from ctrlgenaug import datasets
from ctrlgenaug.config import save_config
from ctrlgenaug.errors import UserError
from ctrlgenaug.training import checkpoints, inputs
from ctrlgenaug.training.export import export_run
from ctrlgenaug.training.settings import refuse_other_inputs

VAE = "pretrained_2d_model_MosMed/MosMed-vae-pretrained"
UNET = "weights/stable-diffusion/unet"


def other_weights(folder):
    """Other weights of the same shapes, as a training that was done again leaves them."""
    file = folder / "diffusion_pytorch_model.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Stable Diffusion's stand-in, a grey VAE, and the frames of MosMed alone, without what they are conditioned on."""
    root = tmp_path_factory.mktemp("start")
    tiny.make_weights(root / "weights" / "stable-diffusion")
    AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, latent_channels=4
    ).save_pretrained(root / VAE)
    spec = datasets.get("MosMed")
    frames = root / spec.home / spec.frames_dir
    frames.mkdir(parents=True)
    for split, case in (("train", 1), ("test", 2)):
        name = spec.frame_name(f"study_{case:04d}", 1)
        cv2.imwrite(str(frames / f"{name}.png"), tiny.picture(0, case, 0))
        row = json.dumps({"file_name": f"{name}.png", "cls": "CT-0"})
        spec.metadata_path(frames, split).write_text(row + "\n")
    return root


@pytest.fixture
def here(start, tmp_path, monkeypatch):
    shutil.copytree(start, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ldm(**fields):
    given = {"data_name": "MosMed", "pretrained_model_path": "weights/stable-diffusion", "vae_path": VAE}
    return LDMConfig(**{**given, "output_dir": "run", "export_dir": "pretrained_2d_model_MosMed", **fields})


def vae(**fields):
    given = {
        "data_name": "MosMed",
        "pretrained_model_path": "weights/stable-diffusion/vae",
        "output_dir": "run",
    }
    return VAEConfig(**{**given, "perceptual_loss": False, **fields})


def other_frame(root):
    frame = next((root / "MosMedData/MosMed_data").glob("*0001*.png"))
    cv2.imwrite(str(frame), np.random.default_rng(0).integers(0, 255, (256, 256), np.uint8))


def other_priors(root):
    """Priors of another encoder, where their folder says whose they are."""
    folder = root / "MosMedData" / datasets.get("MosMed").priors_dir
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.iterdir()))
    (folder / "weights.json").write_text(json.dumps({"fingerprint": f"encoder {number}", "variants": number}))


def begin(config, stage):
    """The run folder as a training of ``config`` leaves it, with a checkpoint of the weights that it starts from."""
    save_config(config, "run/config.yaml")
    inputs.note("run", stage.inputs())
    folder = {"VAEStage": "vae", "LDMStage": "unet"}[type(stage).__name__]

    def fill(path):
        shutil.copytree(UNET if folder == "unet" else VAE, path / folder)

    checkpoints.write("run/checkpoint-1", fill, {"step": 1})


@pytest.mark.parametrize(
    ("make", "build", "change", "named"),
    [
        (vae, VAEStage, other_frame, "MosMed_data"),
        (vae, VAEStage, lambda root: other_weights(root / "weights/stable-diffusion/vae"), "starting VAE"),
        (ldm, LDMStage, other_frame, "MosMed_data"),
        (ldm, LDMStage, lambda root: other_weights(root / VAE), "VAE"),
        (ldm, LDMStage, lambda root: other_weights(root / UNET), "starting UNet"),
        (ldm, LDMStage, other_priors, "image_prior"),
    ],
)
def test_a_run_is_not_taken_for_one_of_other_inputs(make, build, change, named, here):
    other_priors(here)
    config = make()
    stage = build(config)
    begin(config, stage)
    refuse_other_inputs(config, stage.inputs())  # the same are the same
    change(here)
    with pytest.raises(UserError, match=f"run: was trained with other content than there is now: {named}"):
        refuse_other_inputs(config, stage.inputs())
    (here / "run/inputs.json").unlink()  # a run of an earlier version noted none
    refuse_other_inputs(config, stage.inputs())


def test_what_its_own_export_replaces_is_no_other_input(here):
    trained_on = ldm(pretrained_model_path="weights/stable-diffusion", export_dir="weights/stable-diffusion")
    stage = LDMStage(trained_on)
    begin(trained_on, stage)
    other_weights(here / UNET)
    refuse_other_inputs(trained_on, stage.inputs())


def test_an_export_belongs_together(here, monkeypatch):
    config = ldm()
    begin(config, LDMStage(config))
    (here / "run").rename(here / "moved")
    export_run("moved", "out")
    assert (here / "out/training_config.yaml").read_text() == (here / "moved/config.yaml").read_text()

    def ended(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("ctrlgenaug.training.export.copy_folder", ended)
        export_run("moved", "out")
    assert not (here / "out/unet").exists()  # rather none than an old one beside another VAE
    export_run("moved", "out")
    assert torch.equal(
        *(load_file(next(here.glob(place)))["conv_in.weight"] for place in ("out/unet/*.s*", f"{UNET}/*.s*"))
    )
    other_weights(here / VAE)
    with pytest.raises(UserError, match="its VAE is another one now than moved was trained with"):
        export_run("moved", "out")
    assert (here / "out/unet").is_dir()


def test_another_vae_beside_a_unet_is_told(here, capsys):
    config = vae(pretrained_model_path="weights/stable-diffusion/vae")
    begin(config, VAEStage(config))
    for out, told in (("out", False), ("out", False)):  # no UNet there; the same VAE once more
        export_run("run", out)
        assert ("was trained with the VAE that was here before" in capsys.readouterr().out) == told
        shutil.copytree(UNET, "out/unet", dirs_exist_ok=True)
    other_weights(here / "out/MosMed-vae-pretrained")
    export_run("run", "out")
    assert "out/unet was trained with the VAE that was here before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [\n", "config.yaml: cannot be read"),
        (b"- 1\n", "config.yaml: cannot be read"),
        (b"\xff\xfe\x00a", "config.yaml: cannot be read"),
        (b"x: 1\n", "config.yaml: lacks data_name, pretrained_model_path, output_dir"),
    ],
)
def test_the_export_of_a_damaged_run_is_one_line(content, message, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        export_run(tmp_path, "out")
