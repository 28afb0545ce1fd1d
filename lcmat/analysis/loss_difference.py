"""The loss difference of LCMat's theory, L(T) − L(S), in the parameters of the last linear layer.

With coefficients c_i = 1/n − [i ∈ S] w_i/Σw the difference is Σ_i c_i ℓ_i over the samples of T alone, so its gradient,
Hessian products and diagonal are those of one weighted loss. For h̃ = [h, 1] (n, d+1) and p = softmax(logits) (n, C) a
sample's Hessian is (diag(p) − ppᵀ) ⊗ h̃h̃ᵀ; the matrix of C(d+1) rows is never formed. All in float64.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from lcmat import seeds
from lcmat.last_layer import Difference
from lcmat.selection import Subset


def coefficients(n: int, subset: Subset | None, device: torch.device | str = "cpu") -> Tensor:
    """Return c (n,) with L(T) − L(S) = Σ c_i ℓ_i; for no subset that of L(T) alone. Weights are taken relatively."""
    c = torch.full((n,), 1 / n, dtype=torch.float64)
    if subset is not None:
        weights = np.ones(len(subset)) if subset.weights is None else subset.weights.astype(np.float64)
        c.index_add_(0, torch.from_numpy(subset.indices), torch.from_numpy(weights / -weights.sum()))
    return c.to(device)


def sharpness(
    at: Difference, like: Tensor, radius: float, starts: int, steps: int, seed: int = 0
) -> tuple[float, float, float]:
    """Return a lower bound of Eq. 4, (max_{‖ε‖≤ρ} |D(ε)| − |D(0)|)/ρ, with D(0) and ‖∇D(0)‖.

    `at` gives D(ε) and ∇D(ε) for ε of the shape of `like`. Projected gradient ascent on D and on −D, whose larger
    maximum is that of |D|: from the ball's edge in the direction of the gradient at 0 and from `starts` − 1 random
    directions. A step that does not ascend is taken back and halved.
    """
    base, gradient = at(torch.zeros_like(like))
    norm = float(gradient.norm())
    best = abs(base)
    generator = seeds.generator(seed, "sharpness")
    directions = [gradient] + [
        torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device) for _ in range(starts - 1)
    ]
    for sign, direction in itertools.product((1, -1), directions):
        best = max(best, _ascend(at, sign, sign * direction, radius, steps))
    return (best - abs(base)) / radius, base, norm


def _ascend(at: Difference, sign: int, start: Tensor, radius: float, steps: int) -> float:
    """Return the highest sign · D on the way from the ball's edge in the direction of `start`."""
    place = start * (radius / max(float(start.norm()), 1e-300))
    value, gradient = at(place)
    step = radius
    for left in reversed(range(steps)):
        ahead = place + sign * gradient * (step / max(float(gradient.norm()), 1e-300))
        ahead = ahead * min(1.0, radius / max(float(ahead.norm()), 1e-300))
        reached, slope = at(ahead, slope=left > 0)
        if sign * reached > sign * value:
            place, value, gradient = ahead, reached, slope
        else:
            step /= 2
    return sign * value
