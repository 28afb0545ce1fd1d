"""LCMat-S: selection by loss-curvature matching (Shin et al., AISTATS 2023, section 3.3)."""

import torch

from lcmat.curvature import LossCurvatureDistance, check_dimensions, check_radius
from lcmat.facility_location import facility_location
from lcmat.selection import Method, Picks, covered
from lcmat.signals import Signals


def lcmat_s(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    rho: float = 0.1,
    K: int | None = None,
    weights: bool = False,
) -> Picks:
    """Choose the medoids of greedy facility location under the distance of Eq. 10.

    D_ij = ‖g_i − g_j‖₂ + ρ/2 Σ_{k∈𝒦} |λ_ik − λ_jk|, over per-sample gradients g and Hessian diagonals λ of the last
    layer; 𝒦 holds the K dimensions (default min(100, C(d+1))) where λ varies most within the group. The cost is
    L(S) = Σ_i min_{j∈S} D_ij (Eq. 11). `weights` adds the cluster sizes γ of Algorithm 1, which the paper leaves off.
    Deterministic: `generator` is not used.
    """
    cover = facility_location(LossCurvatureDistance(signals, rho, K), budget)
    return covered(cover, weights)


def resolve(classes: int, features: int, rho: float, K: int | None, weights: bool) -> dict[str, object]:
    """Fill in K, and refuse a ρ or K that cannot be, before any work is done."""
    rho = check_radius(rho)
    K = check_dimensions(K, classes, features)
    return {"rho": rho, "K": K if rho > 0 else None, "weights": weights}  # without curvature, K means nothing


LCMAT_S = Method("LCMat-S", lcmat_s, resolve=resolve)
