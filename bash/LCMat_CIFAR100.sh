#!/usr/bin/env bash
# LCMat-S and Uniform on CIFAR-100: those two rows of the paper's Table 1.
# Five seeds, each with a network f_T of its own: 10 epochs of pretraining, K = 100, ρ = 0.1 for every cell (the paper
# tunes ρ over 0.01, 0.05, 0.1, 0.5 for each; the released scripts use 0.02, here --rho 0.02 or --eps 0.01).
# Further flags go to main.py and win: bash bash/LCMat_CIFAR100.sh --fraction 0.01 --seed 0
# A run that was stopped goes on where it was; runs already recorded are skipped. Meant for a GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
exec "$python" "$root/main.py" --dataset CIFAR100 --model ResNet18 --selection LCMat-S Uniform \
    --fraction 0.005 0.01 0.05 0.1 0.2 0.3 --seed 0 1 2 3 4 \
    --selection_epochs 10 --epochs 200 --batch 128 --lr 0.1 --resume --rho 0.1 \
    --data_path "$root/data" --save_path "$root/result" --cache_path "$root/cache" "$@"
