"""Uniform sampling, the first samples in order, and the full set: what every method is compared with."""

import torch

from lcmat.selection import Method, Picks
from lcmat.signals import Signals


def uniform(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose at random without replacement: the first of one random order, so that picks are nested."""
    return Picks(torch.randperm(len(signals), generator=generator)[:budget])


def first_in_order(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Take the first samples in the data's own order: what the released AdaCore comes to (methods/README.md)."""
    return Picks(torch.arange(budget))


def full(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Take everything, whatever the budget."""
    return Picks(torch.arange(len(signals)))


UNIFORM = Method("Uniform", uniform, needs=())
FIRST_IN_ORDER = Method("FirstInOrder", first_in_order, needs=())
FULL = Method("Full", full, needs=(), nested=False, ignores_budget=True)
