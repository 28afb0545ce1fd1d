"""Train other networks on subsets that one network selected (cross-architecture generalisation, LCMat Table 2).

python cross_network_generalization.py --dataset digits --selection LCMat-S Uniform --fraction 0.05 \
    --model ResNet18 --test_models VGG16 InceptionV3 WRN-16-8 --seed 0 1 2
python cross_network_generalization.py --dataset CIFAR10 --subset my_indices.txt --test_models ResNet18 VGG16

Subsets that earlier runs recorded are read again, others are made first. All flags of main.py hold.
"""

import sys

from lcmat.command_line import options, program

TEST_MODELS = ["VGG16", "InceptionV3", "WRN-16-8"]


def main(argv: list[str]) -> int:
    """Train every network named on every subset, record, and print and write the table."""
    program.warn_in_one_line()
    parser = options.build_parser("cross_network_generalization.py")
    parser.description = "Train other networks on subsets that one network selected, and record their test accuracies."
    group = parser.add_argument_group("other networks")
    group.add_argument("--test_models", nargs="+", metavar="NET", default=TEST_MODELS, help="networks to train")
    group.add_argument("--subset", metavar="FILE", help="indices to train on, .npz or text, in place of --selection")
    args = options.parse(argv, parser)
    with program.importing():  # it takes seconds, for which --help and a wrong flag do not wait
        from lcmat.commands import _cross_networks
    return _cross_networks.run(args)


if __name__ == "__main__":
    sys.exit(program.run_command_line(main))
