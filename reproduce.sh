#!/usr/bin/env bash
# Does it help? Classifiers with and without synthetic clips, beside every rival that one would try first.
#
#   bash reproduce.sh DATA [options]       on a data set: the paper's experiments. bash reproduce.sh MosMed --help
#   bash reproduce.sh --phantoms [options] on drawn patients, from the first slice to the table
#
#   bash reproduce.sh MosMed --classifiers "i3d slowfast" --synthetic sequence_model_MosMed/cond_im_synthesis_mp4 \
#       --filtered MosMed_filtered -- --class_weights --precision bf16
#   bash reproduce.sh --phantoms --quick   the whole chain in minutes, too short to learn anything
#
# Each training is a folder OUTPUT/{classifier}/{arm}/seed_{n}; started again, finished ones are kept and an unfinished
# one goes on. Ends with OUTPUT/table.md, table.json and gains.png. docs/small_data.md explains the arms.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

[ $# -gt 0 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
case $1 in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit ;;
    --phantoms) shift; exec bash "$ROOT/scripts/phantom_comparison.sh" "$@" ;;
esac
python=${PYTHON:-$(command -v python || command -v python3)} || {
    echo "error: no python was found. Activate the environment, or set PYTHON." >&2
    exit 2
}
arguments=()
for argument in "$@"; do # what follows -- are flags of train_classifier.py, which the command knows as its own
    [ "$argument" = -- ] || arguments+=("$argument")
done
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m augment.comparison "${arguments[@]}"
