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

from lcmat import memory_limit as memory
from lcmat.distances.lower_bounds import LowerBounds, products_are_whole
from lcmat.distances.vectors import BLOCK_ELEMENTS, Pairs, RepresentativeDistance, first_of_equals, root
from lcmat.errors import UserError
from lcmat.signals.signals import Signals


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

    E[λ²] − E[λ]² is safe here because it is in float64 and only ranks dimensions, of which those with nearly constant
    λ come last.
    """
    return _variance(*_curvature_sums(b, u), len(b))


def _curvature_sums(b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ λ and Σ λ², (C, d+1) each, as products of (C, n) and (n, d+1) matrices."""
    return b.T @ u, b.square().T @ u.square()


def _variance(first: Tensor, second: Tensor, n: int) -> Tensor:
    return (second / n - (first / n).square()).clamp_(min=0)


def dominant_dimensions(variance: Tensor, K: int) -> Tensor:
    """Return the flat indices (class · (d+1) + feature) of the K largest variances, ties to the lowest index.

    Source: LCMat section 3.3, the set 𝒦 below Eq. 9, and appendix B.2.
    """
    flat = variance.flatten()
    least = flat.topk(K).values[-1]
    candidates = (flat >= least).nonzero()[:, 0]  # in order of the index; sorting only these keeps it
    return candidates[flat[candidates].sort(descending=True, stable=True).indices[:K]]


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

    Nothing of size n×n, n×C(d+1) or n×n×K is held: rows are formed in blocks as they are asked for.
    Exact duplicates share one representative: they are at distance exactly 0, and equally far from the rest.
    """

    def __init__(self, signals: Signals, rho: float, K: int | None = None) -> None:
        """Take the signals of the n samples among which distances are measured; ρ ≥ 0; K as `check_dimensions`."""
        self.signals, self.rho = signals, check_radius(rho)
        classes, features = signals.logits.shape[1], signals.features.shape[1]
        K = check_dimensions(K, classes, features) if rho > 0 else 0
        self.dims = dominant_dimensions(_variance_in_blocks(signals), K) if rho > 0 else None
        representative = first_of_equals(signals.features, signals.logits, signals.labels)
        super().__init__(representative, classes + features + 1 + K)

    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        features, logits, labels = (getattr(self.signals, name)[part] for name in ("features", "logits", "labels"))
        a, h = errors(logits, labels), with_bias(features)
        vectors = a, h, a.square().sum(1) * h.square().sum(1)
        if self.rho > 0:
            p, q = probabilities(logits)
            of_class, of_feature = self.dims // h.shape[1], self.dims % h.shape[1]
            vectors += ((p * q)[:, of_class] * h[:, of_feature].square(),)
        return vectors

    def lower(self) -> LowerBounds | None:
        """Return lower bounds of all distances in float32.

        None where float32 cannot give them, by its range or what the user made of it, or they do not fit into memory.
        """
        classes, width = self.signals.logits.shape[1], self.signals.features.shape[1] + 1
        K, n = 0 if self.dims is None else len(self.dims), len(self)
        fits = memory.fits(n * (classes + width + K + 2) * 4, memory.OF_VECTORS, self.device)
        if not fits or not products_are_whole(self.device):
            return None
        lower = LowerBounds(n, classes, width, K, self.device)
        for start in range(0, n, self.most):
            part = slice(start, min(start + self.most, n))
            a, h, squares, *curvature = self._vectors(self.representative[part])
            if not lower.fill(part, a, h, squares, self.rho * curvature[0] if curvature else None):
                return None
        return lower

    def _between(self, own: tuple[Tensor, ...], others: tuple[Tensor, ...], same: Pairs) -> Tensor:
        (a, h, own_squares, *own_curvature), (b, k, other_squares, *other_curvature) = own, others
        scale = own_squares[:, None] + other_squares
        # ⟨g_i, g_j⟩ = ⟨a_i, a_j⟩⟨h̃_i, h̃_j⟩
        squared = torch.addcmul(scale, a @ b.T, h @ k.T, value=-2)

        def close(i: Tensor, j: Tensor) -> Tensor:
            # g_i − g_j = (a_i − a_j) ⊗ h̃_i + a_j ⊗ (h̃_i − h̃_j): no cancellation when the two are nearly equal.
            da, dh = a[i] - b[j], h[i] - k[j]
            cross = (da * b[j]).sum(1) * (h[i] * dh).sum(1)
            return da.square().sum(1) * h[i].square().sum(1) + b[j].square().sum(1) * dh.square().sum(1) + 2 * cross

        distance = root(squared, scale, same, close, h.shape[1])
        if self.rho > 0:
            distance.add_(torch.cdist(own_curvature[0], other_curvature[0], p=1), alpha=self.rho / 2)
        return distance


def _variance_in_blocks(signals: Signals) -> Tensor:
    """Return the variance of every dimension of λ, (C, d+1), without holding the factors of all samples."""
    n, (classes, features) = len(signals), (signals.logits.shape[1], signals.features.shape[1])
    first = second = 0
    for part in torch.arange(n, device=signals.labels.device).split(max(1, BLOCK_ELEMENTS // (classes + features + 1))):
        some = Signals(signals.features[part], signals.logits[part], signals.labels[part])
        sums = _curvature_sums(*hessian_factors(some))
        first, second = first + sums[0], second + sums[1]
    return _variance(first, second, n)
