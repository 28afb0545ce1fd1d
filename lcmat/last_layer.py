"""Gradients and Hessian diagonals of the last linear layer in closed form, and the distance of LCMat-S.

With cross-entropy, h̃ = [h, 1] (n, d+1), p = softmax(logits) and a = p − onehot(y) (n, C), the per-sample gradient in
the layer's weights and bias is g = a ⊗ h̃ and the diagonal of the Hessian is λ = p(1 − p) ⊗ h̃², each (n, C(d+1)).
For a layer without bias h̃ is h, and d stands in the place of d+1.
Both stay as their two factors: the products of factors give every inner product and variance that is needed. All is
in float64, whatever the signals' type: products of 512 float32 values decide between picks that lie close.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor

from lcmat import memory_limit
from lcmat.alive import Progress
from lcmat.effort import effort
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


def residuals(logits: Tensor, labels: Tensor) -> Tensor:
    """Return a = p − onehot(y), (n, C) in float64."""
    p, q = probabilities(logits)
    return p.scatter(1, labels[:, None], -q.gather(1, labels[:, None]))


def residuals_through_two_softmaxes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the derivative of the cross-entropy of softmax(softmax(z)) in z, (n, C) in float64.

    It is p ∘ (r − p·r) with r = softmax(p) − onehot(y), summed without the largest p, so that nothing cancels where
    that is 1 but for rounding.
    """
    p, q = probabilities(logits)
    r = torch.softmax(p, 1).scatter_add(1, labels[:, None], torch.full_like(p[:, :1], -1))
    top = p.argmax(1, keepdim=True)
    rest = (p * r).scatter(1, top, 0.0).sum(1, keepdim=True)
    of_top, share = r.gather(1, top), p.gather(1, top)
    a = p * (r - share * of_top - rest)
    return a.scatter(1, top, share * (q.gather(1, top) * of_top - rest))


def layer_inputs(features: Tensor, bias: bool) -> Tensor:
    """Return h̃ in float64: [h, 1], (n, d+1), or h itself, (n, d), for a layer without bias.

    All gradients and Hessians of the last layer are formed from this h̃; elsewhere d+1 stands for its width.
    """
    if not bias:
        return features.double()
    return torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.float64, device=features.device)], 1)


Part = slice | Tensor
ALL = slice(None)


def gradient_factors(signals: Signals, part: Part = ALL) -> tuple[Tensor, Tensor]:
    """Return a (n, C) and h̃ (n, d+1) with per-sample gradients g_i = a_i ⊗ h̃_i (sum reduction, no 1/n).

    Of the samples in `part`. Where signals have a scale, it is in a; and so is a softmax too many.
    """
    of = residuals_through_two_softmaxes if signals.softmax_twice else residuals
    a = of(signals.logits[part], signals.labels[part])
    return _scaled(a, signals, part), layer_inputs(signals.features[part], signals.bias)


def hessian_factors(signals: Signals, part: Part = ALL) -> tuple[Tensor, Tensor]:
    """Return p(1 − p) (n, C) and h̃² (n, d+1) with per-sample Hessian diagonals λ_i = [p(1 − p)]_i ⊗ h̃²_i.

    Of the samples in `part`. Where signals have a scale, it is in p(1 − p).
    """
    p, q = probabilities(signals.logits[part])
    return _scaled(p * q, signals, part), layer_inputs(signals.features[part], signals.bias).square()


def _scaled(rows: Tensor, signals: Signals, part: Part) -> Tensor:
    return rows if signals.scale is None else rows * signals.scale[part, None]


def parameters_per_class(signals: Signals) -> int:
    """Return the width of h̃: d+1, or d for a layer without bias."""
    return signals.features.shape[1] + signals.bias


def hessian_variance(b: Tensor, u: Tensor) -> Tensor:
    """Return the variance over the samples of every dimension of λ = b ⊗ u, (C, d+1).

    E[λ²] − E[λ]² is safe here because it is in float64 and only ranks dimensions, of which those with nearly constant
    λ come last.
    """
    return variance_of_sums(*curvature_sums(b, u), len(b))


