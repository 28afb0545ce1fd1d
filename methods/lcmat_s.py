"""LCMat-S: selection by loss-curvature matching (Shin et al., AISTATS 2023, section 3.3)."""

import torch

from lcmat.distances import LossCurvatureDistance
from lcmat.distances.loss_curvature import check_dimensions
from lcmat.distances.released import Nearby, loss_curvature_in_float32
from lcmat.facility_location import cover, covered, greedy_options
from lcmat.facility_location.released import TEN, cover_in_float32, only_exact
from lcmat.method_options import check_radius
from lcmat.selection import Method, Picks
from lcmat.signals import Signals


def lcmat_s(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    rho: float = 0.1,
    K: int | None = None,
    weights: bool = False,
    greedy: str = "exact",
    rows: int | None = None,
    parts: int | None = None,
    float32: bool = False,
    ten: bool = False,
) -> Picks:
    """Choose the medoids of greedy facility location under the distance of Eq. 10.

    D_ij = ‖g_i − g_j‖₂ + ρ/2 Σ_{k∈𝒦} |λ_ik − λ_jk|, over per-sample gradients g and Hessian diagonals λ of the last
    layer; 𝒦 holds the K dimensions (default min(100, C(d+1))) where λ varies most within the group. The cost is
    L(S) = Σ_i min_{j∈S} D_ij (Eq. 11). `weights` adds the cluster sizes γ of Algorithm 1, which the paper leaves off.
    `greedy`, `rows` and `parts`: see `lcmat.facility_location.cover`. The exact greedy does not use `generator`.
    As released: `float32` forms all distances and gains in it, and `ten` takes 10 for the constant c of Eq. 12, so that
    samples farther than that from every pick count as at 10.
    """
    if float32:
        found = cover_in_float32(loss_curvature_in_float32(signals, rho, K), budget, generator, ten)
    else:
        distance = LossCurvatureDistance(signals, rho, K)
        found = cover(Nearby(distance, TEN) if ten else distance, budget, generator, greedy, rows, parts)
    return covered(found, weights)


def resolve(
    classes: int, features: int, *, rho: float, K: int | None, weights: bool, float32: bool, ten: bool, **how: object
) -> dict[str, object]:
    """Fill in K, and refuse a ρ or K that cannot be, before any work is done."""
    only_exact(float32, how["greedy"])
    rho = check_radius(rho)
    K = check_dimensions(K, classes * (features + 1))
    K = K if rho > 0 else None  # without curvature, K means nothing
    return {"rho": rho, "K": K, "weights": weights, "float32": float32, "ten": ten, **greedy_options(**how)}


RELEASED = {"rho": 0.02, "float32": True, "ten": True, "signals_mode": "train", "gradient_scale": "batch"}
LCMAT_S = Method("LCMat-S", lcmat_s, resolve=resolve, unrecorded={"float32": False, "ten": False}, released=RELEASED)
