"""What a distance offers, and who asks for it.

class                   D                                     rows   block, among   lower
LossCurvatureDistance   Eq. 10                                tiles  tiles          float32 products
VectorDistance          ‖x_i − x_j‖, x formed in blocks       tiles  tiles          none
CosineDistance          ½ − ½ cos(x_i, x_j), x = a ⊗ h        tiles  tiles          none
SymmetricDivergence     ½ KL(p_i ‖ p_j) + ½ KL(p_j ‖ p_i)     tiles  k-center does not ask
Nearby                  another, bounded (as released)        as the other          none
Matrix, Part            held whole, and parts of it           looked up             none

exact, held:    D (n, n) → gains of all, updated after each pick
exact, lazy:    lower bounds of D → upper bounds of gains → of the few that could win: rows of D → gains
approximate:    rows to some clients (b, p), blocks, and the same again among a part
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Clients(Protocol):
    """Distances from n clients to all candidates, by rows."""

    def __len__(self) -> int:
        """Return n."""

    def rows(self, index: Tensor | slice) -> Tensor:
        """Return D[index]; a new tensor if `index` is one."""


class Distance(Clients, Protocol):
    """Pairwise distances of n samples."""

    device: torch.device

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start); a new tensor if `index` is one."""

    def block(self, index: Tensor, columns: Tensor) -> Tensor:
        """Return D[index, columns], (len(index), len(columns)); the exact greedy does not ask for it."""

    def among(self, index: Tensor) -> Distance:
        """Return the distances among the samples at `index`; the exact greedy does not ask for it either."""

    def lower(self) -> Tiles | None:
        """Return numbers that are never above the distances and cheaper, if there are any; the lazy greedy asks."""
        return None


class Tiles(Protocol):
    """Numbers that are never above the distances."""

    most: int  # rows at once

    def tiles(self, index: Tensor | slice, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Yield tiles of the rows at `index` that cover the columns from `start`: where, and a new tensor (b, w)."""
