"""The three stages on tiny data: they train, resume exactly, hand over to the next stage, and refuse what is wrong."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from test_memory import really_kept
from transformers import CLIPTextConfig, CLIPTextModel

from cond2img.config import LDMConfig, VAEConfig
from cond2img.data import DiffusionBatch, FrameBatch, FrameData, LabelledFrameData
from cond2img.latent_codec import sample_posterior
from cond2img.models import load_vae
from cond2img.training.steering import SteeringRow
from cond2img.training.validation import validation_pairs
from cond2video.config import SequenceConfig
from cond2video.data import LabelledClipData
from ctrlgenaug.config import load_config
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.training import cli
from ctrlgenaug.training.config import ValidationData
from ctrlgenaug.training.export import export_run
from ctrlgenaug.training.latents import cached_moments
from ctrlgenaug.training.memory import run_memory
from ctrlgenaug.training.official_export import SEQUENCE_ADDITIONS
from ctrlgenaug.training.order import SampleKey
from ctrlgenaug.training.records import Records
from ctrlgenaug.training.stage import count_parameters, set_modes

DEMO = Path(__file__).resolve().parent.parent.parent / "configs" / "demo"
SCHEMAS = {"vae": VAEConfig, "ldm": LDMConfig, "sequence_ldm": SequenceConfig}
FOLDERS = {"vae": "vae", "ldm": "unet", "sequence_ldm": "unet3d"}
LENGTH = 4  # steps
# In place of the miniature base model, which the demo starts from: Stable Diffusion's format, as published, and tinier.
STARTS = {
    "vae": {
        "pretrained_model_path": "weights/stable-diffusion/vae",
        "latent_noise": 0,
        "fit_scaling_factor": "true",
    },
    "ldm": {"pretrained_model_path": "weights/stable-diffusion", "fresh_init": "torch"},
    "sequence_ldm": {"sequence_parts": "null"},
}


def build(stage, config):
    """The stage by its script's own builder."""
    import train_LDM
    import train_sequence_LDM
    import train_vae

    scripts = {"vae": train_vae, "ldm": train_LDM, "sequence_ldm": train_sequence_LDM}
    return scripts[stage].build_stage(config)


def configure(stage, **fields):
    """The demo's config, shortened."""
    fields = {
        "max_train_steps": LENGTH,
        "train_batch_size": 2,
        "checkpointing_steps": 1,
        "log_steps": 1,
        "mixed_precision": "no",  # accelerate knows one precision a process, and these tests share theirs
        **STARTS[stage],
        **fields,
    }
    fields = {"checkpoints_to_keep": 9, "lr_warmup_steps": 1, "validation_steps": 1000, **fields}
    if stage != "vae":
        fields |= {"validation_data.num_inference_steps": 1, "steering_samples": 2}
        fields.setdefault("validation_data.names", "[]")
    if stage == "sequence_ldm":
        fields |= {"train_batch_size": 1, "validation_data.names": "[study_0004_s01]"}
    return load_config(SCHEMAS[stage], DEMO / f"{stage}.yaml", [f"{k}={v}" for k, v in fields.items()])


def train(stage, **fields):
    config = configure(stage, **fields)
    assert cli.train(config, lambda config: build(stage, config)) == 0
    return config


@pytest.fixture(scope="module")
def chain(world, tmp_path_factory):
    """All three stages trained one after the other, from a folder that only the first step's output is in."""
    import os

    cwd = tmp_path_factory.mktemp("chain")
    for name in ("MosMedData", "weights"):
        (cwd / name).symlink_to(world / name)
    before = Path.cwd()
    os.chdir(cwd)
    try:
        for stage in SCHEMAS:
            train(stage)
    finally:
        os.chdir(before)
    return cwd


