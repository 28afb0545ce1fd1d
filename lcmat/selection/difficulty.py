"""How hard samples are, by the measures that methods sort, cut or bin by; and means over windows of epochs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcmat.errors import UserError, lookup
from lcmat.last_layer import residuals
from lcmat.signals import Signals
from lcmat.signals.needs import DYNAMICS_CORRECTNESS, DYNAMICS_LOSS, DYNAMICS_PROBABILITY_MARGIN, INITIALISATIONS_LOGITS

# DUAL: epochs of a window, and how many of the first epochs are looked at.
WINDOW, EARLY = 10, 30


def difficulty(signals: Signals, score: str) -> Tensor:
    """Return how hard each sample is by a score of `SCORES`, (n,) float64: high is hard."""
    return _MEASURES[score](signals)


def needs_of(score: object) -> tuple[str, ...]:
    """Return what of the signals a score is computed from; raise UserError that names the nearest known one."""
    return _NEEDS[lookup("score", str(score), SCORES)]


def own_probability(signals: Signals) -> Tensor:
    """Return p_y = e^−loss of each epoch and sample, (E, n) float64."""
    loss = signals.dynamics["loss"].double().contiguous()
    if bool((loss < 0).any()):
        raise UserError("dynamics 'loss' hold a value below 0; they must be cross-entropies, −log p of the own label")
    return torch.exp(-loss)


def window_mean(values: Tensor, window: int, of_window: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean of of_window over all runs of so many epochs (all, if fewer), (n,), of values (E, n)."""
    size = min(window, len(values))
    parts = [of_window(values[first : first + size]) for first in range(len(values) - size + 1)]
    return torch.stack(parts).mean(0)


def std_over_epochs(part: Tensor) -> Tensor:
    """Return the standard deviation over the epochs of a window, (n,), of (J, n)."""
    return (part - part.mean(0)).square().mean(0).sqrt()


def dual_score(probability: Tensor, window: int, epochs: int) -> Tensor:
    """Return DUAL's score, (n,): the mean over windows of std(p_y) (1 − mean p_y) in the first `epochs` epochs."""
    return window_mean(probability[:epochs], window, lambda part: std_over_epochs(part) * (1 - part.mean(0)))


def forgetting_counts(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return how often each sample was right and then wrong, (n,) float64, and which were never right, (n,) bool."""
    right = signals.dynamics["correctness"].bool()
    return (right[:-1] & ~right[1:]).sum(0).double(), ~right.any(0)


def _forgetting(signals: Signals) -> Tensor:
    """Return the counts; what was never right has the number of epochs, which no count reaches."""
    count, never = forgetting_counts(signals)
    return count.masked_fill(never, len(signals.dynamics["correctness"]))


def _area(signals: Signals) -> Tensor:
    return -signals.dynamics["probability_margin"].double().mean(0)


def _el2n(signals: Signals) -> Tensor:
    norms = [residuals(one.logits, one.labels).norm(dim=1) for one in signals.initialisations]
    return torch.stack(norms).mean(0)


def _dual(signals: Signals) -> Tensor:
    return dual_score(own_probability(signals), WINDOW, EARLY)


# AUM: minus the mean over epochs of p_y − max_{c≠y} p_c.
_MEASURES = {"AUM": _area, "EL2N": _el2n, "Forgetting": _forgetting, "DUAL": _dual}
_NEEDS = {
    "AUM": (DYNAMICS_PROBABILITY_MARGIN,),
    "EL2N": (INITIALISATIONS_LOGITS,),
    "Forgetting": (DYNAMICS_CORRECTNESS,),
    "DUAL": (DYNAMICS_LOSS,),
}
SCORES = tuple(_MEASURES)
