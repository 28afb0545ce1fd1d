"""Pairwise distances of n samples, by rows: what k-center and facility location ask for (see `Distance` there).

All are in float64, and exact also for samples that nearly coincide. Exact duplicates share one representative: they
are at distance exactly 0, and equally far from the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcmat import memory

# Elements of one temporary block: 2²¹ float64 values are 16 MiB, of which a few live at once.
BLOCK_ELEMENTS = 2**21
# Below this share of |x|² + |y|², the squared distance from the Gram matrix has lost too many digits.
CANCELLATION = 1e-6


def first_of_equals(*matrices: Tensor) -> Tensor:
    """Return for each of n samples the lowest index with the very same rows in all matrices (n, …), as (n,)."""
    n, device = len(matrices[0]), matrices[0].device
    rows = [matrix[:, None].double() if matrix.ndim == 1 else matrix.double() for matrix in matrices]
    # Equal samples have equal sums: only where sums repeat need whole rows be compared.
    sums = sum(matrix.sum(1) for matrix in rows)
    if len(sums.unique()) == n:
        return torch.arange(n, device=device)
    _, group = torch.cat(rows, 1).unique(dim=0, return_inverse=True)
    first = torch.full((n,), n, device=device).scatter_reduce(0, group, torch.arange(n, device=device), "amin")
    return first[group]


def symmetric(n: int, rows: Callable[[Tensor, int], Tensor], blocks: int = 16) -> Tensor:
    """Return a symmetric matrix M (n, n), each pair formed once, by rows(index, start) that gives M[index, start:]."""
    matrix = None
    for part in torch.arange(n).split(max(1, min(BLOCK_ELEMENTS // n, -(-n // blocks)))):
        start, end = int(part[0]), int(part[-1]) + 1
        right = rows(part, start)
        if matrix is None:
            matrix = right.new_empty(n, n)
        matrix[start:end, start:] = right
        matrix[end:, start:end] = right[:, end - start :].T
    return matrix


class RepresentativeDistance:
    """Distances by rows where equal samples share a representative. Subclasses form `_block(index, start)`."""

    def __init__(self, representative: Tensor) -> None:
        """Take the first of its equals for each of n samples, (n,)."""
        self.representative, self.device = representative, representative.device
        self.all_different = bool((representative.diff() == 1).all())

    def __len__(self) -> int:
        return len(self.representative)

    def rows(self, index: Tensor, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start) in float64."""
        size = max(1, BLOCK_ELEMENTS // len(self))
        first = start if self.all_different else 0  # a representative may come before `start`
        blocks = [self._block(part, first) for part in self.representative[index].split(size)]
        rows = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        return rows if self.all_different else rows[:, self.representative[start:]]


class VectorDistance(RepresentativeDistance):
    """Euclidean distances ‖x_i − x_j‖₂ of vectors x that are formed in blocks, (b, D) for an index (b,) or a slice."""

    def __init__(self, form: Callable[[Tensor | slice], Tensor], width: int, representative: Tensor) -> None:
        """Take the function that forms vectors, their length D, and for each of n samples the first of its equals."""
        super().__init__(representative)
        n = len(self)
        self.step = max(1, BLOCK_ELEMENTS // width)
        if memory.fits(n * width * 8, memory.OF_VECTORS, self.device):
            vectors = torch.cat([form(part) for part in self._slices()])
            self.form, self.step = vectors.__getitem__, n
        else:
            self.form = form
        self.squared_norm = torch.cat([self.form(part).square().sum(1) for part in self._slices()])

    def _slices(self, start: int = 0) -> list[slice]:
        return [slice(first, first + self.step) for first in range(start, len(self), self.step)]

    def _block(self, index: Tensor, start: int) -> Tensor:
        own = self.form(index)
        inner = torch.cat([own @ self.form(part).T for part in self._slices(start)], 1)
        scale = self.squared_norm[index, None] + self.squared_norm[start:]
        squared = torch.sub(scale, inner, alpha=2, out=inner)
        lost = (squared < scale.mul_(CANCELLATION)).nonzero()
        for i, j in ((part[:, 0], part[:, 1]) for part in lost.split(max(1, BLOCK_ELEMENTS // own.shape[1]))):
            squared[i, j] = (own[i] - self.form(start + j)).square().sum(1)
        return squared.clamp_(min=0).sqrt_()


def euclidean(matrix: Tensor) -> VectorDistance:
    """Return the distances between the rows of a matrix (n, D)."""
    matrix = matrix.double()
    return VectorDistance(matrix.__getitem__, matrix.shape[1], first_of_equals(matrix))


class CosineDistance(RepresentativeDistance):
    """½ − ½ cos(x_i, x_j) for x = a ⊗ h, from the two factors: the product is never formed. cos with 0 is 0."""

    def __init__(self, a: Tensor, h: Tensor) -> None:
        """Take the factors a (n, C) and h (n, d)."""
        super().__init__(first_of_equals(a, h))
        self.a, self.h = _unit(a.double()), _unit(h.double())

    def _block(self, index: Tensor, start: int) -> Tensor:
        rows = (self.a[index] @ self.a[start:].T).mul_(self.h[index] @ self.h[start:].T).mul_(-0.5).add_(0.5)
        for pairs in (rows < CANCELLATION).nonzero().split(max(1, BLOCK_ELEMENTS // self.h.shape[1])):
            i, j = index[pairs[:, 0]], start + pairs[:, 1]
            # 1 − cos from the differences of the two factors, of length one each
            da, dh = (self.a[i] - self.a[j]).square().sum(1), (self.h[i] - self.h[j]).square().sum(1)
            rows[pairs[:, 0], pairs[:, 1]] = 0.25 * (da + dh - 0.5 * da * dh)
        return rows.clamp_(min=0)


class SymmetricDivergence:
    """½ KL(p_i ‖ p_j) + ½ KL(p_j ‖ p_i) = ½ Σ_c (p_ic − p_jc)(log p_ic − log p_jc), between rows of p (n, C) > 0."""

    def __init__(self, p: Tensor) -> None:
        """Take the distributions."""
        self.p, self.log, self.device = p, p.log(), p.device

    def __len__(self) -> int:
        return len(self.p)

    def rows(self, index: Tensor, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start)."""
        size = max(1, BLOCK_ELEMENTS // self.p.numel())
        return torch.cat([self._block(part, start) for part in torch.as_tensor(index).split(size)])

    def _block(self, index: Tensor, start: int) -> Tensor:
        difference = self.p[index, None] - self.p[start:]
        return 0.5 * (difference * (self.log[index, None] - self.log[start:])).sum(2)


def _unit(rows: Tensor) -> Tensor:
    """Return rows (n, d) at length 1, zeros as they are; scaled first, since squares of tiny numbers are zero."""
    largest = rows.abs().amax(1, keepdim=True)
    scaled = rows / largest.where(largest > 0, 1.0)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1)
