"""Measure time and memory, and write result/benchmarks/*.md with the machine, versions and medians.

python -m lcmat benchmark [NAME …]: what is measured already, under the same setting, is kept.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lcmat.command_line import Parser
from lcmat.command_line.options import SWITCH
from lcmat.errors import UserError, lookup, shown
from lcmat.files import check_writable

# The greatest number that a flag takes here.
MOST = 10**9


def main(argv: list[str]) -> int:
    """Run the benchmarks named, or all."""
    # Here, since processes whose memory is measured come through this file, too.
    import torch

    from lcmat.commands.benchmark import condensing, selecting, sharding, training
    from lcmat.commands.benchmark.measuring import neighbour
    from lcmat.hardware import default_threads

    benchmarks = selecting.BENCHMARKS | training.BENCHMARKS | condensing.BENCHMARKS | sharding.BENCHMARKS
    args = _parsed(argv, list(benchmarks), selecting.SIZES, sharding.SIZES)
    torch.set_num_threads(args.threads or default_threads())
    folder = Path(args.save_path) / "benchmarks" / ("neighbour" if args.neighbour else "")
    check_writable(folder)
    chosen = dict.fromkeys(lookup("benchmark", name, benchmarks) for name in args.names or benchmarks)
    for name in chosen:
        if name in selecting.ON_REAL_SIGNALS and args.pretrained is None:
            if args.names:
                raise UserError(f"the benchmark {name} takes real signals: give --pretrained FILE and --data_path DIR")
            print(f"{name}: left out; it takes real signals: give --pretrained FILE and --data_path DIR")
            continue
        with neighbour(args.neighbour):
            print(f"{name}: {benchmarks[name](args, folder)}", flush=True)
    return 0


def _parsed(argv: list[str], names: list[str], sizes: Sequence[int], sharded: Sequence[int]) -> argparse.Namespace:
    """Return what a command line says; raise UserError for what cannot be."""
    parser = Parser(prog="python -m lcmat benchmark", allow_abbrev=False)
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"which of {', '.join(names)} (default: all)")
    add("--save_path", default="result", metavar="DIR", help="folder whose benchmarks/ is written")
    add("--runs", type=int, default=3, metavar="N", help="runs of each measurement; the median counts")
    add("--data_path", default="data", metavar="DIR", help="where CIFAR-10 is")
    add("--cache_path", default="cache", metavar="DIR", help="folder for signals and temporary files")
    add("--pretrained", metavar="FILE", help="state dict of a ResNet-18 for CIFAR-10: real signals come from it")
    add(
        "--whole", default=False, **SWITCH, help="imagenet: all classes; scale: a million; shards: ten millions (hours)"
    )
    add("--samples", type=int, default=50_000, metavar="N", help="selection: samples")
    add("--features", type=int, default=512, metavar="N", help="selection, shards: features of each")
    add("--classes", type=int, default=10, metavar="N", help="selection: classes")
    add("--fraction", type=float, default=0.1, metavar="X", help="selection: share to select")
    add("--methods", nargs="+", metavar="METHOD", help="selection, shards: which (selection: all on signals alone)")
    add("--sizes", nargs="+", type=int, default=sizes, metavar="N", help="scale: samples of the class")
    add("--shard_samples", nargs="+", type=int, default=sharded, metavar="N", help="shards: how many samples")
    add(
        "--images",
        type=int,
        default=50_000,
        metavar="N",
        help="signals: how many images; step, run, inner: in proportion",
    )
    add("--threads", type=int, metavar="N", help="the most CPU cores to use (default: those that the process may use)")
    add("--neighbour", default=False, **SWITCH, help="keep one core busy meanwhile; to benchmarks/neighbour/")
    add("--overwrite", default=False, **SWITCH, help="measure again what is measured")
    args = parser.parse_args(argv)
    for name in ("runs", "samples", "features", "classes", "images"):
        if not 1 <= getattr(args, name) <= MOST:
            raise UserError(f"--{name} must be at least 1 and at most {MOST:,}, not {shown(getattr(args, name))}")
    if args.pretrained is not None and not Path(args.pretrained).exists():
        raise UserError(f"no such file: {args.pretrained} (--pretrained)")
    if args.threads is not None and args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    return args
