#!/bin/sh
# Trains the VAE on all GPUs given, or on the CPU. The same command again continues.
#
#   sh vae_train.sh                       MosMed
#   sh vae_train.sh CONFIG key=value ...  another config, e.g. configs/compress_ratio_8_vae_config/ACDC-vae.yaml;
#                                         any field of docs/configuration.md
#   sh vae_train.sh --dry_run             sizes, steps, memory and a check of all files
#
# CUDA_VISIBLE_DEVICES chooses the GPUs, NUM_PROCESSES the processes; NUM_MACHINES, MACHINE_RANK, MAIN_ADDRESS and
# MAIN_PORT, or SLURM's variables, join machines (docs/training.md).
#
# With the line ends of Windows every line below would end in garbage. The string is one line end: one character here.
case '
' in ?) ;; *) echo "error: $0 has the line ends of Windows. Convert it: dos2unix *.sh" >&2; exit 2 ;; esac #
set -eu
ROOT=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-$(command -v python || command -v python3 || true)}
if [ -z "$python" ]; then
    echo "error: no python was found. Activate the environment, or set PYTHON." >&2
    exit 2
fi
exec "$python" "$ROOT/scripts/launch.py" train_vae.py configs/compress_ratio_8_vae_config/MosMed-vae.yaml "$@"
