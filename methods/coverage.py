"""Facility location over gradients: one engine, and the distances of Craig and AdaCore."""

from dataclasses import replace

import torch

from lcmat.distances import LossCurvatureDistance, VectorDistance
from lcmat.distances.released import Nearby, preconditioned_in_float32
from lcmat.distances.vectors import first_of_equals
from lcmat.errors import UserError
from lcmat.facility_location import cover, covered, greedy_options
from lcmat.facility_location.released import TEN, cover_in_float32, only_exact
from lcmat.last_layer import gradient_factors, hessian_factors
from lcmat.selection import Method, Picks
from lcmat.signals import Signals
from lcmat.signals.released import with_softmax_twice

# Preconditioned gradients of a smaller mean curvature would have squares beyond float64.
TINY = 1e-100


def craig(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    greedy: str = "exact",
    rows: int | None = None,
    parts: int | None = None,
    weights: bool = True,
    softmax_twice: bool = False,
    one_more: bool = False,
) -> Picks:
    """Choose the medoids of greedy facility location under ‖g_i − g_j‖₂ (Mirzasoleiman et al., ICML 2020, Algorithm 1).

    The weight of a medoid is the number of samples nearest to it, so that weights sum to the number of samples; with
    `weights` False there are none. As released: `softmax_twice`; `one_more` on each weight, whose picks are then not
    nested.
    """
    distance = LossCurvatureDistance(with_softmax_twice(signals, softmax_twice), rho=0.0)
    picks = covered(cover(distance, budget, generator, greedy, rows, parts), weights)
    return replace(picks, weights=picks.weights + 1, transfers=None) if weights and one_more else picks


def adacore(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    damping: float = 0.1,
    mean_curvature: bool = False,
    weights: bool = False,
    greedy: str = "exact",
    rows: int | None = None,
    parts: int | None = None,
    float32: bool = False,
    ten: bool = False,
) -> Picks:
    """Choose the medoids under the distance of preconditioned gradients g_i/(λ_i + δ) (Pooladzandi et al., ICML 2022).

    δ = `damping` times the mean of λ over samples and dimensions, since λ is zero where a feature is, and nearly zero
    for sure predictions. `mean_curvature` divides by the mean λ̄ of the group in place of each sample's own.
    `weights` adds Craig's weights.
    As released: no damping, where what is no number counts as a distance of 0; `float32` forms all distances and gains
    in it; `ten` takes similarities of 10 − D, so that samples farther than 10 from every pick count as at 10.
    """
    if float32:
        found = cover_in_float32(preconditioned_in_float32(signals, damping, mean_curvature), budget, generator, ten)
    else:
        distance = PreconditionedDistance(signals, damping, mean_curvature)
        distance = Nearby(distance, TEN if ten else torch.inf) if ten or not damping else distance
        found = cover(distance, budget, generator, greedy, rows, parts)
    return covered(found, weights)


class PreconditionedDistance(VectorDistance):
    """‖g_i/(λ_i + δ) − g_j/(λ_j + δ)‖₂; unlike g, these vectors are no products of two factors."""

    def __init__(self, signals: Signals, damping: float, mean_curvature: bool) -> None:
        """Take the signals of the n samples among which distances are measured."""
        a, h = gradient_factors(signals)
        b, u = hessian_factors(signals)
        mean = torch.einsum("nc,nk->ck", b, u) / len(a)
        # Where no prediction is unsure to any digit, all of λ is 0, and dividing by any constant serves. Where λ is
        # tiny, it is taken in units of its mean: that scales all distances alike, which then stay finite.
        unit = float(mean.mean())
        delta, unit = (
            (damping * unit, 1.0) if unit > TINY or not damping else (damping, unit) if unit > 0 else (1.0, 1.0)
        )
        scale = 1.0

        def form(index: torch.Tensor | slice) -> torch.Tensor:
            gradient = a[index][:, :, None] * h[index][:, None, :]
            curvature = mean if mean_curvature else b[index][:, :, None] * u[index][:, None, :]
            return gradient.div_(curvature / unit + delta).div_(scale).flatten(1)

        if unit < TINY:  # gradients may be as tiny, or not at all
            scale = max(float(form(part).abs().max()) for part in torch.arange(len(a)).split(100)) or 1.0
        representative = first_of_equals(*signals.matrices)
        super().__init__(form, a.shape[1] * h.shape[1], representative)


def resolve_adacore(
    classes: int,
    features: int,
    *,
    damping: float,
    mean_curvature: bool,
    weights: bool,
    float32: bool,
    ten: bool,
    **how: object,
) -> dict[str, object]:
    """Refuse a damping that cannot be, and another greedy in float32."""
    if not 0 <= damping < float("inf"):
        raise UserError(f"damping must be above 0 and finite, or 0 for none at all as released, not {damping}")
    only_exact(float32, how["greedy"])
    options = {"damping": float(damping), "mean_curvature": bool(mean_curvature), "weights": bool(weights)}
    return {**options, "float32": float32, "ten": ten, **greedy_options(**how)}


def resolve_craig(
    classes: int, features: int, *, weights: bool, softmax_twice: bool, one_more: bool, **how: object
) -> dict[str, object]:
    """Refuse what the greedy cannot be told."""
    return {
        "weights": weights,
        "softmax_twice": softmax_twice,
        "one_more": one_more and weights,
        **greedy_options(**how),
    }


CRAIG = Method(
    "Craig",
    craig,
    resolve=resolve_craig,
    unrecorded={"weights": True, "softmax_twice": False, "one_more": False},
    released={"softmax_twice": True, "one_more": True, "gradient_scale": "batch", "weights_by": "batch"},
)
RELEASED = {"damping": 0.0, "float32": True, "ten": True, "signals_mode": "train", "gradient_scale": "batch"}
ADACORE = Method(
    "AdaCore", adacore, resolve=resolve_adacore, unrecorded={"float32": False, "ten": False}, released=RELEASED
)
