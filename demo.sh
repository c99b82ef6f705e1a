#!/usr/bin/env bash
# The whole method on generated patients, each step by the script a user would call. CPU or GPU.
#
#   bash demo.sh                    nine minutes of 2 cores after installation
#   bash demo.sh --quick            the same chain with hardly any training, for a first look
#   bash demo.sh --data_name TUSC   another data set's phantoms: MosMed (default), MRNet, ACDC or TUSC
#   bash demo.sh --seed 1           other patients
#   bash demo.sh --out FOLDER       where everything goes (default: demo_run, demo_run_quick, demo_run_TUSC, ...)
#
# Ends with FOLDER/index.html: the run's report, and what each step made and took. The same command again continues.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

quick= seed=0 out= name=MosMed
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1; shift ;;
        --data_name | --seed | --out)
            [ -n "${2:-}" ] || { echo "error: $1 needs a value. See bash demo.sh --help." >&2; exit 2; }
            case $1 in --data_name) name=$2 ;; --seed) seed=$2 ;; --out) out=$2 ;; esac
            shift 2
            ;;
        -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit ;;
        *) echo "error: unknown option $1. See bash demo.sh --help." >&2; exit 2 ;;
    esac
done
case $name in
    MosMed) home=MosMedData cases=32 slices=20,24 ;;
    MRNet) home=MRNet cases=24 slices=16,30 ;;
    ACDC) home=ACDC cases=40 slices=8,18 ;;
    TUSC) home=TUSC cases=24 slices=20,40 ;;
    *) echo "error: no demo of the data set $name. Choose MosMed, MRNet, ACDC or TUSC." >&2; exit 2 ;;
