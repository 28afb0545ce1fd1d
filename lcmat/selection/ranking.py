"""How all methods turn scores into picks: the highest first, ties to the lowest index."""

import torch
from torch import Tensor

from lcmat.errors import UserError

# Scores that differ by less than this share of their size are equal to rounding (float64).
SCORE_TIE = 1e-13
TOO_LARGE = "scores are not finite: the signals are too large; scale the features or logits down"


def ranked(scores: Tensor, budget: int) -> Tensor:
    """Return the indices of the `budget` highest of scores (n,), highest first."""
    if torch.isnan(scores).any():
        raise UserError(TOO_LARGE)
    return scores.sort(descending=True, stable=True).indices[:budget]


def first_largest(scores: Tensor) -> int:
    """Return the lowest index whose score (n,) is the largest but for rounding; −∞ marks what may not be chosen."""
    best = scores.max()
    if not best < torch.inf:  # infinite, or not a number
        raise UserError(TOO_LARGE)
    return int((scores >= best - SCORE_TIE * best.abs()).to(torch.uint8).argmax())
