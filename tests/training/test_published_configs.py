"""Published configs, and users' copies of them, are read as they are; what is wrong in them is one line."""

from __future__ import annotations

import re
from pathlib import Path

import published_files
import pytest
from omegaconf import OmegaConf

from cond2img.config import LDMConfig, VAEConfig
from cond2video.config import FINETUNED, SequenceConfig
from ctrlgenaug.errors import UserError
from ctrlgenaug.plain_data import read_json
from ctrlgenaug.training import published
from ctrlgenaug.training.cli import ROOT, read_config
from ctrlgenaug.training.config import default_config

SCHEMAS = {"vae": VAEConfig, "ldm": LDMConfig, "sequence_ldm": SequenceConfig}
STAGES = {"vae": "vae", "LDM": "ldm", "sequence-LDM": "sequence_ldm"}
BATCH = {"vae": 16, "ldm": 64, "sequence_ldm": 8}


def read(folder, stage, *overrides, **replaced):
    path = published_files.write(folder, stage, **replaced)
    return read_config(SCHEMAS[stage], str(path), overrides)


def test_a_file_with_every_published_field_is_read(tmp_path):
    vae, ldm, sequence = (read(tmp_path, stage) for stage in SCHEMAS)
    assert (vae.train_data_dir, vae.train_split) == ("MosMedData/MosMed_data", "train")
    assert (vae.test_data_dir, vae.test_split) == ("MosMedData/MosMed_data", "test")
    assert ldm.train_data_dir == "MosMedData/MosMed_data" and ldm.dataloader_num_workers == 0
    assert ldm.validation_data.class_labels == ["CT-0", "CT-234"]
    assert ldm.validation_data.names[0] == "MosMedData/MosMed_data/study_0004_slice01.png"
    assert (ldm.validation_data.num_inference_steps, ldm.validation_data.guidance_scale) == (200, 7.5)
    assert (ldm.condition_dropping.keep_all, ldm.condition_dropping.drop_image_prior) == (0.1, 0.5)
    assert sequence.pretrained_model_path == "pretrained_2d_model_MosMed" and sequence.num_frames == 8
    assert sequence.condition_dropping.drop_motion_field == 0.5
    assert sequence.trainable_modules == list(FINETUNED)
    for config in (vae, ldm, sequence):
        assert config.mixed_precision == "no" and config.learning_rate == 1e-4 and config.seed == 3407


def test_class_labels_may_be_integers(tmp_path):
    path = tmp_path / "MRNet.yaml"
    text = published_files.TEXTS["ldm"].replace("MosMed", "MRNet")
    path.write_text(text.replace('"CT-0"', "0").replace('"CT-234"', "1"))
    assert read_config(LDMConfig, str(path), []).validation_data.class_labels == ["0", "1"]


def test_the_two_drop_probabilities_stay_apart(tmp_path):
    config = read(tmp_path, "sequence_ldm", drop_each_cond_prob="drop_each_cond_prob: [0.2, 0.7]")
    dropping = config.condition_dropping
    assert (dropping.drop_probability("image_prior"), dropping.drop_probability("motion_field")) == (0.2, 0.7)


def test_published_fields_can_be_given_on_the_command_line(tmp_path):
    overrides = ["num_workers=3", "train_data.data_path=elsewhere", "train_data.keep_all_cond_prob=0.4"]
    config = read(tmp_path, "ldm", *overrides)
    assert (config.dataloader_num_workers, config.train_data_dir) == (3, "elsewhere")
    assert config.condition_dropping.keep_all == 0.4
    assert read(tmp_path, "ldm", "train_data_dir=mine").train_data_dir == "mine"


def test_a_field_without_effect_is_named_once(tmp_path, capsys):
    read(tmp_path, "ldm", "unet_config_path=b.json", unet_config_path="unet_config_path: a.json")
    assert capsys.readouterr().out.count("unet_config_path has no effect") == 1


