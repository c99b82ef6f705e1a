# Sourced by demo.sh and run_tests.sh: leaves $PYTHON pointing at a Python with the project and everything it needs.
#
#   default                  makes .venv beside this project on first use, reuses it afterwards
#   CTRLGENAUG_ENV=active    uses the virtual or conda environment that is active now, installing into it what is missing
#   CTRLGENAUG_PYTHON=...    the Python 3.11 to make .venv from, if it is not found as python3.11 or python3
#
# $ROOT must hold the repository root.

find_python() {
    local candidate
    for candidate in "${CTRLGENAUG_PYTHON:-}" python3.11 python3 python; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 was not found. Install it, or name it: CTRLGENAUG_PYTHON=/path/to/python3.11 bash $0" >&2
    return 1
}

prepare_environment() {
    local stamp wanted
    case ${CTRLGENAUG_ENV:-} in
        '' | active) ;;
        *) echo "error: CTRLGENAUG_ENV=$CTRLGENAUG_ENV is not known. Set it to active, or unset it." >&2; return 2 ;;
    esac
    if [ "${CTRLGENAUG_ENV:-}" = active ]; then
        PYTHON=$(command -v python) || { echo "error: no python is active. Activate an environment first." >&2; return 1; }
        stamp="$("$PYTHON" -c 'import sys; print(sys.prefix)')/.ctrlgenaug-installed"
    else
        if [ ! -x "$ROOT/.venv/bin/python" ]; then
            local base
            base=$(find_python) || return 1
            echo "making $ROOT/.venv with $base"
            "$base" -m venv "$ROOT/.venv" || return 1
        fi
        PYTHON="$ROOT/.venv/bin/python"
        stamp="$ROOT/.venv/.ctrlgenaug-installed"
    fi
    # The stamp is written last and holds what was installed: an interrupted or outdated installation is done again.
    wanted="$ROOT $(cksum <"$ROOT/pyproject.toml")"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing the project and its dependencies (about 6 GB, once; a few minutes)"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -e "$ROOT[test]" || {
            echo "error: the installation failed (see above). Check network and disk space, then run again." >&2
            return 1
        }
        echo "$wanted" >"$stamp"
    fi
    export PYTHON PATH="$(dirname "$PYTHON"):$PATH"
}
