"""Trainings and signals that the tests compute alone, and by two processes: `torchrun … -m tests.together FILE`."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from lcmat import data, distributed
from lcmat.errors import UserError
from lcmat.files import save_tensors
from lcmat.signals import take_signals
from lcmat.training import Compute, DivergedError, Draw, Draws, Recipe, Watch, train
from lcmat.training.losses import SampleWeights
from tests.networks import TinyNet

QUICK = {"epochs": 3, "batch": 20, "lr": 0.05}
# By name, what a training has beside its recipe. 103 samples: the last batch has 3, too few for two processes to share.
TRAININGS = {
    "plain": Recipe(**QUICK),
    "cropped": Recipe(**QUICK, augmentation="crop_flip"),
    "mixed": Recipe(**QUICK, augmentation="idc"),
    "weighted": Recipe(**QUICK, optimizer="AdamW"),
    "drawn": Recipe(**QUICK, augmentation="crop"),
}


def hardest(number: int, losses: Tensor) -> Draw:
    """Draw the 50 samples of the largest losses, at first those at the front, with weights."""
    order = losses.nan_to_num(0).sort(descending=True, stable=True).indices[:50]
    return Draw(order, 1 + order / 100)


def results() -> dict[str, dict[str, object]]:
    """Return the weights and history of each training, signals, and what follows a training that diverges."""
    digits = data.load("digits")
    compute = Compute(torch.device("cpu"), torch.float32, digits.mean, digits.std)
    split, found = digits.train.take(torch.arange(103)), {}
    for name, recipe in TRAININGS.items():
        network, watch = TinyNet(seed=1), Watch(digits.test, interval=2, dynamics=True)
        weights = SampleWeights(torch.arange(1.0, 104), by="batch") if name == "weighted" else None
        draws = Draws(hardest, 50) if name == "drawn" else None
        history = train(network, split, recipe, compute, seed=5, weights=weights, watch=watch, draws=draws)
        kept = {key: value for key, value in vars(history).items() if key != "seconds"}
        found[name] = {"weights": network.state_dict(), "history": kept}
    try:
        train(TinyNet(seed=1), split, Recipe(**QUICK | {"lr": 1e30}), compute, seed=0)
    except DivergedError as error:
        found["diverged"] = {"text": str(error)}
    signals = take_signals(TinyNet(seed=2), digits.train, compute, 100)
    found["signals"] = {name: getattr(signals, name) for name in ("features", "logits", "labels")}
    extra = TinyNet(seed=3, extra=True)  # BatchNorm and dropout: no equality, but it trains
    history = train(extra, split, Recipe(epochs=30, batch=20, lr=0.05), compute, seed=0)
    found["normalised"] = {"train_accuracy": history.train_accuracy}
    return found


def end_in(rank: int, how: str) -> None:
    """End the process of this rank, as bad input does or as a signal does; the others wait for it."""
    if distributed.rank() == rank:
        if how == "killed":
            os.kill(os.getpid(), 9)
        raise UserError(f"a file is missing in process {rank}")
    distributed.summed(torch.ones(1))


def ended(rank: int, how: str) -> int:
    """Let the process of this rank end while all work together."""
    with distributed.helped(end_in, rank, how):
        end_in(rank, how)
    return 0


def _write(path: Path) -> int:
    save_tensors(path, results())
    return 0


if __name__ == "__main__":
    from lcmat.command_line import run_command_line

    what = sys.argv[1:]
    program = (lambda: ended(int(what[1]), what[0])) if len(what) == 2 else (lambda: _write(Path(what[0])))
    sys.exit(run_command_line(lambda _: distributed.as_one(program), []))
