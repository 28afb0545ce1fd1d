#!/usr/bin/env bash
# Table 2 of LBCS on SVHN: k = 1000 to 4000, ten seeds.
# Source, settings and running time: configs/lbcs_table2_svhn.yaml. Killed, it goes on where it was; started several times
# at once, each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid lbcs_table2_svhn "$@"
