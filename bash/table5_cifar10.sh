#!/usr/bin/env bash
# Table 5 of LCMat: other networks on condensed CIFAR-10. Meant for a GPU.
# Source and settings: configs/table5_cifar10.yaml. A run that was stopped goes on where it was; runs already recorded are skipped.
# Further flags go to main.py and win; --plan only says what is to be done.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
exec "$python" "$root/main.py" --config "$root/configs/table5_cifar10.yaml" \
    --data_path "$root/data" --save_path "$root/result" --cache_path "$root/cache" "$@"
