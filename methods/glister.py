"""Glister: samples whose gradient step lowers the loss on a target set most, the training or a validation set."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError, lookup
from lcmat.last_layer import gradient_factors, layer_inputs
from lcmat.method_options import taking
from lcmat.selection import Method, Picks
from lcmat.selection.matching_pursuit import products
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.signals.needs import GRADIENTS, WITH_VALIDATION
from lcmat.signals.released import with_softmax_twice

STEPS = ("mean", "sum")
# A target gradient below this share of what it was has vanished: its direction is that of few samples, or of rounding.
VANISHED = 1e-6


@dataclass(frozen=True)
class Options:
    """What Glister and Glister-Val can be told."""

    eta: float = 0.1  # η
    blocks: int = 20  # of picks, after each of which the target is taken anew
    step: str = "mean"  # along the mean of the gradients of S, or their "sum"
    softmax_twice: bool = False  # as released


@taking(Options)
def glister(signals: Signals, budget: int, generator: torch.Generator, options: Options) -> Picks:
    """Greedily maximise the target's likelihood after one step of size η on the chosen (Killamsetty et al. 2021b).

    With θ(S) = θ − η Σ_{i∈S} g_i in the last layer, adding x changes the target's loss by −η ⟨g_x, ∇L(θ(S))⟩ to first
    order. The picks come in `blocks` blocks of the highest gains, after each of which ∇L is taken anew
    (GreedyDSS there). The gradients g stay those at θ. step: "sum" is that θ(S); "mean" goes along the mean of the g_i
    in place of their sum, as DeepCore does: the sum grows with S, and drives the gradient of a class's own loss to
    nothing within a few blocks, which a warning says. As released: `softmax_twice`, and a single block, since there
    the target is never taken anew.
    """
    signals = with_softmax_twice(signals, options.softmax_twice)
    return _selected(signals, signals, budget, options.eta, options.blocks, options.step)


@taking(Options)
def glister_val(signals: Signals, budget: int, generator: torch.Generator, options: Options) -> Picks:
    """Choose as `glister` does, with the validation samples as target, of the same class if balanced."""
    signals = with_softmax_twice(signals, options.softmax_twice)
    return _selected(signals, signals.validation, budget, options.eta, options.blocks, options.step)


def target_gradient(target: Signals, step: Tensor) -> Tensor:
    """Return ∇L, (C, d+1), of the target's mean cross-entropy when `step` (C, d+1) has been added to the last layer."""
    h = layer_inputs(target.features, target.bias)
    moved = replace(target, logits=target.logits.double() + h @ step.T)
    return gradient_factors(moved)[0].T @ h / len(h)


def _selected(signals: Signals, target: Signals, budget: int, eta: float, blocks: int, step: str) -> Picks:
    a, h = gradient_factors(signals)
    total = torch.zeros(a.shape[1], h.shape[1], dtype=a.dtype, device=a.device)  # Σ_{i∈S} g_i
    aim = first = target_gradient(target, total)
    left = torch.ones(len(a), dtype=torch.bool, device=a.device)
    chosen = []
    for size in (len(part) for part in np.array_split(np.arange(budget), min(blocks, budget))):
        if chosen:
            aim = target_gradient(target, -eta * total / (int((~left).sum()) if step == "mean" else 1))
        gain = products(a, h, aim)
        block = ranked(gain.masked_fill(~left, -torch.inf), size)
        chosen.append(block)
        left[block] = False
        total += a[block].T @ h[block]
    if aim.norm() <= VANISHED * first.norm():
        warnings.warn(
            "Glister: the target's gradient has vanished before the last picks, which are as good as arbitrary; "
            "take a smaller eta" + (", or step=mean" if step == "sum" else ""),
            stacklevel=2,
        )
    return Picks(torch.cat(chosen))


def resolve(classes: int, features: int, *, eta: float, blocks: int, step: str, **switches: bool) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 < eta < float("inf"):
        raise UserError(f"eta must be above 0 and finite, not {eta}")
    if blocks < 1:
        raise UserError(f"blocks must be a whole number of at least 1, not {blocks}")
    return {"eta": float(eta), "blocks": int(blocks), "step": lookup("step", str(step), STEPS), **switches}


# Records made before there was a choice are of the sum, and say nothing of it.
BEFORE = {"step": "sum", "softmax_twice": False}
RELEASED = {"softmax_twice": True, "blocks": 1, "gradient_scale": "batch"}
GLISTER, GLISTER_VAL = (
    Method(name, pick, needs, nested=False, resolve=resolve, unrecorded=BEFORE, released=RELEASED)
    for name, pick, needs in (
        ("Glister", glister, GRADIENTS),
        ("Glister-Val", glister_val, WITH_VALIDATION),
    )
)
