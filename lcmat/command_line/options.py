"""The command line of the main job: its flags. What they mean: `settings`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from lcmat.command_line.listed import names
from lcmat.command_line.yaml_files import nearest, words_in
from lcmat.errors import UserError
from lcmat.memory_limit import parse_size


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line on stderr."""

    def error(self, message: str) -> None:
        """Raise UserError in place of printing the usage."""
        raise UserError(message)


def true_or_false(text: str) -> bool:
    """Parse the value of a switch."""
    values = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return values[text.lower()]


def size(text: str) -> int:
    """Parse a number of bytes, such as 4GB."""
    try:
        return parse_size(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Formatter(argparse.HelpFormatter):
    """One line for each flag, with its default unless that is nothing."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default in (None, False, [], argparse.SUPPRESS):
            return action.help
        several = isinstance(action.default, list)
        return f"{action.help} (default: {' '.join(map(str, action.default)) if several else '%(default)s'})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(f"{indent}{line}\n" for line in text.splitlines())  # lists of names keep their lines


class LastOf(argparse.Action):
    """Flags for one thing, of which the last one counts: flags win over a script's or a file's."""

    def __init__(self, *args: object, other: str, **options: object) -> None:
        super().__init__(*args, **options)
        self.others = other.split()

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, *_: object) -> None:
        """Keep the value and forget the other flags'."""
        setattr(namespace, self.dest, values)
        for other in self.others:
            setattr(namespace, other, None)


INT = {"type": int, "metavar": "N"}
FLOAT = {"type": float, "metavar": "X"}
SWITCH = {"type": true_or_false, "nargs": "?", "const": True, "metavar": "BOOL"}


MAIN, OF_MAIN_ALONE = "main.py", ("signals", "select_only", "export", "link")


def build_parser(program: str = MAIN) -> Parser:
    """Return the parser of main.py, its flags grouped by stage."""
    parser = Parser(
        prog=program,
        allow_abbrev=False,
        usage=f"python {program} [FLAG VALUE …]",
        description="Select a small subset of a dataset, train a fresh network on it, and record its test accuracy.",
        epilog=f"{names()}\nWhat each method needs and takes: python -m lcmat methods NAME\n\n"
        "Exit codes: 2 for bad input, 3 for what the disk or the memory refuses, 130 after Ctrl-C.",
        formatter_class=lambda prog: Formatter(prog, max_help_position=44, width=120),
    )
    _add_data(parser.add_argument_group("data"))
    _add_pretraining(parser.add_argument_group("the network that selects"))
    _add_selection(parser.add_argument_group("selection"))
    _add_condensation(parser.add_argument_group("condensation: LCMat-C, DC, DSA, DM, KIP, RandomReal"))
    _add_training(parser.add_argument_group("training on the subset"))
    _add_testing(parser.add_argument_group("testing"))
    _add_protocol(parser.add_argument_group("protocols"))
    _add_running(parser.add_argument_group("running"))
    _add_released(parser.add_argument_group("flags of the released code, kept so that its command lines run"))
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--dataset", default="CIFAR10", help="its name, below; ImageFolder, of --data_path; or hf:NAME_OR_PATH")
    add("--dataset_name", metavar="NAME", help="what to call data of your own in results (default: as their folder)")
    add("--data_path", default="data", metavar="DIR", help="folder of the data; looked in before downloading")
    add(
        "--signals",
        metavar="FILE",
        help="select from a .npz of features, logits and labels, or a folder of shards; write indices, no training",
    )
    add("--image_size", type=int, metavar="PIXELS", help="scale images to this (default: as they are)")
    add("--pixel_mean", nargs="+", **FLOAT, help="mean to scale pixels in [0, 1] by, of all channels or of each")
    add("--pixel_std", nargs="+", **FLOAT, help="standard deviation, likewise (default: the dataset's published ones)")
    add(
        "--augmentation",
        help="none, crop, crop_flip, dsa (Zhao & Bilen 2021), idc (Kim 2022) (default: the dataset's)",
    )
    add("--image_column", metavar="NAME", help="hf: the column of images (default: found)")
    add("--label_column", metavar="NAME", help="hf: the column of labels (default: found)")
    add("--train_split", metavar="NAME", help="hf: the split to select from (default: found)")
    add("--test_split", metavar="NAME", help="hf: the split to test on (default: found)")
    add("--config_name", metavar="NAME", help="hf: the configuration, of a dataset that has several")
    add("--label_noise", **FLOAT, help="share of the training labels that are made wrong, symmetrically")
    add("--file_order", metavar="ORDER", help="original: refuse data that do not stand as in their archive")
    add("--long_tail", **FLOAT, help="thin the training classes out exponentially, the last to 1/X of the first")
    add("--val", default=False, **SWITCH, help="hold out a validation split (the -Val methods always do)")
    add("--val_ratio", **FLOAT, default=0.2, help="its share of the training set, stratified")
    add("--workers", "-j", **INT, help="processes that read images too many for memory (default: up to 4)")


def _add_pretraining(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", default="ResNet18", help="network that selects, and is trained on the subset; names below")
    add("--inner_model", metavar="NET", help="network that LBCS and Probabilistic train inside (default: as --model)")
    add("--pretrained", metavar="FILE", help="state dict to use in place of pretraining, for all seeds")
    add("--selection_epochs", "-se", **INT, default=10, help="epochs of pretraining")
    add("--selection_batch", "-sb", **INT, help="batch size of pretraining (default: as --batch)")
    add("--selection_optimizer", "-so", default="SGD", help="SGD, Adam or AdamW")
    add("--selection_lr", "-slr", **FLOAT, default=0.1, help="learning rate, constant")
    add("--selection_momentum", "-sm", **FLOAT, default=0.9, help="momentum of SGD")
    add("--selection_nesterov", "-sn", default=True, **SWITCH, help="Nesterov momentum")
    add("--selection_weight_decay", "-swd", **FLOAT, default=5e-4, help="weight decay")
    add("--initialisations", **INT, default=10, help="GraNd, EL2N: networks whose scores are averaged")
    add("--initialisation_epochs", **INT, help="epochs of each of them (default: as --selection_epochs)")
    add("--selection_test_interval", "-sti", **INT, default=0, help="epochs between tests of it; 0: none")
    add("--selection_test_fraction", "-stf", **FLOAT, default=1.0, help="share of the test images for that")
    add("--signals_mode", metavar="MODE", help="eval, or train: BatchNorm by batches of one class (default: eval)")
    add(
        "--gradient_scale",
        metavar="SCALE",
        help="sample, or batch: gradients divided by --selection_batch (default: sample)",
    )


def _add_selection(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--selection", nargs="+", default=["LCMat-S"], metavar="METHOD", help="one or more methods, below, or all")
    add(
        "--fraction",
        action=LastOf,
        other="budget ipc",
        nargs="+",
        **FLOAT,
        help="shares of the training set (default: 0.1)",
    )
    add(
        "--budget",
        "--init_size",
        action=LastOf,
        other="fraction ipc",
        nargs="+",
        **INT,
        help="numbers of samples, in place of --fraction; to LBCS, where it starts",
    )
    add("--ipc", action=LastOf, other="fraction budget", nargs="+", **INT, help="so many images of each class")
    add("--balance", default=True, **SWITCH, help="select class by class; of LBCS, the start alone")
    add(
        "--quota",
        metavar="HOW",
        help="shares of classes: even, or recall, more of what is recalled less (default: even)",
    )
    _add_method_options(add)


def _add_method_options(add: Callable[..., argparse.Action]) -> None:
    add(
        "--rho",
        action=LastOf,
        other="eps",
        **FLOAT,
        help="LCMat: weight ρ of curvature beside gradients, 0: none (default: 0.1)",
    )
    add(
        "--K",
        type=int,
        metavar="K",
        help="LCMat-S: compare curvature in the K weights of the last layer where it varies most (default: 100)",
    )
    add("--weights", **SWITCH, help="weigh each pick by how many samples are nearest to it (default: by Craig alone)")
    add(
        "--greedy",
        metavar="HOW",
        help="facility location: exact (default), stochastic or partition, for classes beyond 100,000",
    )
    add(
        "--memory",
        type=size,
        metavar="SIZE",
        help="the most memory for distances between samples, as 4GB (default: a quarter of the free)",
    )
    add("--weights_by", metavar="WHAT", help="subset, or batch: what weights have mean 1 over (default: subset)")
    add("--numerics", metavar="WHOSE", help="paper, or released: all switches of methods/README.md (default: paper)")
    add("--select_only", default=False, **SWITCH, help="write the chosen indices, and train nothing on them")
    add("--export", metavar="DIR", help="copy the chosen images to this new folder; of one run")
    add("--link", default=False, **SWITCH, help="--export: link to image files in place of copying them")
    add("--tolerance", **FLOAT, help="LBCS: how much above the best loss is good enough, relative (default: 0.2)")
    add("--trials", **INT, help="LBCS: trainings (default: 500)")
    add("--init_selection", metavar="METHOD", help="LBCS: whose subset it starts from (default: Uniform)")
    add(
        "--option",
        nargs="+",
        default=[],
        metavar="NAME=X",
        help="an option that has no flag, of every method that has it, or METHOD.NAME=X of one: methods/README.md",
    )


def _add_condensation(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--factor", **INT, help="store N×N small images in each learned one, enlarged to train on (default: 1)")
    add("--backpack", **SWITCH, help="LCMat-C: gradient variance by BackPACK, not in closed form")
    add("--snapshots", **INT, default=10, help="synthetic images saved while they are learned; 0: none")


RECIPES = (
    "a published recipe in place of the flags below, but for those given; zhao: 1000 epochs, batch 256, lr 0.01, from "
    "the half on a tenth of it, augmentation dsa (Zhao & Bilen 2021); idc: 1000 epochs, batch 64, lr 0.01, a fifth of "
    "it at 2/3 and 5/6, CutMix (Kim 2022) (default: none; zhao for learned images)"
)


def _add_training(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--evaluation", metavar="RECIPE", help=RECIPES)
    add("--evaluations", **INT, default=1, help="networks trained for each seed")
    add("--epochs", **INT, default=200, help="epochs")
    add("--total_steps", **INT, help="optimiser steps, the schedule stretched over them, in place of --epochs")
    add("--batch", "-b", "--batch-size", **INT, default=128, help="batch size")
    add("--train_batch", "-tb", **INT, help="batch size here (default: as --batch)")
    add("--optimizer", default="SGD", help="SGD, Adam or AdamW")
    add("--lr", **FLOAT, default=0.1, help="learning rate at the start")
    add("--momentum", **FLOAT, default=0.9, help="momentum of SGD")
    add("--nesterov", default=True, **SWITCH, help="Nesterov momentum")
    add("--weight_decay", "-wd", **FLOAT, default=5e-4, help="weight decay")
    add("--scheduler", default="CosineAnnealingLR", help="CosineAnnealingLR, StepLR or constant")
    add("--min_lr", **FLOAT, default=1e-4, help="cosine: learning rate at the end")
    add("--step_size", **FLOAT, default=50, help="StepLR: epochs between its steps")
    add("--gamma", **FLOAT, default=0.5, help="StepLR: factor of a step")
    add("--cross", nargs="+", default=[], metavar="NET", help="train these networks on the subset, too")


def _add_testing(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--test_interval", "-ti", **INT, default=10, help="epochs between tests; 0: only after the last")
    add("--test_fraction", "-tf", **FLOAT, default=1.0, help="share of the test images to use")


def _add_running(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--seed", nargs="+", **INT, default=[0], help="one or more seeds, each with a network of its own")
    add("--save_path", "-sp", default="result", metavar="DIR", help="folder of records")
    add("--cache_path", default="cache", metavar="DIR", help="folder of pretrained networks, signals, checkpoints")
    add("--config", metavar="FILE", help="YAML file of defaults for these flags")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, …")
    add("--precision", default="auto", help="auto (bfloat16 where native), float32 or bfloat16")
    add("--sync_batchnorm", default=False, **SWITCH, help="torchrun on GPUs: BatchNorm's statistics of whole batches")
    add("--threads", **INT, help="the most CPU cores to compute with (default: those that the process may use)")
    add("--resume", "-r", nargs="?", const=True, metavar="PATH", help="go on from checkpoints left by a killed run")
    add("--checkpoint_interval", type=float, metavar="SECONDS", default=60, help="time between checkpoints")
    add("--plan", default=False, action="store_true", help="only say what is to be done, and how long it may take")
    add("--log", metavar="WHERE", help="tensorboard: losses and accuracies, live, in CACHE/log beside JSON lines")
    add("--wide", default=False, action="store_true", help="print tables as wide as they are, beyond 120 columns")
    add("--overwrite", default=False, **SWITCH, help="run again what is recorded")


def _add_protocol(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--protocol", default="whole", metavar="NAME", help="whole; continual: classes in steps; dynamic: RS2, …")
    add("--steps", **INT, default=5, help="steps that the classes come in")
    add("--memory_per_class", **INT, default=10, help="images of each class that are kept")


def _add_released(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--gpu", nargs="+", **INT, help="use CUDA device N where there is one")
    add("--eps", action=LastOf, other="rho", type=float, metavar="E", help="the same as --rho 2E")
    add("--kernel", metavar="NAME", help="of --selection Submodular: worst, adacore, grad_l2 or cosine")
    add("--submodular", default="GraphCut", metavar="NAME", help="the function of --kernel cosine")
    add("--submodular_greedy", metavar="NAME", help="no effect: all exact ones pick the same")
    add("--uncertainty", default="Entropy", metavar="NAME", help="of --selection Uncertainty")
    add("--print_freq", "-p", nargs="?", const="", metavar="N", help="no effect")
    for name in ("num_exp", "num_eval", "after_analyses", "exact_analyses"):
        add(f"--{name}", nargs="?", const="", metavar="N", help="no effect")


def parse(argv: Sequence[str], parser: Parser | None = None) -> argparse.Namespace:
    """Parse a command line over the defaults of its --config file. Raises UserError that names the nearest flag.

    Other commands than main.py refuse the flags that only it heeds.
    """
    parser = parser or build_parser()
    first, _ = parser.parse_known_args(list(argv))
    defaults = words_in(Path(first.config), parser) if first.config else []
    args, extra = parser.parse_known_args([*defaults, *argv])
    args.explicit = _explicit(parser, [*defaults, *argv])
    if extra:
        flags = [word for word in parser._option_string_actions if word.startswith("--")]
        word = extra[0].split("=")[0]
        if word.startswith("-"):
            raise UserError(f"unknown flag {word}{nearest(word, flags)}; see --help")
        raise UserError(f"unexpected argument '{word}'; see --help")
    for name in OF_MAIN_ALONE:
        if parser.prog != MAIN and getattr(args, name):
            raise UserError(f"--{name} is for main.py alone; leave it out")
    return args


def _explicit(parser: Parser, words: list[str]) -> set[str]:
    """Return the names of the flags that the words set, whatever to."""
    unset = object()
    blank = argparse.Namespace(**{action.dest: unset for action in parser._actions})
    parser.parse_known_args(words, blank)
    return {name for name, value in vars(blank).items() if value is not unset}
