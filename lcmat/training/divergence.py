"""A look at recent losses, and at the weights in the end, that finds a training which has diverged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcmat.errors import UserError

# Losses are looked at this often, not at every step: each look waits for the device.
CHECK_STEPS = 50


class DivergedError(UserError):
    """A loss that is not finite."""

    of_all_processes = True


@dataclass(frozen=True, eq=False)
class Step:
    """A step whose loss is to be looked at: its epoch and its number in that, from 0."""

    epoch: int
    step: int
    loss: Tensor
    lr: float


def check_finite(recent: list[Step]) -> None:
    """Look at the losses of recent steps, and forget them."""
    if not recent:
        return
    losses = torch.stack([step.loss for step in recent])
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        first = recent[int(bad[0])]
        raise DivergedError(
            f"the loss is {float(first.loss)} at epoch {first.epoch + 1}, step {first.step + 1}, "
            f"learning rate {first.lr:g}; lower the learning rate"
        )
    recent.clear()


def check_weights(network: nn.Module, epochs: int, optimizer: torch.optim.Optimizer) -> None:
    """Find what the last update broke, which no later loss shows."""
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise DivergedError(
            f"weights are not finite after the last step of epoch {epochs}, "
            f"learning rate {optimizer.param_groups[0]['lr']:g}; lower the learning rate"
        )