esac
[[ $seed =~ ^[0-9]{1,10}$ ]] && ((10#$seed <= 4294967295)) ||
    { echo "error: --seed needs a whole number from 0 to 4294967295, got \"$seed\"." >&2; exit 2; }
out=${out:-demo_run${quick:+_quick}}
[ "$name" = MosMed ] || [ "$out" != "demo_run${quick:+_quick}" ] || out=${out}_$name

source "$ROOT/scripts/environment.sh"
prepare_environment

mkdir -p "$out/logs"
cd "$out"
# No step may try the network.
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
began=$EPOCHREALTIME
count=0

# seconds FROM TO: the difference of two $EPOCHREALTIME, to a tenth of a second.
seconds() { local tenths=$(((${2//[.,]/} - ${1//[.,]/}) / 100000)); echo "$((tenths / 10)).$((tenths % 10))"; }

# step TITLE FOLDER COMMAND...: runs COMMAND in FOLDER, keeps what it prints in logs/, notes its time and its last line.
step() {
    local title=$1 folder=$2 log start
    shift 2
    count=$((count + 1))
    log=$(printf '%s/logs/%02d-%s.log' "$PWD" "$count" "${title// /-}")
    printf '\n== %s ==\n   %s\n' "$title" "${*//"$ROOT"\//}"
    start=$EPOCHREALTIME
    if ! (cd "$folder" && "$@") | tee "$log"; then
        printf '\nerror: the step "%s" failed, see above. The same command again continues here.\n' "$title" >&2
        exit 1
    fi
    [ $count -gt 1 ] || : >steps.tsv # not before: the first step refuses a folder of other settings, which stays as it is
    printf '%s\t%s\t%s\t%s\n' "$title" "$(seconds "$start" "$EPOCHREALTIME")" \
        "$(grep -v -e '^[[:space:]]*$' -e '^next: ' "$log" | tail -n 1 | tr '\t\r' '  ')" \
        "${*//"$ROOT"\//}" >>steps.tsv
}

# What --quick makes smaller. The full sizes are configs/demo's own.
if [ -n "$quick" ]; then
    samples=1 inference_steps=8 classifier_epochs=6
    vae=(max_train_steps=4) ldm=(max_train_steps=8) sequence=(max_train_steps=4 steering_samples=2)
else
    samples=6 inference_steps=12 classifier_epochs=100
    vae=() ldm=() sequence=()
fi
# How clips are drawn, by measurement (docs/steering.md): guidance and class contrast at the noisier half of the steps. The
# common noise of a clip's frames is for what moves.
correlation=0
moving=()
case $name in
    ACDC) moving=(--movement 4) correlation=0.5 ;; # a patient who breathes between the slices
    TUSC) correlation=0.8 ;; # films
esac
sampling=(--scheduler unipc --num_inference_steps $inference_steps --timestep_spacing trailing --guidance_scale 5
    --class_contrast 1 --guidance_interval 500 999 --noise_correlation $correlation --dtype bfloat16)
model=sequence_model_$name
synthetic=$model/cond_im_synthesis_mp4
filtered=${name}_synthetic_filtered
clips=$home/$("$PYTHON" -c "from ctrlgenaug import datasets as d; print(d.get('$name').clips_dir)")
of_set=(data_name="$name")
[ "$name" != TUSC ] || of_set+=(caption_column=text) synthetic=$model/cond_imt_synthesis_mp4 # image, motion, text

# The steps that read the raw data, as docs/data.md has them.
prepare() {
    case $name in
        TUSC)
            step "frames" $home "$PYTHON" "$ROOT/TUSC/extract_all_images.py"
            step "consecutive frames" $home "$PYTHON" "$ROOT/TUSC/save_all_consecutive_images.py"
            step "clips" $home "$PYTHON" "$ROOT/TUSC/sample_videos.py" --max_clips 1
            step "texts" $home "$PYTHON" "$ROOT/TUSC/extract_all_texts.py"
            ;;
        *)
            step "slices" $home "$PYTHON" "$ROOT/$home/extract_all_slices.py"
            step "clips" $home "$PYTHON" "$ROOT/$home/sample_sequences.py" --max_clips 1
            ;;
    esac
}

mkdir -p $home
step "phantom patients" . "$PYTHON" -m ctrlgenaug.phantom --data_name "$name" --cases $cases --balance --slices $slices "${moving[@]}" \
    --seed "$seed" --out $home
step "stand-in weights" . "$PYTHON" -m augment.demo.weights --out weights
prepare
step "image priors" . "$PYTHON" "$ROOT/extract_image_priors.py" --data_dir "$home/${name}_data" --medsam_checkpoint weights/medsam --dtype float16
step "motion fields" . "$PYTHON" "$ROOT/extract_motion_field_trajs.py" --clip_data_dir "$clips" \
    --adjacent_reference --fill_blocks --visualize
step "VAE" . bash "$ROOT/vae_train.sh" "$ROOT/configs/demo/vae.yaml" data_name="$name" "${vae[@]}"
step "LDM" . bash "$ROOT/LDM_train.sh" "$ROOT/configs/demo/ldm.yaml" "${of_set[@]}" "${ldm[@]}"
step "sequence LDM" . bash "$ROOT/sequence_LDM_train.sh" "$ROOT/configs/demo/sequence_ldm.yaml" "${of_set[@]}" "${sequence[@]}"
step "classifier on real clips" . "$PYTHON" "$ROOT/train_classifier.py" --data_name "$name" --classifier tiny --input_size 64 \
    --epochs $classifier_epochs --patience 0 --output_dir runs/classifier --seed "$seed"
step "generation" . "$PYTHON" "$ROOT/generate.py" --data_name "$name" --sequence_model_path $model \
    --user_defined_conditions '["image_condition", "motion_condition"]' --predifined_sampled_num $samples \
    --noise own "${sampling[@]}"
step "VAE-Seq" . "$PYTHON" "$ROOT/VAE-Seq.py" --vae_path $model --synthetic_dir $synthetic
step "noise filter" . "$PYTHON" "$ROOT/noisy_data_filter.py" --synthetic_dir $synthetic --save_base $filtered \
    --vae_path $model --classifier_checkpoint runs/classifier/classifier.pth
step "classifier with synthetic clips" . "$PYTHON" "$ROOT/train_classifier.py" --data_name "$name" --classifier tiny \
    --input_size 64 --epochs $classifier_epochs --patience 0 --output_dir runs/classifier_with_synthetic --seed "$seed" \
    --paradigm joint --synthetic_dir $filtered
step "evaluation" . "$PYTHON" "$ROOT/evaluate.py" --real . --synthetic $synthetic --data_name "$name" \
    --classifier runs/classifier/classifier.pth --vae_path $model --output evaluation.json
step "pictures" . "$PYTHON" -m augment.demo.pictures --data_name "$name" --model $model --out pictures \
    "${sampling[@]}"
"$PYTHON" -m augment.demo.page --data_name "$name" --run . --seconds "$(seconds "$began" "$EPOCHREALTIME")"
