"""Folders in every layout that is in the wild: what loads, what is refused, and what the log says."""

import json
import logging
import os
import pickle
import shutil

import diffusers
import pytest
import torch
from golden_vectors import SMALL_UNET, SMALL_VAE, arr, keys, official_weights
from safetensors.torch import load_file, save_file

from cond2img.models import AutoencoderKL, UNet2DMultiConditionModel, load_vae
from cond2video.config import FINETUNED
from cond2video.models import UNet3DMultiConditionModel
from cond2video.models.checkpoints import load_sequence_parts
from ctrlgenaug.errors import UserError
from ctrlgenaug.training.official_export import SEQUENCE_ADDITIONS, write_officially

# The three lines of the method's README in an otherwise plain config; block types as the image model has them.
HAND_EDITED = {"self_attn_mode": "SAM", "insert_strategy": "concat", "motion_condition": True}


def write(folder, config, weights, binary=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {name: value.contiguous() for name, value in weights.items()}
    if binary:
        torch.save(weights, folder / "diffusion_pytorch_model.bin")
    else:
        save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    return folder


def unet_config(name, **changes):
    config = {"_class_name": name, "_diffusers_version": "0.11.1", "sample_size": 32, **SMALL_UNET, **changes}
    return json.loads(json.dumps(config))


def official(folder, stage, binary=False, **changes):
    """A UNet folder of the official code: stage "unet2d" or "unet3d"."""
    name = {"unet2d": "UNet2DMultiConditionModel", "unet3d": "UNet3DMultiConditionModel"}[stage]
    return write(folder, unet_config(name, **changes), official_weights(stage), binary)


def vae_config(channels=1):
    return {"_class_name": "AutoencoderKL", **SMALL_VAE, "in_channels": channels, "out_channels": channels}


def stable_diffusion_unet(folder):
    """A small random UNet of diffusers in the folder layout of Stable Diffusion v1-4."""
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=64,
        block_out_channels=SMALL_UNET["block_out_channels"],
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=768,
    )
    model.save_pretrained(folder)
    return model


def same(weights, others):
    return weights.keys() == others.keys() and all(torch.equal(weights[n], others[n]) for n in weights)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("stage", ["unet2d", "unet3d"])
def test_unet_round_trip(tmp_path, stage, binary):
    folder = official(tmp_path / "unet", stage, binary)
    if stage == "unet2d":
        model = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, "unet", load_trained=True)
    else:
        model = UNet3DMultiConditionModel.from_trained_3d(tmp_path, "unet")
    model.save_pretrained(tmp_path / "ours", safe_serialization=not binary)
    suffix = "bin" if binary else "safetensors"
    file = tmp_path / "ours" / f"diffusion_pytorch_model.{suffix}"
    saved = torch.load(file, weights_only=True) if binary else load_file(file)
    assert same(saved, official_weights(stage))
    config = json.loads((tmp_path / "ours/config.json").read_text())
    given = json.loads((folder / "config.json").read_text())
    assert {name: config[name] for name in given if name != "_diffusers_version"} == {
        name: value for name, value in given.items() if name != "_diffusers_version"
    }
    again = type(model).from_pretrained(tmp_path / "ours")  # diffusers' own way
    assert same(again.state_dict(), model.state_dict())


def test_vae_round_trip(tmp_path):
    weights = official_weights("vae")
    extra = {"vae_loss.logvar": torch.ones(()), "vae_loss.perceptual_loss.lin0.model.1.weight": torch.ones(3)}
    write(tmp_path / "data/MosMed-vae-pretrained", vae_config(), {**weights, **extra}, binary=True)
    vae = load_vae(tmp_path / "data")
    vae.save_pretrained(tmp_path / "bin", safe_serialization=False)
    vae.save_pretrained(tmp_path / "safe")
    assert same(
        torch.load(tmp_path / "bin/diffusion_pytorch_model.bin", weights_only=True), official_weights("vae")
    )
    assert same(load_file(tmp_path / "safe/diffusion_pytorch_model.safetensors"), official_weights("vae"))
    assert "to_q" in " ".join(vae.state_dict())  # saving leaves the model as it was
    for cls in (AutoencoderKL, diffusers.AutoencoderKL):
        assert same(cls.from_pretrained(tmp_path / "safe").state_dict(), vae.state_dict())


