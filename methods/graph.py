"""Difficulty and diversity on the graph of nearest neighbours: D2."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lcmat.block_sizes import at_once
from lcmat.distances.neighbours import nearest_others
from lcmat.errors import UserError, lookup
from lcmat.method_options import check_numbers
from lcmat.selection import Method, Picks
from lcmat.selection.difficulty import SCORES, difficulty, needs_of
from lcmat.selection.ranking import TOO_LARGE, first_largest
from lcmat.signals import Signals
from lcmat.signals.needs import DYNAMICS_CORRECTNESS, FEATURES


def d2(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    score: str = "Forgetting",
    neighbours: int = 5,
    gamma: float = 0.1,
    beta: float = 0.3,
) -> Picks:
    """Choose what is hard and unlike what is chosen, by messages on a graph (Maharana et al., ICLR 2024, D2 Pruning).

    The share `beta` of the hardest is left out first (fewer, if the budget needs them). Each sample's nearest others
    then add e^(−d²) times their scores to its own, all at once; the largest is chosen time and again, and each of its
    neighbours loses e^(−γ d²) times the score of the chosen. Scores count from the lowest one of the group. Ties are
    broken at random, for counts of forgetting tie often.
    """
    order = torch.randperm(len(signals), generator=generator).to(signals.labels.device)
    hard = difficulty(signals, score)[order]
    if not bool(torch.isfinite(hard).all()):
        raise UserError(TOO_LARGE)
    cut = min(int(beta * len(hard) + 1e-9), len(hard) - budget)  # 0.29 · 100 is a little less than 29
    kept = hard.sort(descending=True, stable=True).indices[cut:].sort().values
    values, features = hard[kept] - hard[kept].min(), signals.features[order[kept]]
    nearest = nearest_others(features, min(neighbours, len(kept) - 1)) if len(kept) > 1 else kept[:, None][:, :0]
    squared = _squared_distances(features, nearest)
    values = values + (torch.exp(-squared) * values[nearest]).sum(1)
    loss = torch.exp(-gamma * squared)
    left = torch.ones_like(values, dtype=torch.bool)
    chosen = []
    for _ in range(budget):
        pick = first_largest(values.masked_fill(~left, -torch.inf))
        chosen.append(pick)
        left[pick] = False
        values[nearest[pick]] -= loss[pick] * values[pick]
    return Picks(order[kept[torch.tensor(chosen, device=kept.device)]])


def _squared_distances(features: Tensor, nearest: Tensor) -> Tensor:
    """Return ‖h_i − h_j‖² of each sample and its neighbours, (n, k) float64."""
    block = max(1, at_once().elements // max(1, nearest.shape[1] * features.shape[1]))
    parts = torch.arange(len(features), device=features.device).split(block)
    h = features.double()
    return torch.cat([(h[nearest[own]] - h[own, None]).square().sum(2) for own in parts])


def resolve_d2(classes: int, features: int, **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    check_numbers(options, at_least_one=("neighbours",), not_negative=("gamma",))
    if not 0 <= options["beta"] < 1:
        raise UserError(f"beta must be at least 0 and below 1, not {options['beta']}")
    return {**options, "score": lookup("score", str(options["score"]), SCORES)}


def needs_of_d2(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return the features, and what the score is computed from."""
    return ("features", *needs_of(options.get("score", "Forgetting")))


D2 = Method("D2", d2, needs=(FEATURES, DYNAMICS_CORRECTNESS), nested=False, resolve=resolve_d2, needs_under=needs_of_d2)
