"""Select a subset of a dataset or condense it, train a fresh network on that, record the test accuracy.

python main.py --dataset digits --selection LCMat-S Uniform --fraction 0.01 0.1 --epochs 60 --seed 0 1 2
python main.py --dataset digits --image_size 16 --selection DM --model ConvNet3 --ipc 10
python main.py --dataset CIFAR10 --data_path data --selection LCMat-S --fraction 0.01 --seed 0
python main.py --help
"""

import argparse
import sys

from lcmat.command_line import options, program, repeated


def main(argv: list[str]) -> int:
    """Run the main job once for every method, fraction, seed and network that the command line names."""
    program.warn_in_one_line()
    args = options.parse(argv)
    if args.plan:
        return repeated.said(["main.py", *argv], lambda: _run(args))
    return _run(args)


def _run(args: argparse.Namespace) -> int:
    with program.importing():  # it takes seconds, for which --help and a wrong flag do not wait
        from lcmat.commands import _main
    return _main.run(args)


if __name__ == "__main__":
    sys.exit(program.run_command_line(main))