@pytest.mark.parametrize("name", ["vae", "vae-pretrained", "TUSC-vae-pretrained"])
@pytest.mark.parametrize("spelling", ["old", "current", "convolutions"])
def test_vae_folders_and_spellings(tmp_path, name, spelling):
    model = AutoencoderKL(**SMALL_VAE)
    weights = model.state_dict()
    if spelling != "current":
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            weights = {key.replace(f".{new}.", f".{old}."): value for key, value in weights.items()}
    if spelling == "convolutions":
        weights = {
            key: value[:, :, None, None] if ".query.weight" in key else value
            for key, value in weights.items()
        }
    write(tmp_path / name, vae_config(), weights)
    assert same(load_vae(tmp_path).state_dict(), model.state_dict())
    assert same(load_vae(tmp_path, name).state_dict(), model.state_dict())
    assert same(load_vae(tmp_path / name).state_dict(), model.state_dict())


def test_a_vae_under_the_other_folder_name_is_found_and_said(tmp_path, caplog):
    write(tmp_path / "ACDC-vae-pretrained", vae_config(), official_weights("vae"))
    with caplog.at_level(logging.INFO):
        load_vae(tmp_path, "vae-pretrained")
    assert "ACDC-vae-pretrained" in caplog.text
    write(tmp_path / "TUSC-vae-pretrained", vae_config(), official_weights("vae"))
    with pytest.raises(UserError, match="several candidates: ACDC-vae-pretrained, TUSC-vae-pretrained"):
        load_vae(tmp_path)


@torch.no_grad()
def test_three_channel_weights_reconstruct_grey_as_before(tmp_path):
    torch.manual_seed(0)
    colour = diffusers.AutoencoderKL(**{**SMALL_VAE, "in_channels": 3, "out_channels": 3}).eval()
    colour.save_pretrained(tmp_path / "vae")
    grey = load_vae(tmp_path / "vae")
    picture = arr("picture", (2, 1, 64, 64)).clip(-1, 1)
    latents = colour.encode(picture.expand(-1, 3, -1, -1)).latent_dist
    torch.testing.assert_close(grey.encode(picture).latent_dist.parameters, latents.parameters)
    expected = colour.decode(latents.mode()).sample.mean(1, keepdim=True)
    torch.testing.assert_close(grey.decode(latents.mode()).sample, expected)

    drawn = load_vae(tmp_path / "vae", grey="random")
    assert not torch.allclose(drawn.encode(picture).latent_dist.parameters, latents.parameters)
    assert torch.equal(drawn.quant_conv.weight, grey.quant_conv.weight)


def test_stable_diffusion_unet_adapts(tmp_path, caplog):
    theirs = stable_diffusion_unet(tmp_path / "unet")
    with caplog.at_level(logging.INFO):
        ours = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, "unet", num_class_embeds=5)
    assert {n: list(v.shape) for n, v in ours.state_dict().items()}.keys() == keys("unet2d").keys()
    assert ours.class_embedding.num_embeddings == 5
    weights = ours.state_dict()
    for name, value in theirs.state_dict().items():
        block = "transformer_blocks.0."
        for part in ("norm2", "attn2"):
            name = name.replace(f"{block}{part}.", f"{block}multi_modal_attn.{part}.")
        assert torch.equal(weights[name], value), name  # resnets' norm2 keeps its name
    messages = [record.getMessage() for record in caplog.records]
    assert any("renamed" in m and "multi_modal_attn" in m for m in messages)
    assert any("start fresh" in m and "image_proj" in m and "class_embedding" in m for m in messages)
    assert all("\n" not in message for message in messages)


