"""Pairwise distances of n samples, by rows: what k-center and facility location ask for (see `Distance` there).

All are in float64, and exact also for samples that nearly coincide. Exact duplicates share one representative: they
are at distance exactly 0, and equally far from the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lcmat import memory_limit
from lcmat.block_sizes import at_once
from lcmat.distances.protocol import Tiles
from lcmat.workers import in_order

# Below this share of |x|² + |y|², the squared distance from the Gram matrix has lost too many digits.
CANCELLATION = 1e-6

Pairs = tuple[Tensor, Tensor]  # positions (r,) in the rows and columns of a block


def first_of_equals(*matrices: Tensor) -> Tensor:
    """Return for each of n samples the lowest index with the very same rows in all matrices (n, …), as (n,)."""
    n, device = len(matrices[0]), matrices[0].device
    matrices = [matrix[:, None] if matrix.ndim == 1 else matrix for matrix in matrices]
    # Equal samples have equal sums: only where sums repeat need whole rows be compared.
    elements = n * sum(m.shape[1] for m in matrices)
    blocks = torch.arange(n, device=device).tensor_split(1 + elements // at_once().elements)
    sums = torch.cat([sum(matrix[part].double().sum(1) for matrix in matrices) for part in blocks])
    _, group, counts = sums.unique(return_inverse=True, return_counts=True)
    first, repeated = torch.arange(n, device=device), (counts[group] > 1).nonzero()[:, 0]
    if len(repeated):
        rows = torch.cat([matrix[repeated].double() for matrix in matrices], 1)
        _, group = rows.unique(dim=0, return_inverse=True)
        lowest = torch.full((len(repeated),), n, device=device).scatter_reduce(0, group, repeated, "amin")
        first[repeated] = lowest[group]
    return first


def symmetric(n: int, rows: Callable[[Tensor, int], Tensor], blocks: int = 16) -> Tensor:
    """Return a symmetric matrix M (n, n), each pair formed once, by rows(index, start) that gives M[index, start:].

    Blocks of rows are formed by as many workers as are allowed: `rows` may be called by several threads.
    """
    first, *others = torch.arange(n).split(max(1, min(at_once().elements // n, -(-n // blocks))))

    def fill(part: Tensor, right: Tensor | None = None) -> None:
        start, end = int(part[0]), int(part[-1]) + 1
        right = rows(part, start) if right is None else right
        matrix[start:end, start:] = right
        matrix[end:, start:end] = right[:, end - start :].T

    top = rows(first, 0)
    matrix = top.new_empty(n, n)
    fill(first, top)
    for _ in in_order(fill, others, top.device):
        pass
    return matrix


class RepresentativeDistance(ABC):
    """Distances between vectors that are formed from samples, where equal samples share a representative.

    Subclasses say how a sample's vectors are formed, `_form`, and the distances between such, `_between`. The vectors
    are kept if that fits into memory, else formed again whenever they are needed.
    """

    def __init__(self, representative: Tensor, width: int, keep: bool = True) -> None:
        """Take the first of its equals for each of n samples, (n,), and how many numbers a sample's vectors have.

        keep: False where vectors lie ready, so that forming them is no more than looking them up.
        """
        self.representative, self.device, self.width = representative, representative.device, width
        self.all_different = bool((representative.diff() == 1).all())
        self.most = max(1, at_once().elements // width)  # samples whose vectors are formed at once
        self.kept = None
        n = len(self)
        if keep and memory_limit.fits(n * width * 8, memory_limit.OF_VECTORS, self.device):
            for start in range(0, n, self.most):
                formed = self._form(slice(start, start + self.most))
                if start == 0:
                    kept = tuple(vectors.new_empty(n, *vectors.shape[1:]) for vectors in formed)
                for whole, vectors in zip(kept, formed, strict=True):
                    whole[start : start + self.most] = vectors
            self.kept = kept

    def __len__(self) -> int:
        return len(self.representative)

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start) in float64."""
        first = start if self.all_different else 0  # a representative may come before `start`
        rows = self._tiles(self.representative[index], slice(first, len(self)))
        return rows if self.all_different else rows[:, self.representative[start:]]

    def block(self, index: Tensor, columns: Tensor) -> Tensor:
        """Return D[index, columns], (len(index), len(columns)) in float64."""
        return self._tiles(self.representative[index], self.representative[columns])

    def among(self, index: Tensor) -> Among:
        """Return the distances among the samples at `index`, whose vectors are formed once if they fit into memory."""
        return Among(self, index)

    def lower(self) -> Tiles | None:
        """There are no cheap lower bounds, unless a subclass knows some."""
        return None

    def _tiles(self, index: Tensor, columns: Tensor | slice) -> Tensor:
        """Return D[index, columns], formed in tiles that stay in the processor's cache."""
        where = range(columns.start, columns.stop) if isinstance(columns, slice) else columns
        out = torch.empty(len(index), len(where), dtype=torch.float64, device=self.device)
        high, columns_at_once = min(self.most, at_once().tile_rows), len(self) if self.kept else self.most
        wide = max(1, min(columns_at_once, at_once().tile_elements // max(1, min(high, len(index)))))
        for top in range(0, len(index), high):
            own = self._vectors(index[top : top + high])
            for left in range(0, len(where), wide):
                tile = where[left : left + wide]
                others = self._vectors(slice(tile.start, tile.stop) if isinstance(tile, range) else tile)
                same = _same(index[top : top + high], tile)
                out[top : top + high, left : left + wide] = self._between(own, others, same)
        return out

    def _vectors(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        return self._form(part) if self.kept is None else tuple(vectors[part] for vectors in self.kept)

    @abstractmethod
    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        """Return the vectors of some samples, each (b, …) in float64."""

    @abstractmethod
    def _between(self, own: tuple[Tensor, ...], others: tuple[Tensor, ...], same: Pairs) -> Tensor:
        """Return the distances (b, w) between the samples that two tuples of vectors belong to.

        same: pairs of positions where both are one sample.
        """


class Among(RepresentativeDistance):
    """The distances among some samples of another distance, in the numbering of their index (b,)."""

    def __init__(self, whole: RepresentativeDistance, index: Tensor) -> None:
        """Take the other distance and the samples."""
        self.whole, self.index = whole, whole.representative[index]
        super().__init__(first_of_equals(self.index), whole.width)

    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        return self.whole._vectors(self.index[part])

    def _between(self, own: tuple[Tensor, ...], others: tuple[Tensor, ...], same: Pairs) -> Tensor:
        return self.whole._between(own, others, same)


class VectorDistance(RepresentativeDistance):
    """Euclidean distances ‖x_i − x_j‖₂ of vectors x that are formed in blocks, (b, D) for an index (b,) or a slice."""

    def __init__(self, form: Callable[[Tensor | slice], Tensor], width: int, representative: Tensor) -> None:
        """Take the function that forms vectors, their length D, and for each of n samples the first of its equals."""
        self.form = form
        super().__init__(representative, width)

    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        x = self.form(part)
        return x, x.square().sum(1)

    def _between(self, own: tuple[Tensor, ...], others: tuple[Tensor, ...], same: Pairs) -> Tensor:
        (x, own_squares), (y, other_squares) = own, others
        scale = own_squares[:, None] + other_squares
        squared = scale.addmm(x, y.T, alpha=-2)
        return root(squared, scale, same, lambda i, j: (x[i] - y[j]).square().sum(1), x.shape[1])


def euclidean(matrix: Tensor, unit: float = 1.0) -> VectorDistance:
    """Return the distances between the rows of a matrix (n, D) of any type, in multiples of `unit`."""
    return VectorDistance(lambda part: matrix[part].double() / unit, matrix.shape[1], first_of_equals(matrix))


class CosineDistance(RepresentativeDistance):
    """½ − ½ cos(x_i, x_j) for x = a ⊗ h, from the two factors: the product is never formed. cos with 0 is 0."""

    def __init__(self, a: Tensor, h: Tensor) -> None:
        """Take the factors a (n, C) and h (n, d)."""
        self.a, self.h = _unit(a.double()), _unit(h.double())
        super().__init__(first_of_equals(a, h), a.shape[1] + h.shape[1], keep=False)

    def _form(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        return self.a[part], self.h[part]

    def _between(self, own: tuple[Tensor, ...], others: tuple[Tensor, ...], same: Pairs) -> Tensor:
        (a, h), (b, k) = own, others
        distance = (a @ b.T).mul_(h @ k.T).mul_(-0.5).add_(0.5)
        for i, j in _in_parts((distance < CANCELLATION).nonzero(), h.shape[1]):
            # 1 − cos from the differences of the two factors, of length one each
            da, dh = (a[i] - b[j]).square().sum(1), (h[i] - k[j]).square().sum(1)
            distance[i, j] = 0.25 * (da + dh - 0.5 * da * dh)
        return distance.clamp_(min=0)


def root(squared: Tensor, scale: Tensor, same: Pairs, close: Callable[[Tensor, Tensor], Tensor], width: int) -> Tensor:
    """Return the square root of |x|² + |y|² − 2⟨x, y⟩, (b, w), which is overwritten, as is `scale` = |x|² + |y|².

    Where so little is left that its digits are lost, close(i, j) gives the squared distances of pairs anew, from
    differences of vectors of length `width`; but for the pairs `same`, of a sample with itself, the distance is 0.
    """
    squared[same] = torch.inf  # not lost
    for i, j in _in_parts((squared < scale.mul_(CANCELLATION)).nonzero(), width):
        squared[i, j] = close(i, j)
    squared[same] = 0
    return squared.clamp_(min=0).sqrt_()


def _same(index: Tensor, tile: Tensor | range) -> Pairs:
    """Return where a tile's rows and columns are the same samples; columns given one by one are not searched."""
    if not isinstance(tile, range):
        return index[:0], index[:0]
    rows = ((index >= tile.start) & (index < tile.stop)).nonzero()[:, 0]
    return rows, index[rows] - tile.start


def _in_parts(pairs: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    for part in pairs.split(max(1, at_once().elements // width)):
        yield part[:, 0], part[:, 1]


class SymmetricDivergence:
    """½ KL(p_i ‖ p_j) + ½ KL(p_j ‖ p_i) = ½ Σ_c (p_ic − p_jc)(log p_ic − log p_jc), between rows of p (n, C) > 0."""

    def __init__(self, p: Tensor) -> None:
        """Take the distributions."""
        self.p, self.log, self.device = p, p.log(), p.device

    def __len__(self) -> int:
        return len(self.p)

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start)."""
        size = max(1, at_once().elements // self.p.numel())
        return torch.cat([self._block(part, start) for part in torch.arange(len(self))[index].split(size)])

    def _block(self, index: Tensor, start: int) -> Tensor:
        difference = self.p[index, None] - self.p[start:]
        return 0.5 * (difference * (self.log[index, None] - self.log[start:])).sum(2)


def _unit(rows: Tensor) -> Tensor:
    """Return rows (n, d) at length 1, zeros as they are; scaled first, since squares of tiny numbers are zero."""
    largest = rows.abs().amax(1, keepdim=True)
    scaled = rows / largest.where(largest > 0, 1.0)
    return scaled / scaled.norm(dim=1, keepdim=True).clamp(min=1)
