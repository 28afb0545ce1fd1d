#!/usr/bin/env bash
# A part of Table 2 of LBCS on Fashion-MNIST: k = 1000 and 2000.
# Source, settings and running time: configs/lbcs_fashionmnist.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid lbcs_fashionmnist "$@"
