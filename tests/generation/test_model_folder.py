"""Where the parts of a sequence model may lie."""

import json
from dataclasses import replace

import pytest

from augment.generation.generate_folder import Request, generate_folder
from cond2img.guidance import Guidance
from cond2img.sampling import Sampling
from cond2video.model_folder import find_model_folder
from ctrlgenaug import datasets
from ctrlgenaug.errors import UserError
from ctrlgenaug.noise_schedule import NoiseSchedule


def make(folder, class_name="UNet3DMultiConditionModel"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"_class_name": class_name, "in_channels": 1, "out_channels": 1})
    )
    return folder


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


def test_what_the_scheduler_config_alone_says_belongs_to_a_folder_of_clips(tmp_path, image_model):
    """The fingerprints tell weights and their configs; clips drawn with another noise schedule are others."""
    unet = make(tmp_path / "sequence" / "unet3d")
    model = find_model_folder(tmp_path / "sequence", "MosMed", image_model_path=image_model)
    assert model.schedule_settings() == {"prediction_type": None, "rescale_betas_zero_snr": None}
    before = model.fingerprints()
    NoiseSchedule("v_prediction", rescale_betas_zero_snr=True).write(image_model)
    assert model.schedule_settings() == {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    assert model.fingerprints() == before
    (unet / "config.json").write_text('{"prediction_type": "v_prediction"}')  # told by the fingerprints
    assert model.schedule_settings() == {"prediction_type": None, "rescale_betas_zero_snr": True}
    (unet / "config.json").write_text('{"prediction_type": "epsilon"}')
    with pytest.raises(UserError, match="says prediction_type v_prediction"):
        model.schedule_settings()


def test_folders_that_are_none(tmp_path, image_model):
    with pytest.raises(UserError, match="holds no sequence UNet"):
        find_model_folder(image_model.parent, "MosMed", image_model_path=image_model)
    with pytest.raises(UserError, match="is not a folder"):
        find_model_folder(image_model, "MosMed", image_model_path=tmp_path / "none")


def test_contrast_without_other_classes_is_refused_before_a_model_is_loaded():
    spec = replace(datasets.get("MosMed"), classes=("CT-0",))
    request = Request("nowhere", sampling=Sampling(guidance=Guidance(class_contrast=1)))
    with pytest.raises(UserError, match="class contrast needs other classes, the model has 1"):
        generate_folder([], spec, request)
