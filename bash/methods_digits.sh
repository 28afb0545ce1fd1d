#!/usr/bin/env bash
# Every selection method on scikit-learn's digits at 1%, 5% and 10%, three seeds, a short schedule, into result/: about
# an hour on one or two CPU cores. A killed run goes on where it was; further flags are passed on (for fewer
# methods call main.py itself: the options below name Probabilistic, which must be among them).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
exec "$python" "$root/main.py" --dataset digits --model ResNet18 --selection all --fraction 0.01 0.05 0.1 --seed 0 1 2 \
    --selection_epochs 5 --epochs 40 --batch 50 --lr 0.05 --test_interval 0 --resume --rho 0.1 \
    --option Probabilistic.outer_steps=30 Probabilistic.inner_epochs=10 --trials 30 \
    --data_path "$root/data" --save_path "$root/result" --cache_path "$root/cache" "$@"
