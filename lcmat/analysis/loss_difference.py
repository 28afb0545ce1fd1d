"""The loss difference of LCMat's theory, L(T) − L(S), in the parameters of the last linear layer.

With coefficients c_i = 1/n − [i ∈ S] w_i/Σw the difference is Σ_i c_i ℓ_i over the samples of T alone, so its gradient,
Hessian products and diagonal are those of one weighted loss. For h̃ = [h, 1] (n, d+1) and p = softmax(logits) (n, C) a
sample's Hessian is (diag(p) − ppᵀ) ⊗ h̃h̃ᵀ; the matrix of C(d+1) rows is never formed. All in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from tqdm import tqdm

from lcmat import seeds
from lcmat.errors import UserError
from lcmat.last_layer import errors, probabilities, with_bias
from lcmat.selection.select import Subset
from lcmat.signals.signals import Signals

# ε, and whether the gradient is wanted ↦ D(ε), and ∇D(ε) or None.
Difference = Callable[..., tuple[float, Tensor | None]]
# Below this many parameters the Hessian is formed: Lanczos needs more dimensions than it returns vectors.
DENSE = 64


def coefficients(n: int, subset: Subset | None, device: torch.device | str = "cpu") -> Tensor:
    """Return c (n,) with L(T) − L(S) = Σ c_i ℓ_i; for no subset that of L(T) alone. Weights are taken relatively."""
    c = torch.full((n,), 1 / n, dtype=torch.float64)
    if subset is not None:
        weights = np.ones(len(subset)) if subset.weights is None else subset.weights.astype(np.float64)
        c.index_add_(0, torch.from_numpy(subset.indices), torch.from_numpy(weights / -weights.sum()))
    return c.to(device)


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
        a, h = errors(signals.logits, signals.labels), with_bias(signals.features)
        return LastLayer(signals.logits.double(), signals.labels, a, p, h)

    @property
    def shape(self) -> tuple[int, int]:
        """(C, d+1): the layer's weights and biases."""
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
        """Return the lowest and the highest eigenvalue of the Hessian, signed, by Lanczos (SciPy's eigsh)."""
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
        other = largest + _largest(lambda v: flat(v) - largest * v, start)
        return min(largest, other), max(largest, other)

    def frobenius(self, several: Sequence[Tensor]) -> list[float]:
        """Return the Frobenius norm of the Hessian under each c: block by block of C(C+1)/2, (d+1)² numbers of each c.

        The first c must count all samples of T; the blocks of T are formed once for all that follow, since every other
        differs from it in its subset's samples only.
        """
        first, rest = several[0], [c - several[0] for c in several[1:]]
        squares = [0.0] * len(several)
        parts = [_counting(c, self.p, self.h) for c in (first, *rest)]
        pairs = list(itertools.combinations_with_replacement(range(self.shape[0]), 2))
        for i, j in tqdm(pairs, desc="Frobenius norm", disable=None, leave=False):
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


def _largest(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> float:
    """Return the eigenvalue that is largest by size. Raises UserError if Lanczos does not converge."""
    operator = LinearOperator((len(start), len(start)), matvec=product, dtype=np.float64)
    try:
        found = eigsh(operator, k=1, which="LM", v0=start, ncv=40, tol=1e-9, return_eigenvectors=False)
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
