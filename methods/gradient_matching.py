"""GradMatch: a weighted subset whose summed gradient is that of everything, or of a validation set."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lcmat.errors import UserError
from lcmat.last_layer import gradient_factors
from lcmat.method_options import taking
from lcmat.selection import Method, Picks
from lcmat.selection.matching_pursuit import matching_pursuit
from lcmat.selection.released_pursuit import released_pursuit
from lcmat.signals import Signals
from lcmat.signals.needs import GRADIENTS, WITH_VALIDATION
from lcmat.signals.released import with_softmax_twice

# Weights up to this share of the largest are zero but for rounding.
NO_WEIGHT = 1e-12
# A largest entry of a below this has squares that underflow.
TINY = 1e-100

Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Options:
    """What GradMatch and GradMatch-Val can be told."""

    regularisation: float = 0.5  # λ, in units of mean ‖g‖²
    softmax_twice: bool = False  # as released
    unit_penalty: bool = False  # as released: λ = 1


@taking(Options)
def grad_match(signals: Signals, budget: int, generator: torch.Generator, options: Options) -> Picks:
    """min over w ≥ 0 of ‖Σ w_i g_i − Σ_i g_i‖² + λ‖w‖², by orthogonal matching pursuit (Killamsetty et al. 2021a).

    λ = `regularisation` · mean ‖g‖², which does not depend on the scale of the gradients. Samples whose weight comes
    out as zero get the smallest positive weight, so that exactly the budget is used.
    As released: `softmax_twice`; `unit_penalty` takes λ = 1 and leaves out what comes out as zero.
    """
    a, h = gradient_factors(with_softmax_twice(signals, options.softmax_twice))
    return _matched((a, h), (a, h), budget, options)


@taking(Options)
def grad_match_val(signals: Signals, budget: int, generator: torch.Generator, options: Options) -> Picks:
    """Match as `grad_match` does the summed gradient of the validation samples, of the same class if balanced."""
    signals = with_softmax_twice(signals, options.softmax_twice)
    return _matched(gradient_factors(signals), gradient_factors(signals.validation), budget, options)


def _matched(own: Factors, target: Factors, budget: int, options: Options) -> Picks:
    """Match the sum of the gradients of `target` by weights on those of `own`, both as factors (n, C) and (n, d+1)."""
    (a, h), (target_a, target_h) = own, target
    whole = target_a.T @ target_h
    if options.unit_penalty:
        return Picks(*released_pursuit(a, h, whole / len(target_a), budget))
    # Sure predictions have gradients whose squares are zero in float64: those are matched in units of the largest.
    largest = float(a.abs().max())
    unit = largest if 0 < largest < TINY else 1.0
    a = a / unit
    penalty = options.regularisation * float((a.square().sum(1) * h.square().sum(1)).mean())
    indices, weights = matching_pursuit(a, h, whole, budget, penalty)
    left_out = weights <= NO_WEIGHT * weights.max()
    weights[left_out] = 1.0 if left_out.all() else weights[~left_out].min()
    # Weights are kept in float32, where nothing may become 0 or infinite.
    return Picks(indices, (weights / unit).clamp(1e-30, 1e30))


def resolve(classes: int, features: int, *, regularisation: float, **switches: bool) -> dict[str, object]:
    """Refuse a negative λ."""
    if not 0 <= regularisation < float("inf"):
        raise UserError(f"regularisation must be 0 or more and finite, not {regularisation}")
    return {"regularisation": float(regularisation), **switches}


SWITCHES = {"softmax_twice": False, "unit_penalty": False}
RELEASED = {"softmax_twice": True, "unit_penalty": True, "gradient_scale": "batch", "weights_by": "batch"}
GRAD_MATCH, GRAD_MATCH_VAL = (
    Method(name, pick, needs, nested=False, weighted=True, resolve=resolve, unrecorded=SWITCHES, released=RELEASED)
    for name, pick, needs in (
        ("GradMatch", grad_match, GRADIENTS),
        ("GradMatch-Val", grad_match_val, WITH_VALIDATION),
    )
)
