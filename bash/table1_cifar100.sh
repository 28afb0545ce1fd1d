#!/usr/bin/env bash
# Table 1 of LCMat, CIFAR-100: every method at six fractions. Meant for a GPU.
# Source, settings and running time: configs/table1_cifar100.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid table1_cifar100 "$@"
