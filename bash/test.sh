#!/usr/bin/env bash
# Lint, format check and all tests but the slow ones; further arguments go to pytest.
#   bash bash/test.sh              bash bash/test.sh -m slow              bash bash/test.sh -k lcmat
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt requirements-dev.txt
cd "$root"
"$python" -m ruff check .
"$python" -m ruff format --check .
# In up to four processes at once, of one thread each; -n 0 for one process, as a debugger needs.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal "$@"
