"""The distance of LCMat-S: gradients and the most variable Hessian diagonal of the last layer (Eq. 10), by rows."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from lcmat import memory_limit
from lcmat.block_sizes import at_once
from lcmat.compiled import loops
from lcmat.distances.lower_bounds import LowerBounds, products_are_whole
from lcmat.distances.vectors import Pairs, RepresentativeDistance, first_of_equals, root
from lcmat.errors import UserError
from lcmat.last_layer import (
    curvature_sums,
    dominant_dimensions,
    gradient_factors,
    hessian_factors,
    parameters_per_class,
    variance_of_sums,
)
from lcmat.method_options import check_radius
from lcmat.signals import Signals


def check_dimensions(K: int | None, available: int) -> int:
    """Return how many of the Hessian's `available` dimensions to use: at most 100, or K if the user gave it."""
    if K is None:
        return min(100, available)
    if not isinstance(K, Integral) or isinstance(K, bool):
        raise UserError(f"K must be an integer, not {K!r}")
    if K < 1:
        raise UserError(f"K must be at least 1, not {K}")
    if K > available:
        raise UserError(f"K is {K}, but the last layer has only {available} dimensions; give a smaller K")
    return int(K)


class LossCurvatureDistance(RepresentativeDistance):
    """The distance of LCMat-S, D_ij = ‖g_i − g_j‖₂ + ρ/2 Σ_{k∈𝒦} |λ_ik − λ_jk| (Eq. 10), by rows.

    Nothing of size n×n, n×C(d+1) or n×n×K is held: rows are formed in blocks as they are asked for.
    Exact duplicates share one representative: they are at distance exactly 0, and equally far from the rest.
    """

    def __init__(self, signals: Signals, rho: float, K: int | None = None) -> None:
        """Take the signals of the n samples among which distances are measured; ρ ≥ 0; K as `check_dimensions`."""
        self.signals, self.rho = signals, check_radius(rho)
        classes, width = signals.logits.shape[1], parameters_per_class(signals)
        K = check_dimensions(K, classes * width) if rho > 0 else 0
        self.dims = dominant_dimensions(_variance_in_blocks(signals), K) if rho > 0 else None
        representative = first_of_equals(*signals.matrices)
        self.loops = loops(len(signals), representative.device)
        super().__init__(representative, classes + width + K)

    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        a, h = gradient_factors(self.signals, part)
        vectors = a, h, a.square().sum(1) * h.square().sum(1)
        if self.rho > 0:
            b, u = hessian_factors(self.signals, part)
            vectors += (b[:, self.dims // h.shape[1]] * u[:, self.dims % h.shape[1]],)
        return vectors

    def lower(self) -> LowerBounds | None:
        """Return lower bounds of all distances in float32.

        None where float32 cannot give them, by its range or what the user made of it, or they do not fit into memory.
        """
        classes, width = self.signals.logits.shape[1], parameters_per_class(self.signals)
        K, n = 0 if self.dims is None else len(self.dims), len(self)
        fits = memory_limit.fits(n * (classes + width + K + 2) * 4, memory_limit.OF_VECTORS, self.device)
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
            self.loops.add_l1(distance, own_curvature[0], other_curvature[0], self.rho / 2)
        return distance


def _variance_in_blocks(signals: Signals) -> Tensor:
    """Return the variance of every dimension of λ, (C, d+1), without holding the factors of all samples."""
    n, width = len(signals), signals.logits.shape[1] + parameters_per_class(signals)
    first = second = 0
    for part in torch.arange(n, device=signals.labels.device).split(max(1, at_once().elements // width)):
        sums = curvature_sums(*hessian_factors(signals, part))
        first, second = first + sums[0], second + sums[1]
    return variance_of_sums(first, second, n)
