# Sourced by vae_train.sh, LDM_train.sh and sequence_LDM_train.sh.
#
#   launch SCRIPT DEFAULT_CONFIG [CONFIG] [key=value ...] [--dry_run]
#
# Starts SCRIPT through `accelerate launch` on
#   CUDA_VISIBLE_DEVICES   where it is set; else on GPUs 0,1,2,3 where there are four, else on what there is, else on the CPU
#   NUM_PROCESSES          processes; default: one a GPU, one on the CPU
# with the Python that $PYTHON names, else the active one. Ports are chosen free, so two launches do not clash.
# Data paths stay relative to the folder it is started in.

LAUNCHER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/launch.py

launch() {
    local script=$1 config=$2 python gpus=0 devices processes
    shift 2
    if [ $# -gt 0 ] && [[ $1 != *=* && $1 != -* ]]; then
        config=$1
        shift
    fi
    python=${PYTHON:-$(command -v python || command -v python3)} || {
        echo "error: no python was found. Activate the environment, or set PYTHON." >&2
        exit 2
    }
    if [ -z "${CUDA_VISIBLE_DEVICES+set}" ] && command -v nvidia-smi >/dev/null; then
        gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
        ((gpus > 4)) && gpus=4
        devices=$(seq -s, 0 $((gpus - 1)))
        if ((gpus > 0)); then export CUDA_VISIBLE_DEVICES=${devices%,}; fi
    elif [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        devices=${CUDA_VISIBLE_DEVICES//[^,]/}
        gpus=$((${#devices} + 1))
    fi
    processes=${NUM_PROCESSES:-$((gpus > 0 ? gpus : 1))}

    local how=(--num_processes "$processes" --num_machines 1 --mixed_precision no --dynamo_backend no)
    if ((processes > 1)); then how+=(--multi_gpu --main_process_port 0); fi
    # accelerate would give one thread to each process on the CPU
    if ((gpus == 0)); then
        export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + processes - 1) / processes))}
    fi
    echo "accelerate launch ${how[*]} $script --config $config $*"
    # The launcher runs beside this shell, so that a SIGTERM (SLURM, kill) reaches the training, which saves and leaves.
    "$python" "$LAUNCHER" "${how[@]}" "$ROOT/$script" --config "$config" "$@" &
    local launcher=$! code=0
    trap 'stop_training "$launcher"' TERM INT
    wait "$launcher" || code=$?
    # a trapped signal ends `wait` early; the training is still saving
    while kill -0 "$launcher" 2>/dev/null; do wait "$launcher" || code=$?; done
    exit "$code"
}

# With one process the launcher would die of the signal without passing it on: its child gets it instead.
stop_training() {
    local children
    children=$(ps -o pid= --ppid "$1" 2>/dev/null || true)
    kill -TERM ${children:-$1} 2>/dev/null || true
}
