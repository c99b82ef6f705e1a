"""Where the parts of a sequence model may lie."""

import json

import pytest

from cond2video.model_folder import find_model_folder
from ctrlgenaug.errors import UserError


def make(folder, class_name="UNet3DMultiConditionModel"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"_class_name": class_name, "in_channels": 1, "out_channels": 1})
    )


@pytest.fixture
def image_model(tmp_path):
    for part in ("vae-pretrained", "text_encoder", "unet"):
        make(tmp_path / "image" / part, "AutoencoderKL")
    return tmp_path / "image"


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["checkpoint/unet3d", "unet3d", "checkpoint-9/unet3d"], "checkpoint/unet3d"),
        (["unet3d", "checkpoint-9/unet3d"], "unet3d"),
        (["checkpoint-9/unet3d", "checkpoint-10/unet3d", "checkpoint-tmp/unet3d"], "checkpoint-10/unet3d"),
        (["unet"], "unet"),
    ],
)
def test_the_published_layouts(tmp_path, image_model, folders, found):
    for folder in folders:
        make(tmp_path / "sequence" / folder)
    model = find_model_folder(tmp_path / "sequence", "MosMed", image_model_path=image_model)
    assert model.unet == tmp_path / "sequence" / found
    assert (model.vae, model.text_encoder) == (image_model / "vae-pretrained", image_model / "text_encoder")
    assert model.companions == image_model and set(model.fingerprints()) == {"unet", "vae", "text_encoder"}


def test_folders_that_are_none(tmp_path, image_model):
    with pytest.raises(UserError, match="holds no sequence UNet"):
        find_model_folder(image_model.parent, "MosMed", image_model_path=image_model)
    with pytest.raises(UserError, match="is not a folder"):
        find_model_folder(image_model, "MosMed", image_model_path=tmp_path / "none")
