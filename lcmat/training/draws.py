"""The samples of each epoch, where they are drawn anew while a network trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Draw:
    """What an epoch trains on: positions in their order, and what each one's loss is multiplied by (b,), or None."""

    positions: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """The samples of each epoch, drawn anew while a network trains.

    draw: called as draw(epoch, losses), epoch from 0, losses (n,) each sample's cross-entropy when it was last trained
    on, NaN before; returns a Draw. size: how many samples an epoch has, the largest if that changes: by so many goes
    the schedule.
    """

    draw: Callable[[int, Tensor], Draw]
    size: int


def by_position(drawn: Draw, count: int) -> Tensor | None:
    """Return the weights of a draw by the positions of `count` samples, (count,), or None."""
    if drawn.weights is None:
        return None
    weights = torch.ones(count)
    weights[drawn.positions] = drawn.weights.float()
    return weights