@pytest.mark.parametrize(
    ("stage", "replaced", "message"),
    [
        ("vae", {"checkpointing_steps": "checkpointing_steps: xxx"}, r"checkpointing_steps is still xxx.*1000"),
        ("ldm", {"validation_steps": "validation_steps: xxx # set on your own"}, r"validation_steps is still xxx"),
        ("vae", {"learning_rate": "learning_rate: xxx"}, r"learning_rate is still xxx.*Write its value"),
        ("ldm", {"num_workers": "num_wokers: 8"}, "num_wokers.*num_workers"),
        ("ldm", {"keep_all_cond_prob": "keep_all_cond_prb: 0.1"}, "train_data.keep_all_cond_prob"),
        ("sequence_ldm", {"videos": "vidoes:"}, "validation_data.vidoes.*validation_data.videos"),
        ("ldm", {"width": "width: 512"}, "train_data.width is 512.*256"),
        ("ldm", {"image_encode": "image_encode: CLIP"}, "image_encode is CLIP.*MedSAM"),
        ("vae", {"data_json_path": 'data_json_path: "a/train.json"'}, "train_metadata.jsonl"),
        ("ldm", {"drop_each_cond_prob": "drop_each_cond_prob: [1, 2, 3]"}, "holds 3 numbers"),
        ("ldm", {"drop_each_cond_prob": "drop_each_cond_prob: [1.5]"}, "drop_image_prior must lie in"),
        ("ldm", {"keep_all_cond_prob": "keep_all_cond_prob: .nan"}, "keep_all must lie in"),
        ("sequence_ldm", {"num_inference_steps": "num_inference_steps: 0"}, "num_inference_steps must lie in"),
        ("sequence_ldm", {"guidance_scale": "guidance_scale: .inf"}, "guidance_scale must be finite"),
        ("sequence_ldm", {"video_length": "video_length: 1"}, "num_frames must be at least 2"),
        ("vae", {"learning_rate": "learning_rate: .nan"}, "learning_rate must be a finite number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(stage, replaced, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, stage, **replaced)
    assert "\n" not in str(caught.value)


def test_every_image_has_a_label(tmp_path):
    with pytest.raises(UserError, match="3 labels for 2 images"):
        read(tmp_path, "ldm", "validation_data.labels=[CT-0,CT-1,CT-1]")


# --- the files in configs/ -------------------------------------------------------------------------------------------

FILES = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if re.search(r"-(vae|LDM)$", path.stem))


def test_the_published_tree_is_there():
    names = ("MosMed", "MRNet", "ACDC", "Thyroid")
    wanted = {f"configs/compress_ratio_8_vae_config/{name}-vae.yaml" for name in names}
    wanted |= {f"configs/compress_ratio_8_sd_config/{name}-LDM.yaml" for name in names}
    wanted |= {f"configs/{name}-sequence-LDM.yaml" for name in names}
    assert {str(path.relative_to(ROOT)) for path in FILES} == wanted
    for file in ("training_config_ddp.yaml", "compress_ratio_8_vae_config/vae/config.json"):
        assert (ROOT / "configs" / file).is_file()
    assert default_config("TUSC", "LDM") == " configs/compress_ratio_8_sd_config/Thyroid-LDM.yaml"
    assert default_config("Mine", "LDM") == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_our_files_hold_every_published_field_with_its_value(path):
    stage = STAGES[path.stem.split("-", 1)[1]]
    config = read_config(SCHEMAS[stage], str(path), [])
    assert (config.train_batch_size, config.schedule_batch_size) == (BATCH[stage],) * 2
    assert (config.learning_rate, config.lr_scheduler, config.lr_warmup_steps) == (1e-4, "cosine", 500)
    assert (config.num_train_epochs, config.seed, config.max_grad_norm) == (200, 3407, 1.0)
    assert (config.adam_beta1, config.adam_beta2, config.adam_weight_decay) == (0.9, 0.999, 1e-2)
    assert config.adam_epsilon == 1e-8 and config.gradient_checkpointing and config.mixed_precision == "no"
    assert config.data_name == path.stem.split("-")[0].replace("Thyroid", "TUSC")
    if stage != "vae":
        assert config.validation_data.num_inference_steps == 200
        dropping = config.condition_dropping
        assert (dropping.keep_all, dropping.drop_all, dropping.drop_image_prior) == (0.1, 0.1, 0.5)
    published_fields = {name for name, _ in published._leaves(OmegaConf.create(published_files.TEXTS[stage]))}
    ours = {name for name, _ in published._leaves(OmegaConf.load(path))}
    assert published_fields <= ours


def test_the_json_configs_are_stable_diffusion_s_with_the_published_fields():
    folder = ROOT / "configs" / "compress_ratio_8_sd_config"
    unet = read_json(folder / "unet" / "config.json")
    assert unet["block_out_channels"] == [320, 640, 1280, 1280] and unet["cross_attention_dim"] == 768
    assert (
        unet["image_condition"] is True and unet["image_encode"] == "MedSAM" and unet["num_class_embeds"] == 3
    )
    assert unet["insert_strategy"] is None and len(unet["condition_insert_block"]) == 3
    assert read_json(folder / "scheduler" / "scheduler_config.json")["beta_end"] == 0.012
    assert read_json(folder / "text_encoder" / "config.json")["hidden_size"] == 768
    assert read_json(folder / "tokenizer" / "tokenizer_config.json")["model_max_length"] == 77
    assert Path(folder.parent / "compress_ratio_8_vae_config" / "vae").is_dir()
