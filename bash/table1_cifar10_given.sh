#!/usr/bin/env bash
# The three smallest fractions of Table 1, CIFAR-10, with one given network: give --pretrained FILE (and --data_path DIR).
# Source, settings and running time: configs/table1_cifar10_given.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid table1_cifar10_given "$@"
