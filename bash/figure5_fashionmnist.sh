#!/usr/bin/env bash
# Figure 5 of LCMat on fashionmnist: continual learning with memory replay.
# Source, settings and running time: configs/figure5_fashionmnist.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid figure5_fashionmnist "$@"
