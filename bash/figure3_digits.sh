#!/usr/bin/env bash
# Figure 3 of LCMat on digits: who wins over 24 differently pretrained networks.
# Source, settings and running time: configs/figure3_digits.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid figure3_digits --save_path "$root/result/figure3_digits" "$@"
