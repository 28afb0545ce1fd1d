#!/usr/bin/env bash
# Why LCMat works in its tables: Fashion-MNIST, ResNet-18 and LeNet.
# Settings and running time: configs/why_fashionmnist.yaml. Killed, it goes on where it was; started several times at once, each run is
# done by one. Further flags go to main.py's parser and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
run_grid why_fashionmnist --save_path "$root/result/why" "$@"
