#!/usr/bin/env bash
# The whole pipeline on scikit-learn's digits, with no download: two methods, four fractions, three seeds, a table and a
# figure in result/quickstart/. Under four minutes on two CPU cores; the training schedule is short for that.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
out="$root/result/quickstart"
for ((i = 1; i < $#; i++)); do # a --save_path of one's own holds for the figure, too
    if [ "${!i}" = --save_path ] || [ "${!i}" = -sp ]; then next=$((i + 1)) && out="${!next}"; fi
done
case "$out" in /*) ;; *) out="$PWD/$out" ;; esac
"$python" "$root/main.py" --dataset digits --model ResNet18 --selection LCMat-S Uniform --fraction 0.01 0.02 0.05 0.1 \
    --seed 0 1 2 --selection_epochs 5 --epochs 40 --batch 50 --lr 0.05 --test_interval 0 --resume --rho 0.1 \
    --data_path "$root/data" --cache_path "$root/cache" "$@" --save_path "$out"
cd "$root"
"$python" -m lcmat figures "$out" >/dev/null
echo
echo "Table:   ${out#"$root/"}/tables/accuracy.md (and .csv)"
echo "Figure:  ${out#"$root/"}/figures/digits-ResNet18.png (and .pdf)"
echo "Records: ${out#"$root/"}/digits-ResNet18/"