def curvature_sums(b: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ λ and Σ λ², (C, d+1) each, as products of (C, n) and (n, d+1) matrices."""
    return b.T @ u, b.square().T @ u.square()


def variance_of_sums(first: Tensor, second: Tensor, n: int) -> Tensor:
    """Return the variance of n values from their sum and the sum of their squares."""
    return (second / n - (first / n).square()).clamp_(min=0)


def dominant_dimensions(variance: Tensor, K: int) -> Tensor:
    """Return the flat indices (class · (d+1) + feature) of the K largest variances, ties to the lowest index.

    Source: LCMat section 3.3, the set 𝒦 below Eq. 9, and appendix B.2.
    """
    flat = variance.flatten()
    least = flat.topk(K).values[-1]
    candidates = (flat >= least).nonzero()[:, 0]  # in order of the index; sorting only these keeps it
    return candidates[flat[candidates].sort(descending=True, stable=True).indices[:K]]


# ε, and whether the gradient is wanted ↦ D(ε), and ∇D(ε) or None.
Difference = Callable[..., tuple[float, Tensor | None]]


# Below this many parameters the Hessian is formed: Lanczos needs more dimensions than it returns vectors.
DENSE = 64
# Restarts of Lanczos after which the Hessian is formed, too, if it is small enough (`effort().most_dense`).
FEW_RESTARTS = 100


@dataclass(frozen=True, eq=False)
class LastLayer:
    """What the samples of T are to the last layer: a = p − onehot(y) and p, (n, C) each, and h̃ (n, d+1), float64."""

    logits: Tensor
    labels: Tensor
    a: Tensor
    p: Tensor
    h: Tensor

    @staticmethod
    def of(signals: Signals) -> LastLayer:
        """Take the signals of one network on T."""
        p, _ = probabilities(signals.logits)
        a, h = residuals(signals.logits, signals.labels), layer_inputs(signals.features, signals.bias)
        return LastLayer(signals.logits.double(), signals.labels, a, p, h)

    @property
    def shape(self) -> tuple[int, int]:
        """(C, d+1): the layer's weights and biases; (C, d) if it has no bias."""
        return self.p.shape[1], self.h.shape[1]

    def gradient(self, c: Tensor) -> Tensor:
        """Return Σ c_i a_i ⊗ h̃_i, (C, d+1)."""
        c, h, a = _counting(c, self.h, self.a)
        return (c[:, None] * a).T @ h

    def diagonal(self, c: Tensor) -> Tensor:
        """Return the diagonal of the Hessian, Σ c_i p_i(1 − p_i) ⊗ h̃_i², (C, d+1)."""
        c, p, h = _counting(c, self.p, self.h)
        return (c[:, None] * p * (1 - p)).T @ h.square()

    def product(self, c: Tensor) -> Callable[[Tensor], Tensor]:
        """Return V ↦ H V for V (C, d+1): Σ c_i [p_i ∘ (u_i − p_i·u_i)] ⊗ h̃_i with u_i = V h̃_i."""
        c, p, h = _counting(c, self.p, self.h)

        def apply(v: Tensor) -> Tensor:
            u = h @ v.T
            return (c[:, None] * p * (u - (p * u).sum(1, keepdim=True))).T @ h

        return apply

    def extreme_eigenvalues(self, c: Tensor) -> tuple[float, float]:
        """Return the lowest and the highest eigenvalue of the Hessian, signed, by Lanczos (SciPy's eigsh).

        Where Lanczos cannot tell the lowest one from a cluster at zero, as where all of S is classified very surely,
        the whole spectrum is computed. In a layer too large for that (`effort().most_dense`) the lowest one is right to
        10⁻⁶ of the largest, or to 10⁻⁴ if no better is reached. Raises UserError if that is not reached either.
        """
        classes, width = self.shape
        size, apply = classes * width, self.product(c)

        def flat(v: np.ndarray) -> np.ndarray:
            return apply(torch.from_numpy(v.reshape(classes, width)).to(self.h)).flatten().cpu().numpy()

        if size <= DENSE:
            values = np.linalg.eigvalsh(np.stack([flat(row) for row in np.eye(size)]))
            return float(values[0]), float(values[-1])
        start = np.random.default_rng(0).standard_normal(size)  # eigsh draws it anew each time otherwise
        # What is nothing but rounding has no largest eigenvalue: S = T.
        if np.linalg.norm(flat(start)) <= 1e-13 * float(c.abs().sum() * self.h.square().sum(1).max()) * size**0.5:
            return 0.0, 0.0
        largest = _largest(flat, start)
        # Without negative c the Hessian is positive semidefinite, and zero for equal moves of all classes.
        if bool((c >= 0).all()):
            return 0.0, largest

        # The other end is the largest by size once the spectrum is moved, so that it may be near zero, or many times
        # the same, as where all of S is classified surely.
        def moved(v: np.ndarray) -> np.ndarray:
            return flat(v) - largest * v

        try:
            other = largest + _largest(moved, start, restarts=FEW_RESTARTS)
        except UserError:
            if size <= effort().most_dense and 3 * 8 * size**2 < memory_limit.free(self.h.device):
                return self._extremes_of_all(c)
            try:
                other = largest + _largest(moved, start, tolerance=1e-6)
            except UserError:
                other = largest + _largest(moved, start, tolerance=1e-4)
            other = min(other, 0.0) if largest > 0 else max(other, 0.0)  # zero is an eigenvalue, see above
        return min(largest, other), max(largest, other)

    def _extremes_of_all(self, c: Tensor) -> tuple[float, float]:
        """Return the same from all eigenvalues of the Hessian, which is formed block by block."""
        c, p, h = _counting(c, self.p, self.h)
        classes, width = self.shape
        hessian = h.new_empty(classes, width, classes, width)
        for i, j in itertools.combinations_with_replacement(range(classes), 2):
            hessian[i, :, j] = hessian[j, :, i] = _block(c, p, h, i, j)
        values = torch.linalg.eigvalsh(hessian.view(classes * width, -1))
        return float(values[0]), float(values[-1])

    def frobenius(self, several: Sequence[Tensor]) -> list[float]:
        """Return the Frobenius norm of the Hessian under each c: block by block of C(C+1)/2, (d+1)² numbers of each c.

        The first c must count all samples of T; the blocks of T are formed once for all that follow, since every other
        differs from it in its subset's samples only.
        """
        first, rest = several[0], [c - several[0] for c in several[1:]]
        squares = [0.0] * len(several)
        parts = [_counting(c, self.p, self.h) for c in (first, *rest)]
        pairs = list(itertools.combinations_with_replacement(range(self.shape[0]), 2))
        for i, j in Progress(pairs, desc="Frobenius norm"):
            blocks = [_block(c, p, h, i, j) for c, p, h in parts]
            for number, block in enumerate(blocks):
                whole = block if number == 0 else blocks[0] + block
                squares[number] += float(whole.square().sum()) * (1 if i == j else 2)
        return [value**0.5 for value in squares]

    def loss(self, c: Tensor) -> Difference:
        """Return ε ↦ (Σ c_i ℓ_i, its gradient) at the layer's parameters moved by ε (C, d+1)."""
        c, h, z, y = _counting(c, self.h, self.logits, self.labels)

        def at(move: Tensor, slope: bool = True) -> tuple[float, Tensor | None]:
            logits = z + h @ move.T
            log_p = torch.log_softmax(logits, 1)
            value = -float(c @ log_p.gather(1, y[:, None])[:, 0])
            if not slope:
                return value, None
            a = log_p.exp().scatter_add(1, y[:, None], torch.full_like(c, -1)[:, None])
            return value, (c[:, None] * a).T @ h

        return at


def _largest(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, tolerance: float = 1e-9, restarts: int | None = None
) -> float:
    """Return the eigenvalue that is largest by size, to `tolerance` of itself.

    Raises UserError if Lanczos does not converge in so many restarts, by default ten for each dimension.
    """
    operator = LinearOperator((len(start), len(start)), matvec=product, dtype=np.float64)
    how = {"k": 1, "which": "LM", "v0": start, "ncv": 40, "return_eigenvectors": False}
    try:
        found = eigsh(operator, tol=tolerance, maxiter=restarts, **how)
    except ArpackError as error:
        raise UserError(f"the largest eigenvalue of the last layer's Hessian was not found: {error}") from error
    return float(found[0])


def _counting(c: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Return c and the rows of values where c is not zero: a subset alone is far smaller than T."""
    some = c != 0
    return (c, *values) if bool(some.all()) else tuple(value[some] for value in (c, *values))


def _block(c: Tensor, p: Tensor, h: Tensor, i: int, j: int) -> Tensor:
    """Return the block of the Hessian for classes i and j, (d+1, d+1)."""
    share = p[:, i] * (float(i == j) - p[:, j])
    return ((c * share)[:, None] * h).T @ h
