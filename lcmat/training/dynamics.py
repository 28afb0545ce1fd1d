"""What is noted of each sample while a network trains: whether it is right, its margins, loss and change."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def empty_dynamics(epochs: int, n: int, device: torch.device) -> dict[str, Tensor]:
    """Return what `record` fills in: tensors (epochs, n) by name."""
    right = {"correctness": torch.zeros(epochs, n, dtype=torch.bool, device=device)}
    numbers = ("margin", "error_norm", "probability_margin", "loss", "change")
    return right | {name: torch.zeros(epochs, n, device=device) for name in numbers}


def record(
    dynamics: dict[str, Tensor],
    earlier: dict[str, Tensor],
    epoch: int,
    positions: Tensor,
    logits: Tensor,
    labels: Tensor,
) -> None:
    """Note what a batch's logits say of its samples, under the probabilities p.

    Whether each is right; its margin over the best other class, of logits and of p; ‖p − onehot(y)‖₂; the
    cross-entropy, so that p_y = e^−loss; and the change Σ_c |p_c log(p_c / p'_c)| from its p' in the epoch before, 0 in
    the first epoch (TDDS).
    """
    positions, probabilities, log_p = positions.to(logits.device), torch.softmax(logits, 1), F.log_softmax(logits, 1)
    error = probabilities - F.one_hot(labels, logits.shape[1])
    dynamics["correctness"][epoch, positions] = logits.argmax(1) == labels
    dynamics["margin"][epoch, positions] = _margin(logits, labels)
    dynamics["error_norm"][epoch, positions] = error.norm(dim=1)
    dynamics["probability_margin"][epoch, positions] = _margin(probabilities, labels)
    dynamics["loss"][epoch, positions] = -log_p.gather(1, labels[:, None])[:, 0]
    if "log_p" not in earlier:
        earlier["log_p"] = log_p.new_zeros(dynamics["loss"].shape[1], log_p.shape[1])
    elif epoch:
        dynamics["change"][epoch, positions] = (probabilities * (log_p - earlier["log_p"][positions])).abs().sum(1)
    earlier["log_p"][positions] = log_p


def _margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the label's score exceeds the best other one, (b,), of scores (b, C); 0 if there is none."""
    if scores.shape[1] == 1:
        return torch.zeros_like(scores[:, 0])
    own = scores.gather(1, labels[:, None])[:, 0]
    return own - scores.scatter(1, labels[:, None], -torch.inf).amax(1)
