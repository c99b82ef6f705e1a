#!/usr/bin/env bash
# reproduce.sh --phantoms: from drawn patients to the table of arms, each step by the script a user would call.
#
#   bash reproduce.sh --phantoms                        a rare class of 6 patients: hours on 2 cores
#   bash reproduce.sh --phantoms --quick                the same chain in minutes, too short to learn anything
#   bash reproduce.sh --phantoms --rare "6 12 30"       several sizes of the rare class, one after the other
#   bash reproduce.sh --phantoms --data_name ACDC       hearts, the rare class being infarction; MRNet: knees, torn
#                                                       ligaments; MosMed, the default: chests, CT-1
#   bash reproduce.sh --phantoms --generators "0 1 2"   several, of these seeds; the classifiers take them in turn
#   bash reproduce.sh --phantoms --no_base              a generator that never saw anything but the labelled clips
#   --seeds "0 1 2 3 4"   of the classifiers            --arms all         python -m augment.comparison.arms lists them
#   --wanted "20 60 20"   synthetic clips by class      --out FOLDER       (default: phantom_comparison[_quick][_ACDC])
#   --training_steps "40 240 160"   of the generator's VAE, LDM and sequence LDM
#
# FOLDER/rare_N/table.md and gains.png show the arms. The same command again continues.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

quick= rare= seeds= arms=all wanted= out= base=1 name=MosMed generators=3407 training_steps=
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1; shift ;;
        --no_base) base=; shift ;;
        --rare | --data_name | --generators | --seeds | --arms | --wanted | --training_steps | --out)
            [ -n "${2:-}" ] || { echo "error: $1 needs a value. See bash reproduce.sh --phantoms --help." >&2; exit 2; }
            case $1 in
                --rare) rare=$2 ;;
                --data_name) name=$2 ;;
                --generators) generators=$2 ;;
                --seeds) seeds=$2 ;;
                --arms) arms=$2 ;;
                --wanted) wanted=$2 ;;
                --training_steps) training_steps=$2 ;;
                --out) out=$2 ;;
            esac
            shift 2
            ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
        *) echo "error: unknown option $1. See bash reproduce.sh --phantoms --help." >&2; exit 2 ;;
    esac
done
case $name in
    MosMed) home=MosMedData common=(CT-0 CT-234) rare_class=CT-1 raw=(CT-0 CT-1 CT-3) ;;
    MRNet) home=MRNet common=(0) rare_class=1 raw=(0 1) ;;
    ACDC) home=ACDC common=(NOR DCM HCM RV) rare_class=MINF raw=(NOR MINF DCM HCM RV) ;;
    *) echo "error: no comparison on phantoms of $name. Choose MosMed, MRNet or ACDC." >&2; exit 2 ;;
esac
case $name in # patients of a raw class to draw, synthetic clips of a class, and those of --quick
    MosMed) slices=20,24 drawn=150 several=(20 60 20) few=(2 4 2) ;;
    MRNet) slices=16,30 drawn=150 several=(20 60) few=(2 4) ;;
    ACDC) slices=8,18 drawn=75 several=(20 60 20 20 20) few=(2 4 2 2 2) ;;
