"""Scores early in training, a mean over several initialisations (Paul et al., NeurIPS 2021): GraNd and EL2N."""

import torch
from torch import Tensor

from lcmat.last_layer import gradient_factors, residuals
from lcmat.selection import Method, Picks
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.signals.needs import INITIALISATIONS_LOGITS, WITH_INITIALISATIONS
from lcmat.signals.released import with_softmax_twice


def grand(signals: Signals, budget: int, generator: torch.Generator, *, softmax_twice: bool = False) -> Picks:
    """Choose the largest mean norm of the gradient, ‖g‖₂ = ‖a‖₂ ‖h̃‖₂ in the last layer (Definition 2.1).

    As released: `softmax_twice`.
    """
    several = with_softmax_twice(signals, softmax_twice).initialisations
    norms = [_norm(a) * _norm(h) for a, h in map(gradient_factors, several)]
    return Picks(ranked(torch.stack(norms).mean(0), budget))


def el2n(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose the largest mean norm of the error, ‖p − onehot(y)‖₂ (Definition 2.2)."""
    norms = [_norm(residuals(one.logits, one.labels)) for one in signals.initialisations]
    return Picks(ranked(torch.stack(norms).mean(0), budget))


def _norm(rows: Tensor) -> Tensor:
    return rows.norm(dim=1)


GRAND = Method(
    "GraNd",
    grand,
    needs=WITH_INITIALISATIONS,
    unrecorded={"softmax_twice": False},
    released={"softmax_twice": True, "gradient_scale": "batch"},
)
EL2N = Method("EL2N", el2n, needs=(INITIALISATIONS_LOGITS,))
