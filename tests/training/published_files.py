"""Configs as a user of the published code has them: every field of the published interface, none of ours."""

from __future__ import annotations

from pathlib import Path

ALL_STAGES = """\
data_name: "MosMed"
output_dir: "out"
learning_rate: 1e-4
scale_lr: False
lr_scheduler: "cosine"
lr_warmup_steps: 1
train_batch_size: 1
num_workers: 0
num_train_epochs: 1
checkpointing_steps: 2
validation_steps: 100
seed: 3407
gradient_accumulation_steps: 8
gradient_checkpointing: True
mixed_precision: null
max_grad_norm: 1.0
adam_beta1: 0.9
adam_beta2: 0.999
adam_weight_decay: 1e-2
adam_epsilon: 1e-08
resume_from_checkpoint: null
"""
VAE = """\
pretrained_model_path: "configs/compress_ratio_8_vae_config"
image_column: "file_name"
train_data:
  data_json_path: "MosMedData/MosMed_data/train_metadata.jsonl"
  width: 256
  height: 256
test_data:
  data_json_path: "MosMedData/MosMed_data/test_metadata.jsonl"
  width: 256
  height: 256
"""
LDM = """\
pretrained_model_path: "configs/compress_ratio_8_sd_config"
unet_config_path: null
caption_column: null
image_column: "file_name"
image_condition: True
image_encode: "MedSAM"
train_data:
  data_path: "MosMedData/MosMed_data"
  width: 256
  height: 256
  keep_all_cond_prob: 0.1
  drop_all_cond_prob: 0.1
  drop_each_cond_prob: [0.5]
validation_data:
  labels:
    - "CT-0"
    - "CT-234"
  images:
    - "MosMedData/MosMed_data/study_0004_slice01.png"
    - "MosMedData/MosMed_data/study_0001_slice03.png"
use_8bit_adam: False
enable_xformers_memory_efficient_attention: False
"""
SEQUENCE = """\
pretrained_2d_model_path: "pretrained_2d_model_MosMed"
caption_column: null
video_column: "file_name"
image_condition: True
motion_condition: True
image_encode: "MedSAM"
train_data:
  data_path: "MosMedData/MosMed_volume"
  width: 256
  height: 256
  keep_all_cond_prob: 0.1
  drop_all_cond_prob: 0.1
  drop_each_cond_prob: [0.5, 0.5]
validation_data:
  labels:
    - "CT-1"
  videos:
    - "MosMedData/MosMed_volume/study_0004_s01.avi"
  video_length: 8
  width: 256
  height: 256
  num_inference_steps: 200
  guidance_scale: 7.5
trainable_modules:
  - "attn1"
  - "motion_encoder"
  - "insert_unit"
  - "multi_modal_attn.attn2.to_q"
  - "multi_modal_attn.attn_condImage.to_q"
  - "norm_temp"
  - "attn_temp"
use_8bit_adam: False
enable_xformers_memory_efficient_attention: False
"""
TEXTS = {"vae": ALL_STAGES + VAE, "ldm": ALL_STAGES + LDM, "sequence_ldm": ALL_STAGES + SEQUENCE}


def write(folder: Path, stage: str, **replaced: str) -> Path:
    """The published file of ``stage`` in ``folder``, with lines of it replaced: ``seed="seed: 1"``."""
    lines = TEXTS[stage].splitlines()
    for field, line in replaced.items():
        number = next(n for n, text in enumerate(lines) if text.strip().startswith(f"{field}:"))
        lines[number] = lines[number][: len(lines[number]) - len(lines[number].lstrip())] + line
    path = folder / f"{stage}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
