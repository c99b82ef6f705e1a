#!/usr/bin/env bash
# Do synthetic clips help a rare class? From phantom patients to the table, each step by the script a user would call.
#
#   bash benchmarks/rare_class.sh [OUT]        an hour and a half on 2 busy cores; OUT is rare_class_run by default
#
# CT-1 (few faint patches, the class that is hard to tell from CT-0) has 6 training clips, the others 30 each. The test
# split has 18 patients of each class. Settings by environment:
#   KEEP="CT-0=30,CT-1=6,CT-234=30"   patients to learn from        WANTED="30 54 30"   synthetic clips of each class
#   SEEDS="0 1 2"                     of the classifiers            EPOCHS=60           of each classifier
#   NOISE=shared                      of generate.py        PARADIGMS="joint pretrain_finetune"   of reproduce.sh
#   LDM_STEPS=1500 VAE_STEPS=400 SEQUENCE_STEPS=200 INFERENCE_STEPS=20
# The same command again continues.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit ;; esac
python=${PYTHON:-$(command -v python || command -v python3)}
keep=${KEEP:-CT-0=30,CT-1=6,CT-234=30}
read -ra wanted <<<"${WANTED:-30 54 30}"
mkdir -p "${1:-rare_class_run}/MosMedData"
cd "${1:-rare_class_run}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
home=MosMedData model=sequence_model_MosMed synthetic=sequence_model_MosMed/cond_im_synthesis_mp4

"$python" -m ctrlgenaug.phantom --data_name MosMed --class_counts CT-0=90,CT-1=90,CT-3=90 --in_plane 256 --slices 20,24 --out $home
"$python" -m augment.demo.weights --out weights
(cd $home && "$python" "$ROOT/MosMedData/extract_all_slices.py" --in_plane 256)
(cd $home && "$python" "$ROOT/MosMedData/sample_sequences.py" --max_clips 1)
"$python" "$ROOT/benchmarks/thin.py" --data_name MosMed --keep "$keep"
"$python" "$ROOT/extract_image_priors.py" --data_dir $home/MosMed_data --medsam_checkpoint weights/medsam --dtype float16 --split train
"$python" "$ROOT/extract_motion_field_trajs.py" --clip_data_dir $home/MosMed_volume --split train

bash "$ROOT/vae_train.sh" "$ROOT/configs/demo/vae.yaml" max_train_steps="${VAE_STEPS:-400}"
bash "$ROOT/LDM_train.sh" "$ROOT/configs/demo/ldm.yaml" max_train_steps="${LDM_STEPS:-1500}" condition_dropping.keep_all=0.1
bash "$ROOT/sequence_LDM_train.sh" "$ROOT/configs/demo/sequence_ldm.yaml" max_train_steps="${SEQUENCE_STEPS:-200}" condition_dropping.keep_all=0.1

classifier=(--classifier tiny --input_size 64 --epochs "${EPOCHS:-60}" --patience 0 --class_weights)
"$python" "$ROOT/train_classifier.py" "${classifier[@]}" --validation_fraction 0 --seed 100 --output_dir runs/filter_classifier
"$python" "$ROOT/generate.py" --sequence_model_path $model --predifined_sampled_num "${wanted[@]}" \
    --scheduler unipc --num_inference_steps "${INFERENCE_STEPS:-20}" --guidance_scale 1 --noise "${NOISE:-shared}"
"$python" "$ROOT/VAE-Seq.py" --vae_path $model --synthetic_dir $synthetic
"$python" "$ROOT/noisy_data_filter.py" --synthetic_dir $synthetic --save_base MosMed_synthetic_filtered \
    --vae_path $model --classifier_checkpoint runs/filter_classifier/classifier.pth
"$python" "$ROOT/evaluate.py" --synthetic $synthetic --classifier runs/filter_classifier/classifier.pth \
    --data_name MosMed --metrics class_control --output runs/class_control.json
bash "$ROOT/reproduce.sh" MosMed --classifiers tiny --seeds "${SEEDS:-0 1 2}" \
    --paradigms "${PARADIGMS:-joint pretrain_finetune}" --synthetic $synthetic \
    --filtered MosMed_synthetic_filtered -- "${classifier[@]:2}"