@torch.no_grad()
def test_stable_diffusion_unet_computes_the_same_without_new_conditions(tmp_path):
    """A second oracle: with no prior and a zero class embedding the adapted UNet is diffusers' UNet."""
    theirs = stable_diffusion_unet(tmp_path).eval()
    ours = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, num_class_embeds=2)
    ours.class_embedding.weight.zero_()
    x, text, t = arr("x", (2, 4, 16, 16)), arr("text", (2, 9, 768)), torch.tensor([3, 700])
    expected = theirs(x, t, text).sample
    got = ours(x, t, text, class_labels=torch.tensor([0, 1])).sample
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_inflation(tmp_path, caplog):
    official(tmp_path / "unet", "unet2d", **HAND_EDITED)  # the hand-edited config still works
    with caplog.at_level(logging.INFO):
        model = UNet3DMultiConditionModel.from_pretrained_2d(tmp_path, "unet")
    assert "motion_encoder" in caplog.text and "start fresh" in caplog.text
    weights = model.state_dict()
    assert {n: list(v.shape) for n, v in weights.items()} == keys("unet3d")
    assert all(torch.equal(weights[name], value) for name, value in official_weights("unet2d").items())
    assert not any(v.any() for n, v in weights.items() if "attn_temp.to_out" in n)
    assert not weights["insert_unit.weight"][:, 32:].any() and not weights["insert_unit.bias"].any()
    random = UNet3DMultiConditionModel.from_pretrained_2d(tmp_path, "unet", init="official").state_dict()
    drawn = torch.cat([v.flatten() for n, v in random.items() if "attn_temp" in n and n.endswith("weight")])
    assert drawn.std().item() == pytest.approx(0.02, rel=0.05)  # published: deviation 0.02, no bias
    assert not any(v.any() for n, v in random.items() if "attn_temp" in n and n.endswith("bias"))
    assert random["insert_unit.weight"][:, 32:].any()


def test_fresh_layers_as_published(tmp_path):
    stable_diffusion_unet(tmp_path)
    given = {"num_class_embeds": 3, "fresh_init": "official"}
    weights = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, **given).state_dict()
    linear = ("image_proj.proj.", "attn_condImage.to_")
    drawn = {n: v for n, v in weights.items() if any(part in n for part in linear)}
    assert all(v.std().item() == pytest.approx(0.02, rel=0.1) for n, v in drawn.items() if "weight" in n)
    assert not any(v.any() for n, v in drawn.items() if "bias" in n)
    assert weights["class_embedding.weight"].std() > 0.5  # no linear layer


@pytest.mark.parametrize("strategy", [None, "concat"])
def test_an_ldm_unet_of_the_published_code_needs_no_edit(tmp_path, strategy, caplog):
    config = {"image_condition": True, "image_encode": "MedSAM", "insert_strategy": strategy}
    official(tmp_path / "unet", "unet2d", binary=True, **config, motion_condition=None)
    image = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, "unet", load_trained=True)
    assert same(image.state_dict(), official_weights("unet2d"))
    sequence = UNet3DMultiConditionModel.from_pretrained_2d(tmp_path, "unet")
    assert sequence.config.insert_strategy == "concat" and sequence.config.motion_condition
    assert "will be ignored" not in caplog.text


@pytest.mark.parametrize("layout", ["checkpoint/unet3d", "checkpoint-40/unet3d", "unet3d", "."])
def test_a_sequence_unet_is_found_where_the_published_code_left_it(tmp_path, layout):
    official(tmp_path / layout, "unet3d", binary=True, image_condition=True, image_encode="MedSAM")
    if layout == "checkpoint-40/unet3d":  # as numbers, not as text
        official(tmp_path / "checkpoint-9/unet3d", "unet2d")
    assert same(UNet3DMultiConditionModel.from_trained_3d(tmp_path).state_dict(), official_weights("unet3d"))


def test_sequence_model_folders(tmp_path):
    for name in ("unet", "unet3d"):  # unet3d is preferred where both are there
        official(tmp_path / name, "unet3d")
    assert UNet3DMultiConditionModel.from_trained_3d(tmp_path).config.self_attn_mode == "SAM"
    (tmp_path / "unet3d/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="unet3d: holds no weights"):
        UNet3DMultiConditionModel.from_trained_3d(tmp_path)


def test_block_types_of_either_model_are_accepted(tmp_path):
    types = {"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "mid_block_type": None}
    official(tmp_path / "unet", "unet3d", **types)
    model = UNet3DMultiConditionModel.from_trained_3d(tmp_path)
    assert model.config.down_block_types[0] == "CrossAttnDownBlock3D"


def test_the_weights_decide_on_classes_and_branches(tmp_path):
    small = {k: v for k, v in SMALL_UNET.items() if k != "num_class_embeds"}
    model = UNet2DMultiConditionModel(**small, num_class_embeds=5, condition_insert_block=[True, False, True])
    config = unet_config("UNet2DMultiConditionModel", num_class_embeds=3)
    write(tmp_path / "unet", config, model.state_dict())
    loaded = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, "unet")
    assert loaded.config.num_class_embeds == 5
    assert list(loaded.config.condition_insert_block) == [True, False, True]


def test_weights_of_several_gpus(tmp_path):
    weights = {f"module.{name}": value for name, value in official_weights("unet2d").items()}
    write(tmp_path, unet_config("UNet2DMultiConditionModel"), weights)
    loaded = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path)
    assert same(loaded.state_dict(), official_weights("unet2d"))


