#!/usr/bin/env bash
# Table 2 of LCMat on digits: four networks on the same subsets, a short schedule.
# Source, settings and running time: configs/table2_digits.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid table2_digits "$@"
