#!/usr/bin/env bash
# Sets up the environment (see scripts/environment.sh) and runs the tests.
#
#   bash run_tests.sh                    style checks and the default tests, under 12 minutes on 2 cores
#   bash run_tests.sh --slow             the long ones too
#   bash run_tests.sh tests/models -k x  any pytest arguments
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$ROOT/scripts/environment.sh"
prepare_environment
cd "$ROOT"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# Two test processes with one thread each use two cores better than one process with two threads. Tests of a file stay
# together, because they share what is costly to make.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$PYTHON" -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile --durations=15 "$@"
