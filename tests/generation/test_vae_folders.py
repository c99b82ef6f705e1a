"""One rule for where a VAE lies, for training, generation and scores."""

import pytest

from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import write_json
from ctrlgenaug.vae_folders import find_trained_vae, find_vae


def vae(folder, channels=1):
    write_json(folder / "config.json", {"_class_name": "AutoencoderKL", "in_channels": channels})
    return folder


def test_the_folder_itself_then_the_names_of_the_method(tmp_path):
    with pytest.raises(UserError, match="holds no VAE"):
        find_vae(tmp_path)
    write_json(tmp_path / "unet" / "config.json", {"_class_name": "UNet2DConditionModel", "in_channels": 4})
    with pytest.raises(UserError, match="holds no VAE"):
        find_vae(tmp_path / "unet")
    for name in ("vae", "vae-pretrained", "MosMed-vae-pretrained"):  # each goes before the ones before it
        found = vae(tmp_path / name)
        assert find_vae(tmp_path) == find_vae(None, tmp_path / "unet", tmp_path) == found
        assert find_vae(found) == found


def test_of_several_the_data_set_tells_which(tmp_path):
    own, _ = vae(tmp_path / "ACDC-vae-pretrained"), vae(tmp_path / "TUSC-vae-pretrained")
    assert find_vae(tmp_path, data_name="ACDC") == own
    with pytest.raises(UserError, match="several candidates: ACDC-vae-pretrained, TUSC-vae-pretrained"):
        find_vae(tmp_path)
    with pytest.raises(UserError, match="holds no VAE .MRNet-vae-pretrained"):  # never another data set's
        find_vae(tmp_path, data_name="MRNet")


def test_training_takes_no_colour_vae_and_no_other_than_the_given_one(tmp_path):
    vae(tmp_path / "stable-diffusion" / "vae", channels=3)
    own = vae(tmp_path / "model" / "MosMed-vae-pretrained")
    assert find_trained_vae("MosMed", None, tmp_path / "stable-diffusion", tmp_path / "model") == own
    with pytest.raises(UserError, match="stable-diffusion: holds no trained VAE"):
        find_trained_vae("MosMed", tmp_path / "stable-diffusion", tmp_path / "model")


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"in_channels": ')
    with pytest.raises(UserError, match=r"vae/config\.json"):
        find_vae(tmp_path)
