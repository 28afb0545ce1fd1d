#!/usr/bin/env bash
# Methods of 2024 to 2026 on Fashion-MNIST.
# Source, settings and running time: configs/methods2_fashionmnist.yaml. Killed, it goes on where it was; started several times at once,
# each run is done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid methods2_fashionmnist --save_path "$root/result/methods2" "$@"
