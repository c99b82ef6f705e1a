#!/usr/bin/env bash
# Trains the image diffusion model on all GPUs given, or on the CPU. The same command again continues where it stopped.
#
#   bash LDM_train.sh                                          MosMed
#   bash LDM_train.sh configs/compress_ratio_8_sd_config/ACDC-LDM.yaml train_batch_size=8   another data set; any field of docs/configuration.md
#   CUDA_VISIBLE_DEVICES=0,1 bash LDM_train.sh --dry_run       sizes, steps, a check of all files
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$ROOT/scripts/launch.sh"
launch train_LDM.py configs/compress_ratio_8_sd_config/MosMed-LDM.yaml "$@"