def test_the_official_format_has_what_the_published_code_asks_for_and_loads_here(tmp_path):
    official(tmp_path / "unet", "unet2d", **HAND_EDITED)
    official(tmp_path / "unet3d", "unet3d")
    load_vae(write(tmp_path / "source", vae_config(), official_weights("vae"))).save_pretrained(
        tmp_path / "vae"
    )
    shutil.rmtree(tmp_path / "source")
    assert [folder.name for folder in write_officially(tmp_path)] == ["unet", "unet3d", "vae"]
    assert not list(tmp_path.rglob("*.safetensors"))
    for name, strategy in (("unet", None), ("unet3d", "concat")):
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["image_condition"], config["image_encode"]) == (True, "MedSAM")
        assert config["insert_strategy"] == strategy and ("self_attn_mode" in config) == (name == "unet3d")
    weights = torch.load(tmp_path / "vae/diffusion_pytorch_model.bin", weights_only=True)
    assert weights.keys() == {*official_weights("vae"), "vae_loss.logvar"}
    image = UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, "unet", load_trained=True)
    assert same(image.state_dict(), official_weights("unet2d"))
    sequence = UNet3DMultiConditionModel.from_trained_3d(tmp_path)
    assert same(sequence.state_dict(), official_weights("unet3d"))
    assert load_vae(tmp_path).config.in_channels == 1
    with pytest.raises(UserError, match="holds no model"):
        write_officially(tmp_path / "unet" / "nothing")


