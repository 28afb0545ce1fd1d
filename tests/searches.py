"""Searches of LBCS on problems of a moment: digits, small networks, few trials."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import Tensor

from lcmat import Signals, data
from lcmat.bilevel import lexicographic
from lcmat.bilevel.lexicographic import Rules, ask, tell
from lcmat.bilevel.trials import TrialFile, read_trials, refine
from lcmat.data import TensorSplit
from lcmat.selection.context import Context
from lcmat.selection.subset import Subset
from lcmat.training import Compute, Recipe
from methods import select
from tests.networks import TinyNet


class Killed(BaseException):
    """Stands for a signal that ends the process."""


values = st.tuples(st.integers(1, 5).map(float), st.integers(1, 5))
RULES = Rules(tolerance=0.2, step=0.5)


def first_digits() -> TensorSplit:
    """The first 300 digits."""
    return data.load("digits").train.take(torch.arange(300))


def tiny_networks_on(split: TensorSplit, compute: Compute) -> Context:
    """What LBCS gets: images and networks."""
    return Context(
        split, compute, fresh_network=TinyNet, recipe=Recipe(epochs=1, batch=32, lr=0.05, scheduler="constant")
    )


def start_of(n: int, k: int, seed: int = 0) -> Tensor:
    """A random start mask of k among n as the released code has it: 0.2 and −0.5."""
    point = torch.full((n,), -0.5, dtype=torch.float64)
    point[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]] = 0.2
    return point


def fed(state: lexicographic.State, rules: Rules, answers: list[tuple[float, int]]) -> lexicographic.State:
    """Go on with these values for the points asked for."""
    for value in answers:
        state = tell(state, ask(state, rules, 3), value, rules, 3)
    return state


def loss_of_missing(essential: int, price: float, calls: list | None = None) -> Callable[[Tensor, int], float]:
    """f₁ = 1 + price for each of the first samples that is missing; no other matters."""

    def objective(chosen: Tensor, trial: int) -> float:
        if calls is not None:
            calls.append((chosen.tolist(), trial))
        return 1 + price * (essential - int((chosen < essential).sum()))

    return objective


SEARCH = {"search": "abc", "samples": 40, "init_size": 20, "tolerance": 0.2}


def searched(path: Path, resume: bool = False, dies_at: int | None = None, calls: list | None = None) -> list[int]:
    """Make a small search with a file of trials; the objective may die."""

    def objective(chosen: Tensor, trial: int) -> float:
        if trial == dies_at:
            raise Killed
        if calls is not None:
            calls.append(trial)
        return 1 + math.sin(float((chosen + 1).sum())) ** 2

    file = TrialFile(path, SEARCH, resume)
    return refine(objective, start_of(40, 20), Rules(0.2, 0.8), seed=5, trials=30, file=file).tolist()


def without_seconds(path: Path) -> list[dict]:
    """Return a search and its trials, but for how long they took."""
    search, lines = read_trials(path)
    return [search, *({k: v for k, v in one.items() if k != "seconds"} for one in lines)]


@functools.cache
def labels_only(n: int = 300) -> Signals:
    """Signals that hold nothing but labels."""
    return Signals(labels=data.load("digits").train.labels[:n])


QUICK = {"trials": 6, "inner_steps": 2, "inner_lr": 0.01}


def lbcs(context: Context, **more: object) -> Subset:
    """Select 40 digits by a short search."""
    return select(labels_only(), "LBCS", context=context, **{"budget": 40, **QUICK, **more})
