"""k-center: samples such that none is far from all of them, in feature space or in terms of predictions."""

import torch
from torch import Tensor

from lcmat.distances import Distance, euclidean
from lcmat.distances.vectors import SymmetricDivergence
from lcmat.errors import UserError
from lcmat.last_layer import probabilities
from lcmat.selection import Method, Picks
from lcmat.selection.ranking import first_largest
from lcmat.signals import Signals
from lcmat.signals.needs import FEATURES, LOGITS


def farthest_first(distance: Distance, budget: int, generator: torch.Generator) -> Tensor:
    """Start anywhere, then always take the sample that is farthest from all taken; return the order, (budget,).

    Its radius max_i min_{j∈S} D_ij is at most twice the smallest possible where D is a metric (Gonzalez 1985).
    """
    pick = int(torch.randint(len(distance), (1,), generator=generator))
    chosen = [pick]
    nearest = distance.rows(torch.tensor([pick]))[0]
    nearest[pick] = -torch.inf
    for _ in range(budget - 1):
        pick = first_largest(nearest)
        chosen.append(pick)
        nearest = torch.minimum(nearest, distance.rows(torch.tensor([pick]))[0])
        nearest[pick] = -torch.inf
    return torch.tensor(chosen)


def k_center_greedy(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Farthest-first with the Euclidean distance between features (Sener & Savarese, ICLR 2018, Algorithm 1)."""
    return Picks(farthest_first(euclidean(signals.features), budget, generator))


def contextual_diversity(signals: Signals, budget: int, generator: torch.Generator, *, epsilon: float = 1e-10) -> Picks:
    """Farthest-first with ½ KL(p‖q) + ½ KL(q‖p) between predictions (CDAL, Agarwal et al., ECCV 2020).

    Probabilities below `epsilon` count as that: the divergence from an impossible class would be infinite.
    """
    p, _ = probabilities(signals.logits)
    return Picks(farthest_first(SymmetricDivergence(p.clamp(min=epsilon)), budget, generator))


def resolve(classes: int, features: int, *, epsilon: float) -> dict[str, object]:
    """Refuse an ε that does not keep the logarithm finite."""
    if not 1e-300 <= epsilon < 1:
        raise UserError(f"epsilon must lie between 1e-300 and 1, not {epsilon:g}")
    return {"epsilon": float(epsilon)}


K_CENTER_GREEDY = Method("kCenterGreedy", k_center_greedy, needs=(FEATURES,))
CONTEXTUAL_DIVERSITY = Method("ContextualDiversity", contextual_diversity, needs=(LOGITS,), resolve=resolve)
