# Sourced by the scripts of this folder. Sets $root (the project) and $python (an interpreter with the requirements).
# The virtual environment .venv is made when it is missing; requirements are installed when they are missing or changed.
# Usage: source environment.sh requirements.txt [requirements-dev.txt]
# LCMAT_PYTHON=/path/to/python in the environment: that interpreter, which has the requirements already; nothing is installed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python="$root/.venv/bin/python"

prepare_environment() {
    if [ -n "${LCMAT_PYTHON:-}" ]; then python="$LCMAT_PYTHON" && return 0; fi
    local stamp="$root/.venv/.installed" wanted candidate requirement arguments=()
    for requirement in "$@"; do arguments+=(-r "$root/$requirement"); done
    # Development tools are a superset: what was installed for the tests also serves the main job.
    wanted=$(cd "$root" && cat requirements.txt constraints.txt "$@" | cksum)
    if [ -x "$python" ] && [ -f "$stamp" ] && grep -qxF "$wanted" "$stamp"; then find_project && return 0; fi

    if [ -x "$python" ] && ! "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m ensurepip >/dev/null || { echo "error: $root/.venv has no pip; remove it" >&2; return 2; }
    fi
    if [ ! -x "$python" ]; then
        for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
            candidate=
        done
        if [ -z "$candidate" ]; then
            echo "error: Python 3.11 or newer is needed; install it, so that python3 runs it" >&2
            return 2
        fi
        echo "Making .venv with $("$candidate" --version) …" >&2
        "$candidate" -m venv --clear "$root/.venv" || return 2
    fi
    echo "Installing the requirements into .venv (once; minutes, and several GB for PyTorch) …" >&2
    "$python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}" -c "$root/constraints.txt" || return 2
    # The main job's requirements are part of every installation.
    { (cd "$root" && cat requirements.txt constraints.txt requirements.txt | cksum); echo "$wanted"; } >"$stamp"
    find_project
}

# Let .venv's Python find lcmat, methods and nets from any folder.
find_project() {
    local packages
    packages=$(echo "$root"/.venv/lib/python3.*/site-packages)
    if [ "$(cat "$packages/dataset_reduction.pth" 2>/dev/null)" != "$root" ]; then
        echo "$root" >"$packages/dataset_reduction.pth"
    fi
}

# run_grid NAME [flags]: run the grid configs/NAME.yaml, with data, results and caches in the project's folders.
run_grid() {
    local name=$1
    shift
    PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m lcmat grid "$root/configs/$name.yaml" \
        --data_path "$root/data" --save_path "$root/result" --cache_path "$root/cache" "$@"
}

prepare_environment "$@" || exit 2
