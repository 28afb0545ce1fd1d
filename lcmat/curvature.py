"""Gradients and Hessian diagonals of the last linear layer in closed form, and the distance of LCMat-S.

With cross-entropy, h̃ = [h, 1] (n, d+1), p = softmax(logits) and a = p − onehot(y) (n, C), the per-sample gradient in
the layer's weights and bias is g = a ⊗ h̃ and the diagonal of the Hessian is λ = p(1 − p) ⊗ h̃², each (n, C(d+1)).
Both stay as their two factors: the products of factors give every inner product and variance that is needed. All is
in float64, whatever the signals' type: products of 512 float32 values decide between picks that lie close.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from lcmat.distances import BLOCK_ELEMENTS, CANCELLATION, RepresentativeDistance, first_of_equals
from lcmat.errors import UserError
from lcmat.signals import Signals


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return p = softmax(logits) and q = 1 − p, both (n, C) in float64, exact also where p rounds to one.

    q of the largest class is summed from the others, since 1 − p would lose all digits of a sure prediction.
    """
    p = torch.softmax(logits.double(), dim=1)
    top = p.argmax(1, keepdim=True)
    others = p.scatter(1, top, 0.0).sum(1, keepdim=True)
    return p, (1 - p).scatter(1, top, others)


def errors(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a = p − onehot(y), (n, C) in float64."""
    p, q = probabilities(logits)
    return p.scatter(1, labels[:, None], -q.gather(1, labels[:, None]))


def with_bias(features: Tensor) -> Tensor:
    """Return h̃ = [h, 1], (n, d+1) in float64."""
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64, device=features.device)], 1)


def gradient_factors(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return a (n, C) and h̃ (n, d+1) with per-sample gradients g_i = a_i ⊗ h̃_i (sum reduction, no 1/n)."""
    return errors(signals.logits, signals.labels), with_bias(signals.features)


def hessian_factors(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return p(1 − p) (n, C) and h̃² (n, d+1) with per-sample Hessian diagonals λ_i = [p(1 − p)]_i ⊗ h̃²_i."""
    p, q = probabilities(signals.logits)
    return p * q, with_bias(signals.features).square()


def hessian_variance(b: Tensor, u: Tensor) -> Tensor:
    """Return the variance over the samples of every dimension of λ = b ⊗ u, (C, d+1).

    Two products of (C, n) and (n, d+1) matrices; E[λ²] − E[λ]² is safe here because it is in float64 and only ranks
    dimensions, of which those with nearly constant λ come last.
    """
    n = len(b)
    second = b.square().T @ u.square() / n
    return (second - (b.T @ u / n).square()).clamp_(min=0)


def dominant_dimensions(variance: Tensor, K: int) -> Tensor:
    """Return the flat indices (class · (d+1) + feature) of the K largest variances, ties to the lowest index.

    Source: LCMat section 3.3, the set 𝒦 below Eq. 9, and appendix B.2.
    """
    return variance.flatten().sort(descending=True, stable=True).indices[:K]


def check_dimensions(K: int | None, classes: int, features: int) -> int:
    """Return how many Hessian dimensions to use: min(100, C(d+1)), or K if the user gave it and there are as many."""
    available = classes * (features + 1)
    if K is None:
        return min(100, available)
    if not isinstance(K, Integral):
        raise UserError(f"K must be an integer, not {K!r}")
    if K < 1:
        raise UserError(f"K must be at least 1, not {K}")
    if K > available:
        raise UserError(f"K is {K}, but the last layer has only C(d+1) = {available} dimensions; give a smaller K")
    return int(K)


def check_radius(rho: float) -> float:
    """Return ρ; raise UserError unless it is finite and not negative."""
    if not 0 <= rho < math.inf:
        raise UserError(f"rho must be 0 or more and finite, not {rho}")
    return float(rho)


class LossCurvatureDistance(RepresentativeDistance):
    """The distance of LCMat-S, D_ij = ‖g_i − g_j‖₂ + ρ/2 Σ_{k∈𝒦} |λ_ik − λ_jk| (Eq. 10), by rows.

    Nothing of size n×n, n×C(d+1) or n×n×K is held: `rows` forms what it is asked for in blocks.
    Exact duplicates share one representative: they are at distance exactly 0, and equally far from the rest.
    """

    def __init__(self, signals: Signals, rho: float, K: int | None = None) -> None:
        """Take the signals of the n samples among which distances are measured; ρ ≥ 0; K as `check_dimensions`."""
        super().__init__(first_of_equals(signals.features, signals.logits, signals.labels))
        self.rho = check_radius(rho)
        K = check_dimensions(K, signals.logits.shape[1], signals.features.shape[1])
        self.a, self.h = gradient_factors(signals)
        self.squared_norm = self.a.square().sum(1) * self.h.square().sum(1)
        if rho > 0:
            b, u = hessian_factors(signals)
            dims = dominant_dimensions(hessian_variance(b, u), K)
            width = u.shape[1]
            self.curvature = b[:, dims // width] * u[:, dims % width]

    def _block(self, index: Tensor, start: int) -> Tensor:
        distance = self._gradient_distance(index, start)
        if self.rho > 0:
            distance += torch.cdist(self.curvature[index], self.curvature[start:], p=1).mul_(self.rho / 2)
        return distance

    def _gradient_distance(self, index: Tensor, start: int) -> Tensor:
        # ⟨g_i, g_j⟩ = ⟨a_i, a_j⟩⟨h̃_i, h̃_j⟩
        inner = (self.a[index] @ self.a[start:].T).mul_(self.h[index] @ self.h[start:].T)
        scale = self.squared_norm[index, None] + self.squared_norm[start:]
        squared = torch.sub(scale, inner, alpha=2, out=inner)
        lost = (squared < scale.mul_(CANCELLATION)).nonzero()
        for i, j in ((part[:, 0], part[:, 1]) for part in lost.split(max(1, BLOCK_ELEMENTS // self.h.shape[1]))):
            squared[i, j] = self._close_squared_distance(index[i], start + j)
        return squared.clamp_(min=0).sqrt_()

    def _close_squared_distance(self, i: Tensor, j: Tensor) -> Tensor:
        # g_i − g_j = (a_i − a_j) ⊗ h̃_i + a_j ⊗ (h̃_i − h̃_j): no cancellation when the two are nearly equal.
        da, dh = self.a[i] - self.a[j], self.h[i] - self.h[j]
        cross = (da * self.a[j]).sum(1) * (self.h[i] * dh).sum(1)
        return (
            da.square().sum(1) * self.h[i].square().sum(1) + self.a[j].square().sum(1) * dh.square().sum(1) + 2 * cross
        )
