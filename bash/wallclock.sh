#!/usr/bin/env bash
# Appendix D.2 of LCMat: seconds of pretraining and selection.
# Source, settings and running time: configs/wallclock.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid wallclock --save_path "$root/result/wallclock" "$@"
