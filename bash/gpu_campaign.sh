#!/usr/bin/env bash
# The experiments on why LCMat works in its tables, for a GPU that is free for a few minutes: several processes at once share
# the runs of each grid, and start none that would probably not end in time. The same command goes on where it was left.
#   bash bash/gpu_campaign.sh --time_limit 9m --pretrained FILE [--processes N] [--grids "why_cifar10 gpu_cifar10"] [flags]
# Further flags go to every grid (--data_path DIR, --device cpu, --epochs 1 …). Records, subsets and tables go to result/why/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" requirements.txt
limit=9m processes=8 grids="why_cifar10 gpu_cifar10" pretrained="" flags=()
while [ $# -gt 0 ]; do
    case "$1" in
        --time_limit) limit=$2 && shift 2 ;;
        --processes) processes=$2 && shift 2 ;;
        --grids) grids=$2 && shift 2 ;;
        --pretrained) pretrained=$2 && shift 2 ;; # of why_cifar10; the other grids train networks of their own
        *) flags+=("$1") && shift ;;
    esac
done
if [[ " $grids " == *" why_cifar10 "* && -z "$pretrained" ]]; then
    echo "error: why_cifar10 needs a network: --pretrained FILE (or leave it out: --grids gpu_cifar10)" >&2
    exit 2
fi
seconds=$(PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c \
    'import sys; from lcmat.command_line.estimate import seconds_of; print(int(seconds_of(sys.argv[1])))' "$limit")
end=$(($(date +%s) + seconds))
logs=$(mktemp -d)

worker() { # all grids in their order, each with what is left of the time
    local name left own
    for name in $grids; do
        left=$((end - $(date +%s)))
        if [ "$left" -le 5 ]; then break; fi
        own=()
        if [ "$name" = why_cifar10 ]; then own=(--pretrained "$pretrained"); fi
        PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -m lcmat grid "$root/configs/$name.yaml" --time_limit "$left" --data_path "$root/data" \
            --save_path "$root/result/why" --cache_path "$root/cache" "${own[@]}" "${flags[@]}" || return 1
    done
}

for ((number = 0; number < processes; number++)); do worker >"$logs/$number.log" 2>&1 & done
failed=0
for job in $(jobs -p); do wait "$job" || failed=1; done
grep -h "left for want of time\|runs recorded" "$logs"/*.log | sort | uniq -c || true
if [ "$failed" -ne 0 ]; then tail -n 3 "$logs"/*.log >&2; fi
exit "$failed"
