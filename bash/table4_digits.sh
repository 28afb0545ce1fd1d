#!/usr/bin/env bash
# Table 4 of LCMat (condensation) on digits: all methods, two of selection beside them, cut schedules.
# Source, settings and running time: configs/table4_digits.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid table4_digits "$@"
