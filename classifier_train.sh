#!/usr/bin/env bash
# Trains a classifier on real clips, or on real and synthetic ones. The same command again continues where it stopped.
#
#   bash classifier_train.sh                                         I3D on MosMed's real clips
#   bash classifier_train.sh --classifier swin --paradigm joint --synthetic_dir MosMed_filtered
#   CUDA_VISIBLE_DEVICES=2 bash classifier_train.sh --seed 1         another seed on another GPU
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$(command -v python || command -v python3)} || {
    echo "error: no python was found. Activate the environment, or set PYTHON." >&2
    exit 2
}
exec "$python" "$ROOT/train_classifier.py" "$@"