def test_steering_is_measured_on_any_trained_folder(chain, call_script):
    image = ("--load_2d_pretrained_model_name", "pretrained_2d_model_MosMed")
    few = ("--samples", 2, "--device", "cpu")
    told = call_script("measure_steering.py", *image, *few, cwd=chain).stdout
    assert "image prior: " in told and "class: " in told and "motion field" not in told
    both = ("--load_3d_trained_model_name", "sequence_model_MosMed", *image, *few, "--out", "steering.csv")
    assert "motion field: " in call_script("measure_steering.py", *both, cwd=chain).stdout
    with (chain / "steering.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4 * 3 and {row["split"] for row in rows} == {"test"}
    wrong = call_script("measure_steering.py", *image, *few, "--data_name", "ACDC", cwd=chain, code=2).stderr
    assert "is a model of 3 classes, ACDC has 5" in wrong.splitlines()[-1]
    assert "no model is named" in call_script("measure_steering.py", cwd=chain, code=2).stderr
    alone = call_script("measure_steering.py", *image, "--samples", 1, "--device", "cpu", cwd=chain)
    assert "all samples are of one case" in alone.stderr and "image prior" not in alone.stdout


def test_a_model_of_no_numbers_is_no_model_that_ignores_its_conditions(chain, call_script, tmp_path):
    broken = shutil.copytree(chain / "pretrained_2d_model_MosMed", tmp_path / "broken")
    weights = next((broken / "unet").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors["conv_out.bias"][:] = float("nan")
    save_file(tensors, weights)
    few = ("--image_model_path", broken, "--samples", 2, "--device", "cpu")
    assert "no numbers" in call_script("measure_steering.py", *few, cwd=chain, code=2).stderr


@pytest.mark.parametrize("another", [True, False])
def test_no_numbers_without_one_condition_alone_are_not_ignored_conditions(another):
    row = SteeringRow(
        850, "image prior", 0.3, float("nan") if another else 0.4, None if another else float("inf")
    )
    assert not row.finite and replace(row, another=0.4, none=None).finite


def test_a_text_encoder_of_another_width_is_named(chain, call_script, tmp_path):
    mixed = shutil.copytree(chain / "pretrained_2d_model_MosMed", tmp_path / "mixed")
    small = CLIPTextConfig.from_pretrained(mixed / "text_encoder")
    small.hidden_size = 2 * small.hidden_size
    CLIPTextModel(small).save_pretrained(mixed / "text_encoder")
    few = ("--image_model_path", mixed, "--samples", 2, "--device", "cpu")
    told = call_script("measure_steering.py", *few, cwd=chain, code=2).stderr.splitlines()[-1]
    assert told.startswith(f"error: {mixed / 'text_encoder'}: makes ") and "the UNet reads" in told


def test_each_stage_leaves_what_the_next_one_expects(chain):
    image, sequence = chain / "pretrained_2d_model_MosMed", chain / "sequence_model_MosMed"
    for folder in (image, sequence):  # says whether the model was trained with texts
        assert "caption_column: null" in (folder / "training_config.yaml").read_text()
    for part in ("MosMed-vae-pretrained", "scheduler", "text_encoder", "tokenizer"):
        assert {path.name for path in (image / part).iterdir()} == {
            path.name for path in (sequence / part).iterdir()
        }
    config = read_json(image / "unet" / "config.json")
    assert config["motion_condition"] is True and config["insert_strategy"] == "concat"
    assert config["self_attn_mode"] == "SAM"
    assert read_json(sequence / "unet3d" / "config.json")["_class_name"] == "UNet3DMultiConditionModel"
    newest = (
        chain / "runs" / "ldm" / f"checkpoint-{LENGTH}" / "unet_ema" / "diffusion_pytorch_model.safetensors"
    )
    exported = load_file(image / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in load_file(newest).items():
        assert torch.equal(value, exported[name]), name


def test_run_folders_hold_curves_pictures_and_figures(chain):
    for stage, picture in (
        ("vae", "iter_4.png"),
        ("ldm", "iter_4.png"),
        ("sequence_ldm", "iter_4/study_0004_s01.png"),
    ):
        run = chain / "runs" / stage
        image = cv2.imread(str(run / "inter_test_results" / picture), cv2.IMREAD_GRAYSCALE)
        assert image is not None and image.std() > 5
        assert (run / "loss_curve.png").is_file()
        rows = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    assert {"rec", "kl"} <= json.loads((chain / "runs/vae/stats.jsonl").read_text().splitlines()[0]).keys()
    for name in ("vae/test_l1.txt", "ldm/test_loss.txt", "sequence_ldm/test_loss.txt"):
        lines = (chain / "runs" / name).read_text().splitlines()
        assert [line.split("-")[0] for line in lines] == ["Iter0", "Iter4"]
        assert all(0 < float(line.split(": ")[1]) < 10 for line in lines)


def test_steering_is_measured_where_there_are_conditions(chain):
    for stage, conditions in (
        ("ldm", {"image prior", "class"}),
        ("sequence_ldm", {"image prior", "motion field", "class"}),
    ):
        with (chain / "runs" / stage / "steering.csv").open() as handle:
            rows = list(csv.DictReader(handle))
        assert {row["condition"] for row in rows} == conditions
        assert {(row["step"], row["split"]) for row in rows} == {("4", "test"), ("4", "train")}
        assert {row["timestep"] for row in rows if row["split"] == "test"} == {"500", "700", "850", "950"}
        assert all(float(row["own"]) > 0 and float(row["another"]) > 0 for row in rows)
        assert all((row["none"] == "") == (row["condition"] == "class") for row in rows)
        log = (chain / "runs" / stage / "log.txt").read_text()
        assert "step 4: image prior: " in log and "may be too few" in log
    assert not (chain / "runs/vae/steering.csv").exists()


@pytest.mark.slow
def test_the_vae_trains_with_the_perceptual_loss(world, run_script, tmp_path):
    """As the method does, by the script, with a file in the format of torchvision's weights."""
    for name in ("MosMedData", "weights"):
        (tmp_path / name).symlink_to(world / name)
    vgg = tiny.write_vgg(tmp_path / "vgg" / "vgg16-397923af.pth")
    recs = {}
    for kind, fields in (("without", []), ("with", ["perceptual_loss=true", f"lpips_weights={vgg}"])):
        fields += [f"output_dir={kind}", "export_dir=null", "fit_scaling_factor=false", "log_steps=1"]
        fields += [
            "max_train_steps=2",
            "train_batch_size=1",
            "validation_images=1",
            "validation_max_frames=1",
        ]
        run_script("train_vae.py", "--config", DEMO / "vae.yaml", *fields, cwd=tmp_path)
        rows = [json.loads(line) for line in (tmp_path / kind / "stats.jsonl").read_text().splitlines()]
        assert len(rows) == 2 and all(np.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
        recs[kind] = rows[0]["rec"]
        saved = load_file(tmp_path / kind / "checkpoint-2" / "vae" / "diffusion_pytorch_model.safetensors")
        assert not [name for name in saved if "lpips" in name or "slices" in name]
    assert recs["with"] > 1.01 * recs["without"]  # the same sample, the same weights
    assert "WARNING: perceptual_loss=false" in (tmp_path / "without" / "log.txt").read_text()
    assert "WARNING" not in (tmp_path / "with" / "log.txt").read_text()


def test_only_what_the_method_trains_has_moved(chain):
    """The sequence stage leaves every other weight, and BatchNorm's statistics, as the image model had them."""
    image = load_file(chain / "pretrained_2d_model_MosMed/unet/diffusion_pytorch_model.safetensors")
    clip = load_file(chain / "sequence_model_MosMed/unet3d/diffusion_pytorch_model.safetensors")
    trained = (
        "attn1",
        "motion_encoder",
        "insert_unit",
        "norm_temp",
        "attn_temp",
        "multi_modal_attn.attn2.to_q",
    )
    trained += ("multi_modal_attn.attn_condImage.to_q",)
    moved = {name for name in image if not torch.equal(image[name], clip[name])}
    assert moved and all(any(part in name for part in trained) for name in moved)
    assert any("attn1" in name for name in moved)
    assert any("running_mean" in name for name in image)  # and is not among those that moved


@pytest.mark.parametrize("stage", ["ldm", "sequence_ldm"])  # the VAE: test_killed_scripts.py
def test_interrupted_three_times_ends_bit_for_bit_equal(stage, chain, tmp_path, monkeypatch, handlers):
    monkeypatch.chdir(chain)
    config = configure(stage, output_dir=tmp_path / "run", export_dir=tmp_path / "export")

    class Interrupted(Exception):
        pass

    def broken_build(config):
        made = build(stage, config)
        forward, calls = made.step_module.forward, iter(range(100))

        def stop_in_the_second_step(batch):
            if torch.is_grad_enabled() and next(calls) == 1:
                raise Interrupted
            return forward(batch)

        made.step_module.forward = stop_in_the_second_step
        return made

    for _ in range(3):
        with pytest.raises(Interrupted):
            cli.train(config, broken_build)
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 3
    cli.train(config, lambda config: build(stage, config))
    for folder in (FOLDERS[stage], f"{FOLDERS[stage]}_ema"):
        name = Path(f"checkpoint-{LENGTH}") / folder / "diffusion_pytorch_model.safetensors"
        expected, found = load_file(chain / "runs" / stage / name), load_file(tmp_path / "run" / name)
        assert expected.keys() == found.keys()
        for key in expected:
            assert torch.equal(expected[key], found[key]), key


def test_velocity_is_resumed_exactly_exported_and_taken_up_by_the_next_stage(chain, tmp_path, monkeypatch):
    monkeypatch.chdir(chain)
    options = {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_sampling": "mixture",
        "snr_gamma": 5.0,
        "export_dir": tmp_path / "image",
    }
    options["lr_scheduler"] = "constant_with_warmup"  # which does not depend on the length
    whole = train("ldm", output_dir=tmp_path / "whole", **options)
    halves = [train("ldm", output_dir=tmp_path / "halves", max_train_steps=n, **options) for n in (2, LENGTH)]
    weights = [
        load_file(Path(config.output_dir) / f"checkpoint-{LENGTH}/unet/diffusion_pytorch_model.safetensors")
        for config in (whole, halves[-1])
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    said = json.loads((tmp_path / "image/scheduler/scheduler_config.json").read_text())
    assert (said["prediction_type"], said["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert json.loads((tmp_path / "image/unet/config.json").read_text())["prediction_type"] == "v_prediction"
    clips = configure(
        "sequence_ldm",
        pretrained_model_path=tmp_path / "image",
        vae_path=tmp_path / "image/MosMed-vae-pretrained",
        output_dir=tmp_path / "clips",
    )
    stage = build("sequence_ldm", clips)
    assert stage.schedule == NoiseSchedule("v_prediction", rescale_betas_zero_snr=True)
    assert clips.prediction_type == "v_prediction"  # what the run keeps
    for addition in SEQUENCE_ADDITIONS:
        assert getattr(clips, addition) is False and not stage.model.config[addition]  # as published
        setattr(clips, addition, True)
        assert build("sequence_ldm", clips).model.config[addition]


def test_export_by_hand_of_an_older_checkpoint_and_without_average(chain, tmp_path, monkeypatch):
    monkeypatch.chdir(chain)
    export_run("runs/ldm", str(tmp_path / "out"), "checkpoint-2", use_average=False)
    kept = load_file(chain / "runs/ldm/checkpoint-2/unet/diffusion_pytorch_model.safetensors")
    exported = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(kept[name], exported[name]) for name in kept)
    assert (tmp_path / "out" / "MosMed-vae-pretrained" / "config.json").is_file()


# --- samples ---------------------------------------------------------------------------------------------------------


def data_config(schema, world, **fields):
    return schema(
        data_name="MosMed", data_root=str(world), pretrained_model_path="p", output_dir="o", **fields
    )


def test_samples_are_pure_functions_and_the_list_is_never_changed(world):
    data = LabelledClipData(data_config(SequenceConfig, world), "train")
    rows = list(data.rows)
    for key in (SampleKey(0, 1), SampleKey(3, 2)):
        first, second = data[key], data[key]
        assert first.names == second.names
        assert all(map(torch.equal, first.tensors(), second.tensors()))
    assert not torch.equal(data[SampleKey(0, 1)].noise, data[SampleKey(1, 1)].noise)
    assert data.rows == rows


@pytest.mark.parametrize("stage", ["ldm", pytest.param("sequence_ldm", marks=pytest.mark.slow)])
def test_dry_run_estimates_the_memory_that_a_step_takes(stage, chain, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(chain)
    config = configure(stage, output_dir=tmp_path, train_batch_size=2, cache_latents=True)
    assert cli.train(config, lambda config: build(stage, config), dry_run=True) == 0
    made = build(stage, config)
    made.load_companions(torch.device("cpu"))
    memory = run_memory(config, made, 2)
    set_modes(made.step_module)
    batch = config.train_batch_size
    real = made.example().repeated(batch).map(torch.clone)
    assert memory.step.kept == really_kept(made.step_module, real)
    total, trained = count_parameters(made.step_module)
    vae, _ = count_parameters(made.vae)
    assert (memory.weights, memory.gradients, memory.optimizer) == (
        4 * (total + vae),
        8 * trained,
        12 * trained,
    )
    told = capsys.readouterr().out
    assert (
        f"+ {memory.step.activations / 1e9:.2f} activations (batch {batch}, mixed_precision no, without"
        in told
    )
    assert not (tmp_path / "checkpoint-1").exists() and "nothing was trained" in told


def test_a_dropped_condition_is_zeros_and_trajectories_stay(world):
    data = LabelledClipData(data_config(SequenceConfig, world), "train")
    seen = set()
    for epoch in range(40):
        item, kept = data[SampleKey(epoch, 0)].conditions, data.kept(SampleKey(epoch, 0))
        seen.add(frozenset(kept))
        assert item.prior.shape == (1, 256, 64, 64) and item.motion.shape == (1, 7, 2, 256, 256)
        assert bool(item.prior.any()) == ("image_prior" in kept)
        assert bool(item.motion.any()) == ("motion_field" in kept)
        assert item.trajectories.shape == (1, 8192, 8) and (item.trajectories >= 0).sum() > 8192
    assert len(seen) == 4
    expected = np.load(data.reader.motion_dir / "study_0001_s01.npy")
    kept_epoch = next(epoch for epoch in range(40) if "motion_field" in data.kept(SampleKey(epoch, 0)))
    np.testing.assert_array_equal(data[SampleKey(kept_epoch, 0)].conditions.motion[0].numpy(), expected)


def test_pixels_are_scaled_once(world):
    data = LabelledFrameData(data_config(LDMConfig, world), "train")
    raw = cv2.imread(str(data.file(0)), cv2.IMREAD_GRAYSCALE).astype(np.float64)
    np.testing.assert_allclose(data[SampleKey(0, 0)].pixels[0, 0, 0].numpy(), raw / 127.5 - 1, atol=1e-6)


def test_latents_with_and_without_the_cache_are_the_same(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain)
    accelerator = Accelerator(cpu=True)
    batches = {}
    for cached in (True, False):
        stage = build("ldm", configure("ldm", cache_latents=cached, output_dir=tmp_path))
        stage.prepare(accelerator, Records(tmp_path))
        batch = DiffusionBatch.join([stage.data[SampleKey(0, index)] for index in range(4)])
        assert (batch.moments is not None) == cached and (batch.pixels is not None) != cached
        batches[cached] = stage.step_module.latents(batch)
    torch.testing.assert_close(batches[True], batches[False], rtol=1e-4, atol=1e-5)
    assert batches[True].std() > 0


def test_the_cache_is_made_anew_for_other_weights_or_frames(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain)
    shutil.copytree(chain / "MosMedData", tmp_path / "MosMedData", copy_function=shutil.copy2)
    shutil.copytree(chain / "pretrained_2d_model_MosMed", tmp_path / "model")
    fields = {"data_root": tmp_path, "vae_path": tmp_path / "model", "output_dir": tmp_path}
    accelerator = Accelerator(cpu=True)

    def prepare():
        stage = build("ldm", configure("ldm", **fields))
        stage.prepare(accelerator, Records(tmp_path))
        return stage.data.moments, len(list((tmp_path / "latent_cache").glob("moments-*.npy")))

    first, count = prepare()
    assert count == 1 and prepare()[1] == 1
    frame = next((tmp_path / "MosMedData" / "MosMed_data").glob("study_0001*.png"))
    cv2.imwrite(str(frame), np.full((256, 256), 90, np.uint8))
    second, count = prepare()
    assert count == 2 and not np.array_equal(first, second)
    weights = tmp_path / "model" / "MosMed-vae-pretrained" / "config.json"
    weights.write_text(weights.read_text() + "\n")
    assert prepare()[1] == 3


def test_two_runs_do_not_write_one_latent_cache(tmp_path):
    file = tmp_path / "frame"
    file.write_text("")
    accelerator, records, told = Accelerator(cpu=True), Records(tmp_path / "run"), []

    class Frames:
        begun = 0

        def __len__(self):
            return 3

        def file(self, index):
            return file

        def pixels(self, index):
            Frames.begun += 1
            if (
                Frames.begun == 4
            ):  # while the third of three is encoded (the first is, twice), another run begins
                with pytest.raises(UserError, match="another run is writing this folder") as error:
                    made()
                told.append(error)
            return torch.full((8, 1, 4, 4), index + 1.0)

    def made():
        encode = lambda frames: frames.repeat(1, 8, 1, 1)  # noqa: E731
        return cached_moments(tmp_path / "shared", Frames(), encode, "weights", accelerator, records)

    found = made()
    assert told and [found[index].mean() for index in range(3)] == [1, 2, 3]
    assert np.array_equal(made(), found) and [path.suffix for path in (tmp_path / "shared").iterdir()] == [
        ".npy"
    ]


def test_a_fitted_scaling_factor_brings_latents_to_unit_deviation(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain)
    vae = load_vae(chain / "pretrained_2d_model_MosMed" / "MosMed-vae-pretrained")
    assert vae.config.scaling_factor != pytest.approx(0.18215)
    data = LabelledFrameData(data_config(LDMConfig, chain), "train")
    with torch.no_grad():
        posterior = vae.encode(torch.cat([data.pixels(index) for index in range(len(data))])).latent_dist
    generator = torch.Generator().manual_seed(0)
    latents = posterior.sample(generator) * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1.0, abs=0.02)


def test_latent_noise_reaches_the_decoder_and_is_the_samples_own(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain)
    quiet = FrameData(data_config(VAEConfig, chain), "train")
    noisy = FrameData(data_config(VAEConfig, chain, latent_noise=0.5), "train")
    keys = [SampleKey(epoch, index) for epoch in range(20) for index in range(len(noisy))]
    plain, added = (
        FrameBatch.join([quiet[key] for key in keys]),
        FrameBatch.join([noisy[key] for key in keys]),
    )
    assert plain.latent_noise is None and torch.equal(plain.posterior_noise, added.posterior_noise)
    levels = added.latent_noise.std(dim=(1, 2, 3))
    assert 0 < levels.min() < 0.05 and 0.45 < levels.max() < 0.53  # uniform up to the most
    assert levels.mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(noisy[keys[7]].latent_noise, added.latent_noise[7:8])

    stage = build("vae", configure("vae", latent_noise=0.5, output_dir=tmp_path, export_dir="null"))
    seen = {}
    vae = stage.step_module.model
    encode, decode = vae.encode, vae.decode
    monkeypatch.setattr(vae, "encode", lambda x: seen.setdefault("posterior", encode(x)))
    monkeypatch.setattr(vae, "decode", lambda z: [seen.update(latents=z), decode(z)][1])
    batch = added.map(lambda tensor: tensor[:4])
    with torch.no_grad():
        stage.step_module(batch)
    clean = sample_posterior(seen["posterior"].latent_dist.parameters, batch.posterior_noise)
    deviation = clean.std(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(seen["latents"], clean + deviation * batch.latent_noise, atol=1e-6)
    monkeypatch.setattr(vae, "encode", encode)
    monkeypatch.setattr(vae, "decode", decode)
    with torch.no_grad():
        figures = stage.measure()
        assert figures["test_l1"] != figures["test_l1_noisy"]
        stage.test_data.config = replace(stage.config, latent_noise=0.0)
        assert stage.measure() == {"test_l1": figures["test_l1"]}  # what it is without the option


def test_latent_noise_trains_the_decoder_and_leaves_the_encoder(chain, monkeypatch, tmp_path):
    monkeypatch.chdir(chain)
    start = chain / "pretrained_2d_model_MosMed" / "MosMed-vae-pretrained"
    options = {"pretrained_model_path": start, "fit_scaling_factor": "false", "latent_noise": 0.5}
    config = configure(
        "vae", **options, max_train_steps=3, output_dir=tmp_path / "run", export_dir=tmp_path / "out"
    )
    cli.train(config, lambda config: build("vae", config))
    before, after = load_vae(start), load_vae(tmp_path / "out" / "MosMed-vae-pretrained")
    assert after.config.scaling_factor == before.config.scaling_factor
    changed = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed and all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def test_frozen_batch_norm_stands_still_unless_published_behaviour_is_asked_for():
    norm = torch.nn.BatchNorm2d(3).requires_grad_(False)
    module = torch.nn.Sequential(norm, torch.nn.Conv2d(3, 1, 1))
    x = torch.randn(2, 3, 4, 4) + 5
    set_modes(module)
    assert module.training and module[1].training and not norm.training
    module(x)
    assert norm.running_mean.abs().max() == 0
    set_modes(module, freeze_statistics=False)
    module(x)
    assert norm.running_mean.abs().max() > 0


# --- what is wrong is named before the first step --------------------------------------------------------------------


@pytest.fixture
def copy(chain, tmp_path, monkeypatch):
    """A copy of the data that may be damaged, with the trained models beside it."""
    shutil.copytree(chain / "MosMedData", tmp_path / "MosMedData", copy_function=shutil.copy2)
    for name in ("weights", "pretrained_2d_model_MosMed"):
        (tmp_path / name).symlink_to(chain / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def damaged_prior(home):
    (home / "MosMed_data_emb" / "study_0002_slice01.npy").unlink()


def damaged_prior_shape(home):
    np.save(home / "MosMed_data_emb" / "study_0002_slice01.npy", np.zeros((256, 32, 32), np.float32))


def damaged_frame(home):
    (home / "MosMed_data" / "study_0002_slice01.png").write_bytes(b"")


def damaged_clip(home):
    path = home / "MosMed_volume" / "study_0002_s01.avi"
    path.write_bytes(path.read_bytes()[:5000])


def damaged_motion(home):
    path = home / "MosMed_motion_field" / "study_0002_s01.npy"
    path.write_bytes(path.read_bytes()[:-1000])


def damaged_trajectory(home):
    np.save(home / "MosMed_motion_field_trajectory" / "study_0002_s01.npy", np.zeros(5))


@pytest.mark.parametrize(
    ("stage", "damage", "named"),
    [
        ("vae", damaged_frame, "study_0002_slice01.png"),
        ("ldm", damaged_prior, "study_0002_slice01.npy"),
        ("ldm", damaged_prior_shape, "study_0002_slice01.npy"),
        ("sequence_ldm", damaged_prior, "study_0002_slice01.npy"),
        ("sequence_ldm", damaged_clip, "study_0002_s01.avi"),
        ("sequence_ldm", damaged_motion, "study_0002_s01.npy"),
        ("sequence_ldm", damaged_trajectory, "study_0002_s01.npy"),
    ],
)
def test_damaged_data_is_named_before_the_first_step(stage, damage, named, copy):
    damage(copy / "MosMedData")
    with pytest.raises(UserError, match=named):
        cli.train(configure(stage), lambda config: build(stage, config), dry_run=True)


@pytest.mark.parametrize(
    ("stage", "fields", "message"),
    [
        ("ldm", {"data_name": "MRNet", "train_data_dir": "MosMedData/MosMed_data"}, "does not have"),
        ("ldm", {"vae_path": "weights/stable-diffusion/unet", "export_dir": "none"}, "no trained VAE"),
        ("ldm", {"vae_path": "weights/stable-diffusion", "export_dir": "none"}, "no trained VAE"),
        ("ldm", {"vae_path": "weights/stable-diffusion/vae", "export_dir": "none"}, "no trained VAE"),
        ("vae", {"perceptual_loss": "true"}, "vgg16-397923af.pth.*lpips_weights"),
        ("vae", {"pretrained_model_path": "weights/none"}, "weights/none"),
        ("vae", {"latent_noise": "-0.1"}, "latent_noise must be 0 to 1"),
        ("vae", {"latent_noise": "1.5"}, "latent_noise must be 0 to 1"),
        ("vae", {"latent_noise": "0.5", "grey": "random"}, "grey=random draws.*choose one"),
        ("sequence_ldm", {"pretrained_model_path": "weights/stable-diffusion"}, "unet"),
        ("ldm", {"caption_column": "text"}, "lacks text"),
        ("ldm", {"mixed_precision": "fp16"}, "needs a GPU"),
    ],
)
def test_wrong_configs_are_named(stage, fields, message, chain, monkeypatch):
    monkeypatch.chdir(chain)
    with pytest.raises(UserError, match=message):
        config = configure(stage, **fields)
        cli.train(config, lambda config: build(stage, config), dry_run=True)


def test_unknown_field_names_the_nearest():
    with pytest.raises(UserError, match="train_batch_sise.*train_batch_size"):
        configure("ldm", train_batch_sise=3)


# --- what validation samples -----------------------------------------------------------------------------------------


def pairs(world, **settings):
    splits = [LabelledFrameData(data_config(LDMConfig, world), split) for split in ("test", "train")]
    found, missing = validation_pairs(ValidationData(**settings), splits)
    return [(pair.row.name, pair.row.cls, pair.label, pair.data.split) for pair in found], missing


def test_validation_pairs_a_label_with_an_image_of_either_split(world):
    found, missing = pairs(
        world,
        names=["MosMedData/MosMed_data/study_0004_slice01.png", "study_0002_slice03", "study_9999_slice01.png"],
        class_labels=["CT-1", "CT-1", "CT-0"],
    )  # fmt: skip
    assert found == [
        ("study_0004_slice01", "CT-0", "CT-1", "test"),
        ("study_0002_slice03", "CT-1", "CT-1", "train"),
    ]
    assert missing == ["study_9999_slice01.png"]


def test_without_names_validation_takes_the_first_sample_of_each_class(world):
    assert [(cls, label) for _, cls, label, _ in pairs(world)[0]] == [
        (c, c) for c in ("CT-0", "CT-1", "CT-234")
    ]
    assert [label for _, _, label, _ in pairs(world, class_labels=["CT-234"])[0]] == ["CT-234"]
    assert pairs(world, names=["study_0005_slice01"])[0] == [("study_0005_slice01", "CT-1", "CT-1", "test")]
    with pytest.raises(UserError, match="CT-9"):
        pairs(world, class_labels=["CT-9"])


@pytest.mark.parametrize("field", ["image_condition", "motion_condition"])
def test_a_condition_that_is_switched_off_is_always_zeros_and_needs_no_file(field, world, tmp_path):
    shutil.copytree(world / "MosMedData", tmp_path / "MosMedData")
    folder = {"image_condition": "MosMed_data_emb", "motion_condition": "MosMed_motion_field"}[field]
    shutil.rmtree(tmp_path / "MosMedData" / folder)
    data = LabelledClipData(data_config(SequenceConfig, tmp_path, **{field: False}), "train")
    data.check()
    for epoch in range(10):
        conditions = data[SampleKey(epoch, 0)].conditions
        value = conditions.prior if field == "image_condition" else conditions.motion
        assert value is not None and not value.any()
