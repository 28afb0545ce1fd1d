"""Distances as the code released with LCMat forms them: whole matrices in float32, and what is no number counted as 0.

Lines: github.com/SJShin-AI/LCMat at 3d74891, LCMat_main/deepcore/methods/. Factors take the place of vectors of length
C(d+1) where that is possible; it changes the rounding of inner products, which is that of a BLAS there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcmat import memory_limit as memory
from lcmat.block_sizes import at_once
from lcmat.distances.protocol import Distance
from lcmat.errors import UserError
from lcmat.last_layer import dominant_dimensions, hessian_factors, hessian_variance, layer_inputs
from lcmat.signals import Signals


def gradient_factors_in_float32(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return softmax(z) − onehot(y) (n, C), by the signals' scale, and h̃ (n, d+1), in float32: 0 where p is 1."""
    a = torch.softmax(signals.logits.float(), 1)
    a[torch.arange(len(a), device=a.device), signals.labels] -= 1
    if signals.scale is not None:
        a *= signals.scale[:, None].float()
    return a, layer_inputs(signals.features, signals.bias).float()


def hessian_factors_in_float32(signals: Signals) -> tuple[Tensor, Tensor]:
    """Return p(1 − p) (n, C), by the signals' scale, and h̃² (n, d+1), in float32.

    1 − p keeps its digits, as BackPACK's symmetric factors do that the released code takes the diagonal from.
    """
    b, u = hessian_factors(signals)
    return b.float(), u.float()


def loss_curvature_in_float32(signals: Signals, rho: float, K: int) -> Tensor:
    """Return LCMat-S's distances (n, n), ‖Δg‖₂ + ρ/2 ‖Δλ_K‖₁ (submodular.py 157, cossim.py 29-58).

    K: dimensions of largest variance, which are found in float64.
    """
    _check_memory(len(signals), signals.labels.device)
    a, h = gradient_factors_in_float32(signals)
    distances = _root(a @ a.T, h @ h.T, a.square().sum(1) * h.square().sum(1))
    if rho > 0:
        dims = dominant_dimensions(hessian_variance(*hessian_factors(signals)), K)
        b, u = hessian_factors_in_float32(signals)
        curvature = b[:, dims // h.shape[1]] * u[:, dims % h.shape[1]]
        for part in torch.arange(len(a)).split(max(1, at_once().elements // len(a))):
            distances[part] += rho / 2 * torch.cdist(curvature[part], curvature, p=1)
    return distances


def preconditioned_in_float32(signals: Signals, damping: float, mean_curvature: bool) -> Tensor:
    """Return AdaCore's distances (n, n) between g/(λ + δ), δ = `damping` · mean λ (submodular.py 163-167).

    Without damping, what is divided by a λ of 0 is no number where g is 0, as it is for every feature that is 0; and so
    is the sample's distance from all others, which then counts as 0 (cossim.py 36).
    """
    _check_memory(len(signals), signals.labels.device)
    (a, h), (b, u) = gradient_factors_in_float32(signals), hessian_factors_in_float32(signals)
    mean = torch.einsum("nc,nk->ck", b, u) / len(b)
    curvature = mean if mean_curvature else b[:, :, None] * u[:, None, :]
    x = ((a[:, :, None] * h[:, None, :]) * (curvature + damping * mean.mean()).reciprocal()).flatten(1)
    return _root(x @ x.T, 1, x.square().sum(1))


def _root(first: Tensor, second: Tensor | int, squares: Tensor) -> Tensor:
    """Return √(x² + y² − 2xy) with xy = first · second (cossim.py 29-38: `l2_norm_np`).

    A sample is at 0 from itself, where there it is at what two ways to sum up x² differ by.
    """
    squared = squares[:, None] + squares - 2 * (first * second)
    return torch.where(torch.isnan(squared) | (squared < 0), 0, squared).sqrt_().fill_diagonal_(0)


def _check_memory(n: int, device: torch.device) -> None:
    if not memory.fits(3 * n * n * 4, 1.0, device):
        raise UserError(f"float32 holds all distances of {n:,} samples, {n * n * 4 / 1e9:.1f} GB; raise --memory")


class Nearby:
    """Another distance, of which more than `most` counts as `most`, and what is no number as 0."""

    def __init__(self, whole: Distance, most: float = torch.inf) -> None:
        """Take the other distance and the largest that counts."""
        self.whole, self.most, self.device = whole, most, whole.device

    def __len__(self) -> int:
        return len(self.whole)

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start); a new tensor."""
        return self._bounded(self.whole.rows(index, start))

    def block(self, index: Tensor, columns: Tensor) -> Tensor:
        """Return D[index, columns], (len(index), len(columns))."""
        return self._bounded(self.whole.block(index, columns))

    def among(self, index: Tensor) -> Nearby:
        """Return the distances among the samples at `index`."""
        return Nearby(self.whole.among(index), self.most)

    def lower(self) -> None:
        """There are no cheap lower bounds."""

    def _bounded(self, distances: Tensor) -> Tensor:
        return distances.nan_to_num(nan=0.0, posinf=torch.inf).clamp(max=self.most)
