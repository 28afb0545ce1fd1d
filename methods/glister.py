"""Glister: samples whose gradient step lowers the loss on a target set most, the training or a validation set."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lcmat.errors import UserError
from lcmat.last_layer import gradient_factors, layer_inputs
from lcmat.selection.matching_pursuit import products
from lcmat.selection.method import WITH_VALIDATION, Method, Picks
from lcmat.selection.ranking import ranked
from lcmat.signals.signals import Signals


def glister(signals: Signals, budget: int, generator: torch.Generator, eta: float = 0.1, blocks: int = 20) -> Picks:
    """Greedily maximise the target's likelihood after one step of size η on the chosen (Killamsetty et al. 2021b).

    With θ(S) = θ − η Σ_{i∈S} g_i in the last layer, adding x changes the target's loss by −η ⟨g_x, ∇L(θ(S))⟩ to first
    order. The picks come in `blocks` blocks of the highest gains, after each of which ∇L is taken anew
    (GreedyDSS there). The gradients g stay those at θ.
    """
    return _selected(signals, signals, budget, eta, blocks)


def glister_val(signals: Signals, budget: int, generator: torch.Generator, eta: float = 0.1, blocks: int = 20) -> Picks:
    """The same with the validation samples as target, of the same class if balanced."""
    return _selected(signals, signals.validation, budget, eta, blocks)


def target_gradient(target: Signals, step: Tensor) -> Tensor:
    """Return ∇L, (C, d+1), of the target's mean cross-entropy when `step` (C, d+1) has been added to the last layer."""
    h = layer_inputs(target.features, target.bias)
    moved = replace(target, logits=target.logits.double() + h @ step.T)
    return gradient_factors(moved)[0].T @ h / len(h)


def _selected(signals: Signals, target: Signals, budget: int, eta: float, blocks: int) -> Picks:
    a, h = gradient_factors(signals)
    step = torch.zeros(a.shape[1], h.shape[1], dtype=a.dtype, device=a.device)
    left = torch.ones(len(a), dtype=torch.bool, device=a.device)
    chosen = []
    for size in (len(part) for part in np.array_split(np.arange(budget), min(blocks, budget))):
        gain = products(a, h, target_gradient(target, step))
        block = ranked(gain.masked_fill(~left, -torch.inf), size)
        chosen.append(block)
        left[block] = False
        step -= eta * a[block].T @ h[block]
    return Picks(torch.cat(chosen))


def resolve(classes: int, features: int, eta: float, blocks: int) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 < eta < float("inf"):
        raise UserError(f"eta must be above 0 and finite, not {eta}")
    if blocks < 1:
        raise UserError(f"blocks must be a whole number of at least 1, not {blocks}")
    return {"eta": float(eta), "blocks": int(blocks)}


GLISTER = Method("Glister", glister, nested=False, resolve=resolve)
GLISTER_VAL = Method("Glister-Val", glister_val, needs=WITH_VALIDATION, nested=False, resolve=resolve)
