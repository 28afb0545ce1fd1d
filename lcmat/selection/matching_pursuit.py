"""Orthogonal matching pursuit with non-negative weights, over vectors that are products of two factors."""

from __future__ import annotations

import torch
from torch import Tensor

from lcmat.selection.ranking import first_largest

# A dual value counts as positive above this share of the largest |⟨g, target⟩|.
TOLERANCE = 1e-12
# The least regularisation, as a share of the largest ‖g‖²: keeps the Gram matrix of equal vectors factorable.
LEAST_REGULARISATION = 1e-12


def matching_pursuit(a: Tensor, h: Tensor, target: Tensor, budget: int, regularisation: float) -> tuple[Tensor, Tensor]:
    """Choose `budget` of n vectors g_i = a_i ⊗ h_i, and weights w ≥ 0, greedily for ‖Σ w_i g_i − target‖² + λ‖w‖².

    a (n, C), h (n, D), target (C, D), λ = `regularisation` ≥ 0. Each step adds the vector of largest ⟨g, residual⟩,
    where the objective falls fastest (from w ≥ 0 on, weights can only grow), and then fits all weights anew.
    Returns indices (budget,) in the order chosen, and weights (budget,), some of which may be 0.
    Source: Killamsetty et al., GradMatch, ICML 2021, Algorithm 2.
    """
    squared_norm = a.square().sum(1) * h.square().sum(1)
    largest = float(squared_norm.max())
    fit = NonNegativeFit(budget, max(regularisation, LEAST_REGULARISATION * largest), a)
    correlation = products(a, h, target)
    fit.tolerance = TOLERANCE * float(correlation.abs().max())
    left = torch.ones(len(a), dtype=torch.bool, device=a.device)
    support = torch.empty(budget, dtype=torch.int64, device=a.device)
    aim = correlation
    for t in range(budget):
        pick = first_largest(correlation.masked_fill(~left, -torch.inf))
        left[pick] = False
        support[t] = pick
        chosen = support[: t + 1]
        fit.add((a[chosen] @ a[pick]) * (h[chosen] @ h[pick]), aim[pick])
        fit.solve()
        weights = fit.weights[: t + 1]
        correlation = products(a, h, target - (a[chosen] * weights[:, None]).T @ h[chosen])
    return support, fit.weights


def products(a: Tensor, h: Tensor, matrix: Tensor) -> Tensor:
    """Return ⟨a_i ⊗ h_i, matrix⟩ for all i, (n,), from a (n, C), h (n, D) and a matrix (C, D)."""
    return ((h @ matrix.T) * a).sum(1)


class NonNegativeFit:
    """min over w ≥ 0 of wᵀKw − 2bᵀw, K growing by a row and a column at a time (Lawson & Hanson, 1974, chapter 23).

    The active set and the Cholesky factor of its part of K are kept from one solution to the next: an added vector
    costs one triangular solve. K holds λ on its diagonal.
    """

    def __init__(self, size: int, regularisation: float, like: Tensor) -> None:
        """Make room for `size` vectors."""
        self.regularisation = regularisation
        self.tolerance = 0.0
        self.count = 0
        self.gram, self.factor = like.new_zeros(size, size), like.new_zeros(size, size)
        self.aim, self.weights = like.new_zeros(size), like.new_zeros(size)
        self.active: list[int] = []

    def add(self, products: Tensor, aim: Tensor) -> None:
        """Add a vector, by its inner products with all so far and itself (t,), and with the target."""
        t = self.count
        self.gram[t, : t + 1] = self.gram[: t + 1, t] = products
        self.gram[t, t] += self.regularisation
        self.aim[t] = aim
        self.count += 1

    def solve(self) -> None:
        """Find the weights; those of the last solution are the start."""
        for _ in range(3 * self.count + 10):  # finite in exact arithmetic; each round lowers the objective
            t = self.count
            dual = self.aim[:t] - self.gram[:t, :t] @ self.weights[:t]
            dual[self.active] = -torch.inf
            entering = int(dual.argmax())
            if not float(dual[entering]) > self.tolerance:
                return
            self._enter(entering)
            while not self._step():
                pass

    def _step(self) -> bool:
        """Go towards the solution without the bound; stop at the bound and drop what reached it. True: arrived."""
        active = torch.tensor(self.active, device=self.aim.device)
        factor = self.factor[: len(active), : len(active)]
        solution = torch.cholesky_solve(self.aim[active, None], factor)[:, 0]
        weights = self.weights[active]
        if bool((solution > 0).all()):
            self.weights[active] = solution
            return True
        blocked = solution <= 0
        ratio = torch.where(blocked, weights / (weights - solution), torch.inf)
        weights = weights + ratio.min() * (solution - weights)
        leaving = blocked & (ratio <= ratio.min())
        weights[leaving] = 0
        self.weights[active] = weights
        self.leave(leaving.nonzero()[:, 0].tolist())
        return not self.active

    def _enter(self, index: int) -> None:
        size = len(self.active)
        column = self.gram[self.active, index]
        row = torch.linalg.solve_triangular(self.factor[:size, :size], column[:, None], upper=False)[:, 0]
        self.factor[size, :size] = row
        # λ keeps what is left positive, but for rounding.
        left = self.gram[index, index] - row @ row
        self.factor[size, size] = left.clamp(min=self.regularisation / 2).sqrt()
        self.active.append(index)

    def leave(self, positions: list[int]) -> None:
        """Take out what reached the bound; the factor before the first of them stays as it is."""
        first = positions[0]
        later = [index for place, index in enumerate(self.active) if place > first and place not in positions]
        self.active = self.active[:first]
        for index in later:
            self._enter(index)
