#!/usr/bin/env bash
# Table 3 of LCMat, TinyImageNet. Meant for a GPU.
# Source, settings and running time: configs/table3_tinyimagenet.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid table3_tinyimagenet "$@"
