"""Uniform sampling and the full set: what every method is compared with."""

import torch

from lcmat.selection.method import Method, Picks
from lcmat.signals.signals import Signals


def uniform(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose at random without replacement: the first of one random order, so that picks are nested."""
    return Picks(torch.randperm(len(signals), generator=generator)[:budget])


def full(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Take everything, whatever the budget."""
    return Picks(torch.arange(len(signals)))


UNIFORM = Method("Uniform", uniform, needs=())
FULL = Method("Full", full, needs=(), nested=False, everything=True)
