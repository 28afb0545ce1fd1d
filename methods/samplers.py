"""Samples of each epoch drawn anew while a network trains: RS2, InfoBatch, RCAP; and Shortened, to compare with."""

import math

import torch
from torch import Tensor

from lcmat import seeds
from lcmat.errors import UserError
from lcmat.selection.budgets import shared_out
from lcmat.selection.sampler import Epoch, Sampler
from lcmat.training import Draw


def rs2(epoch: Epoch, replacement: bool = False) -> Draw:
    """Take the next samples of a shuffle of everything, shuffled anew when it is used up (Okanovic et al., ICLR 2024).

    No sample comes twice before every one came once, also where epochs do not divide the whole. With `replacement`
    each epoch has a random subset of its own.
    """
    n = len(epoch.labels)
    if replacement:
        order = torch.randperm(n, generator=seeds.generator(epoch.seed, "subset", epoch.number))
        return Draw(order[: epoch.size])
    first = epoch.number * epoch.size
    rounds = range(first // n, (first + epoch.size - 1) // n + 1)
    walk = torch.cat([torch.randperm(n, generator=seeds.generator(epoch.seed, "shuffle", k)) for k in rounds])
    return Draw(walk[first - rounds[0] * n :][: epoch.size])


def info_batch(epoch: Epoch, ratio: float = 0.5, whole: float = 0.125) -> Draw:
    """Drop the share `ratio` of what was learned below the mean loss, at random (Qin et al., ICLR 2024).

    What is left of these counts 1 / (1 − ratio) times, so that gradients are those of everything on average. The last
    share `whole` of the epochs has everything.
    """
    draw = seeds.generator(epoch.seed, "drop", epoch.number)
    n = len(epoch.losses)
    order = torch.randperm(n, generator=draw)
    if epoch.number >= round((1 - whole) * epoch.count, 9):
        return Draw(order)
    known = ~torch.isnan(epoch.losses)
    learned = known & (epoch.losses < epoch.losses[known].mean()) if known.any() else known
    kept = ~learned | (torch.rand(n, generator=draw) >= ratio)
    weights = torch.where(learned, 1 / (1 - ratio), 1.0)
    order = order[kept[order]]
    return Draw(order, weights[order])


def rcap(epoch: Epoch, beta: float = 1.0) -> Draw:
    """Draw more of classes and of samples of large loss (RCAP, UAI 2025).

    Class shares are ∝ √(mean loss of the class × its share of the data); within a class samples are drawn without
    replacement, by probabilities ∝ exp(loss / beta), the loss cut at the logarithm of the number of classes. What was
    not trained on yet counts as being at that.
    """
    labels = epoch.labels.cpu()
    sizes = torch.bincount(labels)
    top = math.log(max(2, int((sizes > 0).sum())))
    losses = epoch.losses.double().nan_to_num(nan=top)
    means = torch.bincount(labels, weights=losses) / sizes.clamp(min=1)
    shares = (means * sizes / len(labels)).sqrt().numpy()
    budgets = shared_out(shares if shares.any() else sizes.double().numpy(), sizes.numpy(), epoch.size)
    draw = seeds.generator(epoch.seed, "draw", epoch.number)
    # Successive draws by these probabilities are the order of log probability + Gumbel noise.
    noise = -(-torch.rand(len(labels), generator=draw, dtype=torch.float64).clamp(min=1e-300).log()).log()
    order = (losses.clamp(0, top) / beta + noise).sort(descending=True, stable=True).indices
    drawn = torch.cat([_first(order, labels, label, int(budget)) for label, budget in enumerate(budgets)])
    return Draw(drawn[torch.randperm(len(drawn), generator=draw)])


def _first(order: Tensor, labels: Tensor, label: int, count: int) -> Tensor:
    return order[labels[order] == label][:count]


def resolve_info_batch(ratio: float, whole: float) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 <= ratio < 1:
        raise UserError(f"ratio must be at least 0 and below 1, not {ratio}")
    if not 0 <= whole <= 1:
        raise UserError(f"whole must be between 0 and 1, not {whole}")
    return {"ratio": ratio, "whole": whole}


def resolve_rcap(beta: float) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 < beta < math.inf:
        raise UserError(f"beta must be above 0 and finite, not {beta}")
    return {"beta": beta}


RS2 = Sampler("RS2", rs2)
INFO_BATCH = Sampler("InfoBatch", info_batch, resolve=resolve_info_batch, ignores_budget=True)
RCAP = Sampler("RCAP", rcap, resolve=resolve_rcap)
SHORTENED = Sampler("Shortened", None)
