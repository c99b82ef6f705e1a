#!/usr/bin/env bash
# What few training clips cost, and what helps: a classifier on 18, 51 and 216 phantom clips, three seeds each.
#
#   bash benchmarks/small_data.sh [OUT]        about 15 minutes on one core; OUT is small_data_run by default
#
# Every run takes the same number of steps (500 of 8 clips), so that only the clips differ. SEEDS="0 1 2" by default.
# The same command again continues. Ends with one line a setting: mean and deviation over the seeds.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit ;; esac
python=${PYTHON:-$(command -v python || command -v python3)}
mkdir -p "${1:-small_data_run}/MosMedData"
cd "${1:-small_data_run}"

"$python" -m ctrlgenaug.phantom --data_name MosMed --class_counts CT-0=90,CT-1=90,CT-3=90 --in_plane 256 --slices 20,24 --out MosMedData
(cd MosMedData && "$python" "$ROOT/MosMedData/extract_all_slices.py" --in_plane 256)
(cd MosMedData && "$python" "$ROOT/MosMedData/sample_sequences.py" --max_clips 1)

# run NAME PATIENTS [FLAGS...]: classifiers on PATIENTS of each class.
run() {
    local name=$1 patients=$2 seed
    shift 2
    for seed in ${SEEDS:-0 1 2}; do
        "$python" "$ROOT/train_classifier.py" --classifier tiny --input_size 64 --validation_fraction 0 --patience 0 \
            --patients "CT-0=$patients,CT-1=$patients,CT-234=$patients" --steps 500 --seed "$seed" --output_dir "runs/$name/seed_$seed" "$@"
    done
}

for patients in 6 17 72; do
    run "$((3 * patients)) clips, augmentation" "$patients"
    run "$((3 * patients)) clips, no augmentation" "$patients" --no_augmentation
done

"$python" - <<'END'
import json
from pathlib import Path
from statistics import mean, pstdev

print("| setting | accuracy, % | macro F1, % | seeds |\n|---|---|---|---|")
for folder in sorted(Path("runs").iterdir(), key=lambda path: (int(path.name.split()[0]), path.name)):
    figures = [json.loads(path.read_text())["test"]["clip"] for path in sorted(folder.glob("seed_*/metrics.json"))]
    row = [f"{100 * mean(x):.1f} ± {100 * pstdev(x):.1f}" for x in ([f[k] for f in figures] for k in ("accuracy", "macro_f1"))]
    print(f"| {folder.name} | {' | '.join(row)} | {len(figures)} |")
END
