#!/usr/bin/env bash
# Trains the sequence diffusion model on all GPUs given, or on the CPU. The same command again continues where it stopped.
#
#   bash sequence_LDM_train.sh                                          MosMed
#   bash sequence_LDM_train.sh configs/ACDC-sequence-LDM.yaml train_batch_size=8   another data set; any field of docs/configuration.md
#   CUDA_VISIBLE_DEVICES=0,1 bash sequence_LDM_train.sh --dry_run       sizes, steps, a check of all files
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$ROOT/scripts/launch.sh"
launch train_sequence_LDM.py configs/MosMed-sequence-LDM.yaml "$@"