esac
# numbers OPTION VALUE LEAST MOST [COUNTS]: stops now, not in the step hours from here that would read VALUE.
numbers() {
    local number values
    read -ra values <<<"$2"
    [ -z "$2" ] || [[ " ${5:-${#values[@]}} " == *" ${#values[@]} "* ]] ||
        { echo "error: $1 needs ${5/ / or } numbers, got \"$2\"" >&2; exit 2; }
    for number in "${values[@]}"; do
        [[ $number =~ ^[0-9]{1,9}$ ]] && ((10#$number >= $3 && 10#$number <= $4)) ||
            { echo "error: $1 needs numbers from $3 to $4, got \"$number\"" >&2; exit 2; }
    done
}
numbers --rare "$rare" 1 $((drawn * 4 / 5)) # the drawn patients that the split leaves for training
numbers --generators "$generators" 0 999999999
numbers --seeds "$seeds" 0 999999999
numbers --wanted "$wanted" 0 999999999 "1 ${#several[@]}"
numbers --training_steps "$training_steps" 1 999999999 3
out=${out:-phantom_comparison${quick:+_quick}}
[ "$name" = MosMed ] || [ "$out" != "phantom_comparison${quick:+_quick}" ] || out=${out}_$name
source "$ROOT/scripts/environment.sh"
prepare_environment
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
# shellcheck disable=SC2086  # $arms is several words
"$PYTHON" -m augment.comparison.arms $arms >/dev/null

# What --quick makes smaller: two patients of the rare class, a generator of a few steps, some arms of a few steps.
trained="40 240 160" # after the miniature base model, which saw drawings without labels
[ -n "$base" ] || trained="400 1500 400"
if [ -n "$quick" ]; then
    patients=12 others=6 rare=${rare:-2} seeds=${seeds:-0 1} wanted=${wanted:-${few[*]}} inference_steps=2 steps=12 filter_steps=20
    trained="4 4 2"
    [ "$arms" != all ] || arms="focal joint joint_semantic joint_filtered joint_filtered_best_rival real_x2"
else
    patients=$drawn others=30 rare=${rare:-6} seeds=${seeds:-0 1 2 3 4} wanted=${wanted:-${several[*]}}
    inference_steps=12 steps=300 filter_steps=300
fi
read -r vae_steps ldm_steps sequence_steps <<<"${training_steps:-$trained}"
vae=(max_train_steps=$vae_steps) ldm=(max_train_steps=$ldm_steps balance_classes=true)
sequence=(max_train_steps=$sequence_steps balance_classes=true)
[ -z "$quick" ] || sequence+=(steering_samples=2)
if [ -z "$base" ]; then
    random=weights/stable-diffusion
    vae+=(pretrained_model_path=$random/vae latent_noise=0 fit_scaling_factor=true learning_rate=2e-3)
    ldm+=(pretrained_model_path=$random prediction_type=v_prediction)
    ldm+=(condition_dropping.keep_all=0.9 condition_dropping.drop_all=0.1)
    sequence+=(sequence_parts=null)
fi
mkdir -p "$out"
cd "$out"

# step TITLE COMMAND...: says what it does, and on failure what to do.
step() {
    local title=$1
    shift
    printf '\n== %s ==\n' "$title"
    "$@" || { printf '\nerror: the step "%s" failed, see above. The same command again continues here.\n' "$title" >&2; exit 1; }
}
within() { (cd "$1" && "${@:2}"); }

# generator FOLDER SEED: from the patients in FOLDER/HOME to FOLDER's model and synthetic clips.
generator() {
    local seed=seed=$2
    # shellcheck disable=SC2086  # $wanted is several numbers
    step "image priors" within "$1" "$PYTHON" "$ROOT/extract_image_priors.py" --data_dir "$home/${name}_data" \
        --medsam_checkpoint "$PWD/weights/medsam" --dtype float16
    step "motion fields" within "$1" "$PYTHON" "$ROOT/extract_motion_field_trajs.py" \
        --clip_data_dir "$home/${name}_volume" --adjacent_reference --fill_blocks
    ln -sfn "$PWD/weights" "$1/weights" # where the configs look for it
    step "VAE" within "$1" bash "$ROOT/vae_train.sh" "$ROOT/configs/demo/vae.yaml" "data_name=$name" "$seed" "${vae[@]}"
    step "LDM" within "$1" bash "$ROOT/LDM_train.sh" "$ROOT/configs/demo/ldm.yaml" "data_name=$name" "$seed" "${ldm[@]}"
    step "sequence LDM" within "$1" bash "$ROOT/sequence_LDM_train.sh" "$ROOT/configs/demo/sequence_ldm.yaml" \
        "data_name=$name" "$seed" "${sequence[@]}"
    step "synthetic clips" within "$1" "$PYTHON" "$ROOT/generate.py" --data_name "$name" --sequence_model_path "$model" \
        --user_defined_conditions image motion --predifined_sampled_num $wanted --noise own --scheduler unipc \
        --num_inference_steps "$inference_steps" --timestep_spacing trailing --guidance_scale 5 --class_contrast 1 \
        --contrast_with nearest --guidance_interval 500 999
    step "VAE-Seq" within "$1" "$PYTHON" "$ROOT/VAE-Seq.py" --vae_path "$model" --synthetic_dir "$model/cond_im_synthesis_mp4"
}

# filtered FOLDER PATIENTS: what the noise filter keeps of FOLDER's clips, with a classifier of the real ones.
filtered() {
    local levels
    step "classifier of real clips, for the filter" "${one_thread[@]}" "$PYTHON" "$ROOT/train_classifier.py" \
        --data_name "$name" "${classifier[@]}" --steps "$filter_steps" --patients "$2" --class_weights --validation_fraction 0 \
        --seed 100 --output_dir "$1/filter_classifier"
    for levels in semantic "semantic within between"; do
        # shellcheck disable=SC2086
        step "noise filter: $levels" "$PYTHON" "$ROOT/noisy_data_filter.py" --data_name "$name" \
            --synthetic_dir "$1/$model/cond_im_synthesis_mp4" --save_base "$1/${levels// /_}" --vae_path "$1/$model" \
            --classifier_checkpoint "$1/filter_classifier/classifier.pth" --levels $levels --thresholds per_class \
            --keep_at_least 2 --device cpu
    done
}

# compare NUMBER: generators of NUMBER patients of the rare class, the filter, and the arms.
compare() {
    local seed made patients
    local synthetic=() semantic=() both=()
    patients=$(printf "%s=$others," "${common[@]}")$rare_class=$1
    for seed in $generators; do
        made=rare_$1/generator_$seed
        mkdir -p "$made"
        step "the generator's patients: $patients" "$PYTHON" -m augment.comparison.few_patients --data_name "$name" \
            --patients "$patients" --out "$made/$home"
        generator "$made" "$seed"
        filtered "$made" "$patients"
        synthetic+=("$made/$model/cond_im_synthesis_mp4") semantic+=("$made/semantic") both+=("$made/semantic_within_between")
    done
    step "arms" "${one_thread[@]}" "$PYTHON" -m augment.comparison "$name" "${classifier[@]/#--classifier/--classifiers}" \
        --steps "$steps" --patients "$patients" --seeds "$seeds" --arms "$arms" --output "rare_$1" \
        --synthetic "${synthetic[@]}" --semantic "${semantic[@]}" --filtered "${both[@]}"
}

mkdir -p $home
counts=$(printf "%s=$patients," "${raw[@]}") in_plane=()
[ "$name" != MosMed ] || in_plane=(--in_plane 256)
step "phantom patients" "$PYTHON" -m ctrlgenaug.phantom --data_name "$name" "${in_plane[@]}" --slices $slices --seed 11 \
    --class_counts "${counts%,}" --out $home
step "slices" within $home "$PYTHON" "$ROOT/$home/extract_all_slices.py" "${in_plane[@]}"
step "clips" within $home "$PYTHON" "$ROOT/$home/sample_sequences.py" --max_clips 1
step "stand-in weights" "$PYTHON" -m augment.demo.weights --out weights --random

model=sequence_model_$name
classifier=(--classifier tiny --input_size 32 --device cpu)
one_thread=(env OMP_NUM_THREADS=1) # sums in another order round differently, and runs are compared across machines
for number in $rare; do
    compare "$number"
done
for number in $rare; do
    echo "rare class of $number patients: $PWD/rare_$number/table.md"
done
