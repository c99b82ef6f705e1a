#!/usr/bin/env bash
# Runs one step of the pipeline on all nodes of a SLURM job, through Ray.
#
#   sbatch --nodes=4 --gpus-per-node=4 configs/slurm/ray_step.sh python generate.py ... --cluster auto
#   sbatch --nodes=2 configs/slurm/ray_step.sh python extract_motion_field_trajs.py --data_name MosMed --cluster auto
#
# Submit it in the folder that holds the project; all nodes must see it, the data and the model.
#SBATCH --job-name=ctrlgenaug
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch --nodes=N $0 python STEP.py ... --cluster auto" >&2; exit 2; }

cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):6379"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# The head node first, the others once it answers; --block keeps them until the job ends.
srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap \
    ray start --head --node-ip-address="${address%:*}" --port=6379 \
    --num-cpus="$cpus" --num-gpus="$gpus" --block &
until srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap ray health-check --address "$address"; do sleep 5; done
if [ "${#nodes[@]}" -gt 1 ]; then
    srun --nodes=$((${#nodes[@]} - 1)) --exclude="$head" --overlap \
        ray start --address="$address" --num-cpus="$cpus" --num-gpus="$gpus" --block &
    sleep 30
fi

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap "$@"
