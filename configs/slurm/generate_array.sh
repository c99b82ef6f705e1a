#!/usr/bin/env bash
# Generation as a job array, without Ray: each task makes its share of the plan.
#
#   sbatch --array=1-16 configs/slurm/generate_array.sh --sequence_model_path sequence_model_MosMed --data_name MosMed
#
# A task that failed is submitted again by its number; SHARES says of how many it is one:
#
#   SHARES=16 sbatch --array=3 configs/slurm/generate_array.sh ...
#SBATCH --job-name=ctrlgenaug-generate
#SBATCH --gpus=1
set -euo pipefail
exec python generate.py "$@" --shard "slurm${SHARES:+/$SHARES}"
