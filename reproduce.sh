#!/usr/bin/env bash
# Does it help? Baseline against joint against pretrain-finetune, with all synthetic clips and with the filtered ones.
#
#   bash reproduce.sh DATA [--classifiers "i3d swin"] [--seeds "0 1 2"] [--synthetic DIR] [--filtered DIR]
#                     [--paradigms "joint pretrain_finetune"] [--data_root DIR] [--output DIR]
#                     [-- further flags of train_classifier.py]
#
#   bash reproduce.sh MosMed --classifiers "i3d slowfast" --synthetic sequence_model_MosMed/cond_im_synthesis_mp4 \
#       --filtered MosMed_filtered -- --class_weights --precision bf16
#
# Only the settings whose folder is given are run. Each run is a folder OUTPUT/{classifier}/{setting}/seed_{n}; started
# again, finished runs are skipped and an unfinished one is continued. Ends with OUTPUT/table.md and table.json: mean and
# deviation over seeds, and the gain over the baseline of the same seed, in total and as the sensitivity for each class.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

[ $# -gt 0 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
case $1 in -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit ;; esac
data=$1 classifiers=i3d seeds="0 1 2" synthetic= filtered= data_root=. output= further=()
paradigms="joint pretrain_finetune"
shift
while [ $# -gt 0 ]; do
    case $1 in
        --classifiers) classifiers=${2:?--classifiers needs names}; shift 2 ;;
        --seeds) seeds=${2:?--seeds needs numbers}; shift 2 ;;
        --synthetic) synthetic=${2:?--synthetic needs a folder}; shift 2 ;;
        --filtered) filtered=${2:?--filtered needs a folder}; shift 2 ;;
        --paradigms) paradigms=${2:?--paradigms needs names}; shift 2 ;;
        --data_root) data_root=${2:?--data_root needs a folder}; shift 2 ;;
        --output) output=${2:?--output needs a folder}; shift 2 ;;
        --) shift; further=("$@"); break ;;
        *) echo "error: unknown option $1. See bash reproduce.sh --help." >&2; exit 2 ;;
    esac
done
output=${output:-reproduce_$data}
python=${PYTHON:-$(command -v python || command -v python3)} || {
    echo "error: no python was found. Activate the environment, or set PYTHON." >&2
    exit 2
}

# one CLASSIFIER SEED SETTING PARADIGM [FOLDER]
one() {
    local folder=$output/$1/$3/seed_$2
    echo "== $1, $3, seed $2 =="
    "$python" "$ROOT/train_classifier.py" --data_name "$data" --data_root "$data_root" --classifier "$1" --seed "$2" \
        --paradigm "$4" ${5:+--synthetic_dir "$5"} --output_dir "$folder" "${further[@]}"
}

for classifier in $classifiers; do
    for seed in $seeds; do
        one "$classifier" "$seed" baseline baseline
        for paradigm in $paradigms; do
            [ -z "$synthetic" ] || one "$classifier" "$seed" "$paradigm" "$paradigm" "$synthetic"
        done
        for paradigm in $paradigms; do
            [ -z "$filtered" ] || one "$classifier" "$seed" "${paradigm}_filtered" "$paradigm" "$filtered"
        done
    done
done
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$python" -m augment.classifiers.table "$output"
