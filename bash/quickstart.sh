#!/usr/bin/env bash
# The whole pipeline on scikit-learn's digits, with no download: Uniform, LCMat-S, and LCMat-S with BatchNorm in training mode,
# a ResNet-10, three fractions, three seeds, a table and a figure in result/quickstart/. About two minutes on two CPU cores with
# AVX2: the training schedule is short for that.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
out="$root/result/quickstart"
for ((i = 1; i < $#; i++)); do # a --save_path of one's own holds for the figure, too
    if [ "${!i}" = --save_path ] || [ "${!i}" = -sp ]; then next=$((i + 1)) && out="${!next}"; fi
done
case "$out" in /*) ;; *) out="$PWD/$out" ;; esac
for words in "--selection LCMat-S Uniform" "--selection LCMat-S --signals_mode train"; do
    # shellcheck disable=SC2086
    "$python" "$root/main.py" --dataset digits --model ResNet10 $words --fraction 0.01 0.05 0.1 --seed 0 1 2 \
        --selection_epochs 5 --epochs 40 --batch 50 --lr 0.05 --test_interval 0 --resume --rho 0.1 \
        --data_path "$root/data" --cache_path "$root/cache" "$@" --save_path "$out"
done
cd "$root"
"$python" -m lcmat figures "$out" >/dev/null
echo
echo "Table:   ${out#"$root/"}/tables/accuracy.md (and .csv)"
echo "Figure:  ${out#"$root/"}/figures/digits-ResNet10.png (and .pdf)"
echo "Records: ${out#"$root/"}/digits-ResNet10/"
echo "Why LCMat-S differs so much by BatchNorm's mode: result/README.md, \"Why LCMat works in its tables and not in ours\""