@pytest.mark.parametrize("addition", SEQUENCE_ADDITIONS)
def test_additions_stay_with_the_weights_and_are_refused_in_the_official_format(addition, tmp_path):
    model = UNet3DMultiConditionModel(**SMALL_UNET, **{addition: True})
    model.save_pretrained(tmp_path / "unet3d")
    assert UNet3DMultiConditionModel.from_trained_3d(tmp_path).config[addition]
    other = UNet3DMultiConditionModel(**SMALL_UNET)
    assert not any(other.config[name] for name in SEQUENCE_ADDITIONS)
    load_sequence_parts(other, tmp_path / "unet3d", FINETUNED)
    assert [name for name in SEQUENCE_ADDITIONS if other.config[name]] == [addition]
    shutil.copytree(tmp_path / "unet3d", tmp_path / "a_unet")
    config = tmp_path / "a_unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {addition: False}))
    with pytest.raises(UserError, match=f"unet3d.*{addition}"):
        write_officially(tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2  # both as they were
    UNet3DMultiConditionModel(**SMALL_UNET).save_pretrained(tmp_path / "unet3d")
    write_officially(tmp_path)
    assert not SEQUENCE_ADDITIONS.keys() & json.loads((tmp_path / "unet3d/config.json").read_text()).keys()


class Refused:
    """Of checkpoints that must not load: how to make one, how it is loaded, what the error must say."""

    def wrong_stage_sd_for_trained(folder):
        stable_diffusion_unet(folder)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder, load_trained=True)

    def wrong_stage_sd_for_sequence(folder):
        stable_diffusion_unet(folder)
        return lambda: UNet3DMultiConditionModel.from_pretrained_2d(folder)

    def wrong_stage_sequence_for_image(folder):
        official(folder, "unet3d")
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def wrong_stage_sequence_for_inflation(folder):
        official(folder, "unet3d")
        return lambda: UNet3DMultiConditionModel.from_pretrained_2d(folder)

    def wrong_stage_image_for_sequence(folder):
        official(folder, "unet2d")
        return lambda: UNet3DMultiConditionModel.from_trained_3d(folder)

    def no_classes(folder):
        stable_diffusion_unet(folder)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def wrong_class_count(folder):
        official(folder, "unet2d")
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder, num_class_embeds=5)

    def wrong_class_count_of_a_sequence_model(folder):
        official(folder, "unet3d")
        return lambda: UNet3DMultiConditionModel.from_trained_3d(folder, num_class_embeds=2)

    def wrong_shapes(folder):
        official(folder, "unet2d", cross_attention_dim=512)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def another_architecture(folder):
        official(folder, "unet2d", use_linear_projection=True)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def missing_tensors(folder):
        weights = official_weights("unet2d")
        del weights["conv_in.weight"]
        write(folder, unet_config("UNet2DMultiConditionModel"), weights)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def unknown_tensors(folder):
        write(folder, unet_config("X"), {**official_weights("unet2d"), "adapter.weight": torch.ones(1)})
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def no_config(folder):
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder, "unet")

    def no_weights(folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return lambda: load_vae(folder)

    def a_unet_for_a_vae(folder):
        official(folder, "unet2d")
        return lambda: load_vae(folder)

    def damaged_config(folder):
        official(folder, "unet2d")
        (folder / "config.json").write_text('{"sample_size": ')
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def truncated_safetensors(folder):
        file = official(folder, "unet2d") / "diffusion_pytorch_model.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def truncated_bin(folder):
        file = official(folder, "unet2d", binary=True) / "diffusion_pytorch_model.bin"
        os.truncate(file, file.stat().st_size // 2)
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)

    def a_list(folder):
        official(folder, "unet2d", binary=True)
        torch.save([torch.ones(1)], folder / "diffusion_pytorch_model.bin")
        return lambda: UNet2DMultiConditionModel.from_pretrained_2d(folder)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("wrong_stage_sd_for_trained", "Stable Diffusion UNet.*Run LDM_train.sh"),
        ("wrong_stage_sd_for_sequence", "Stable Diffusion UNet.*Run LDM_train.sh"),
        ("wrong_stage_sequence_for_image", "is a sequence UNet.*LDM"),
        ("wrong_stage_sequence_for_inflation", "is a sequence UNet already.*from_trained_3d"),
        ("wrong_stage_image_for_sequence", "is an image UNet.*sequence_LDM_train.sh"),
        ("no_classes", "num_class_embeds"),
        ("wrong_class_count", "3 classes, not 5.*num_class_embeds"),
        ("wrong_class_count_of_a_sequence_model", "3 classes, not 2"),
        ("wrong_shapes", r"another shape.*\(.*\).*Mend config.json"),
        ("another_architecture", "use_linear_projection"),
        ("missing_tensors", "lacks 1 of the model's tensors: conv_in"),
        ("unknown_tensors", "holds 1 tensors that the model lacks: adapter"),
        ("no_config", "is not a model folder"),
        ("no_weights", "holds no weights"),
        ("a_unet_for_a_vae", "is not a VAE"),
        ("damaged_config", "config.json"),
        ("truncated_safetensors", "cannot be loaded safely.*again"),
        ("truncated_bin", "cannot be loaded safely.*again"),
        ("a_list", "not a dictionary of tensors"),
    ],
)
def test_refused(tmp_path, case, message):
    load = getattr(Refused, case)(tmp_path / "folder")
    with pytest.raises(UserError, match=message) as caught:
        load()
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


class Payload:
    """What an attacker would put into a .bin."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_bin_that_would_run_code_is_refused(tmp_path, save):
    folder, marker = official(tmp_path / "unet", "unet2d", binary=True), tmp_path / "ran"
    save({"conv_in.weight": Payload(marker)}, folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded safely"):
        UNet2DMultiConditionModel.from_pretrained_2d(folder)
    assert not marker.exists()


def test_options_that_ask_for_nothing_are_not_warned_of(tmp_path, caplog):
    stable_diffusion_unet(tmp_path / "unet")
    UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, subfolder="unet", num_class_embeds=3)
    assert "will be ignored" not in caplog.text
    path = tmp_path / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dropout": 0.5}))
    UNet2DMultiConditionModel.from_pretrained_2d(tmp_path, subfolder="unet", num_class_embeds=3)
    assert "'dropout': 0.5" in caplog.text and "time_embedding_type" not in caplog.text
