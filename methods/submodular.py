"""Submodular functions of the similarity s_ij = ½ + ½ cos(g_i, g_j) of gradients, as in DeepCore (Guo et al. 2022)."""

import torch

from lcmat.distances import CosineDistance
from lcmat.errors import UserError
from lcmat.facility_location import cover, covered, greedy_options
from lcmat.last_layer import gradient_factors
from lcmat.selection import Method, Picks
from lcmat.selection.matching_pursuit import products
from lcmat.selection.ranking import first_largest
from lcmat.signals import Signals
from lcmat.signals.released import with_softmax_twice


def facility_location_cosine(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    greedy: str = "exact",
    rows: int | None = None,
    parts: int | None = None,
    softmax_twice: bool = False,
) -> Picks:
    """Greedily maximise Σ_{i∈V} max_{j∈S} s_ij: facility location with the distance 1 − s.

    As released: `softmax_twice`.
    """
    distance = _cosines(signals, softmax_twice)
    return covered(cover(distance, budget, generator, greedy, rows, parts), weights=False)


def graph_cut(signals: Signals, budget: int, generator: torch.Generator, *, softmax_twice: bool = False) -> Picks:
    """Greedily take the largest Σ_{i∈V} s_ix − 2 Σ_{j∈S} s_jx (Iyer & Bilmes, NeurIPS 2013; λ = 1).

    As released: `softmax_twice`.
    """
    distance = _cosines(signals, softmax_twice)
    # The sums over V follow from Σ_i x̂_i; x̂ is the product of two factors, so that sum is a (C, d+1) matrix.
    total = distance.a.T @ distance.h
    gain = len(distance) / 2 + 0.5 * products(distance.a, distance.h, total)
    chosen = []
    for _ in range(budget):
        pick = first_largest(gain)
        chosen.append(pick)
        gain -= 2 * (1 - distance.rows(torch.tensor([pick]))[0])
        gain[pick] = -torch.inf
    return Picks(torch.tensor(chosen))


def log_determinant(
    signals: Signals, budget: int, generator: torch.Generator, *, epsilon: float = 1e-6, softmax_twice: bool = False
) -> Picks:
    """Greedily maximise log det(s_S + εI), by an incremental Cholesky factor (Chen et al., NeurIPS 2018, Algorithm 1).

    A sample's gain is log of what is left of s_xx + ε once the chosen are projected out of it; each pick costs a row
    of s and a product with the rows of the factor so far, (t, n). As released: `softmax_twice`.
    """
    distance = _cosines(signals, softmax_twice)
    n, device = len(distance), distance.a.device
    # s_xx is 1, or ½ where the gradient is zero.
    left = 0.5 + 0.5 * (distance.a.square().sum(1) * distance.h.square().sum(1)) + epsilon
    taken = torch.zeros(n, dtype=torch.bool, device=device)
    factor = torch.empty(budget, n, dtype=left.dtype, device=device)
    chosen = []
    for t in range(budget):
        pick = first_largest(left.masked_fill(taken, -torch.inf))
        chosen.append(pick)
        taken[pick] = True
        row = 1 - distance.rows(torch.tensor([pick]))[0]
        row[pick] += epsilon
        factor[t] = (row - factor[:t, pick] @ factor[:t]) / left[pick].sqrt()
        # Below ε nothing is left but rounding.
        left = (left - factor[t].square()).clamp_(min=epsilon / 2)
    return Picks(torch.tensor(chosen))


def _cosines(signals: Signals, softmax_twice: bool) -> CosineDistance:
    return CosineDistance(*gradient_factors(with_softmax_twice(signals, softmax_twice)))


def resolve_epsilon(classes: int, features: int, *, epsilon: float, softmax_twice: bool) -> dict[str, object]:
    """Refuse an ε too small for the factor to be computed."""
    if not 1e-10 <= epsilon < float("inf"):
        raise UserError(f"epsilon must be at least 1e-10 and finite, not {epsilon:g}")
    return {"epsilon": float(epsilon), "softmax_twice": softmax_twice}


def resolve_location(classes: int, features: int, *, softmax_twice: bool, **how: object) -> dict[str, object]:
    """Refuse what the greedy cannot be told."""
    return {"softmax_twice": softmax_twice, **greedy_options(**how)}


OFF, RELEASED = {"softmax_twice": False}, {"softmax_twice": True}
FACILITY_LOCATION = Method(
    "FacilityLocation", facility_location_cosine, resolve=resolve_location, unrecorded=OFF, released=RELEASED
)
GRAPH_CUT = Method("GraphCut", graph_cut, unrecorded=OFF, released=RELEASED)
LOG_DETERMINANT = Method("LogDeterminant", log_determinant, resolve=resolve_epsilon, unrecorded=OFF, released=RELEASED)
