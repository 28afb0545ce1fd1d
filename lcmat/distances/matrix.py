"""Distances that are held: one symmetric matrix, and parts of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Matrix:
    """A distance held as one symmetric matrix (n, n)."""

    values: Tensor

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.values.device

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start)."""
        rows = self.values[index] if isinstance(index, slice) else self.values.index_select(0, index)
        return rows[:, start:].double()  # float32 would round sums of n terms too coarsely

    def block(self, index: Tensor, columns: Tensor) -> Tensor:
        """Return D[index, columns], (len(index), len(columns))."""
        return self.values[index][:, columns].double()

    def among(self, index: Tensor) -> Part:
        """Return the distances among the samples at `index`, which are not copied."""
        return Part(self, index)


@dataclass(frozen=True)
class Part:
    """The distances among the samples at `index` of a matrix."""

    whole: Matrix
    index: Tensor

    @property
    def device(self) -> torch.device:
        """Where distances are computed."""
        return self.whole.device

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, index: Tensor | slice, start: int = 0) -> Tensor:
        """Return D[index, start:] in the numbering of this part."""
        return self.whole.block(self.index[index], self.index[start:])

    def block(self, index: Tensor, columns: Tensor) -> Tensor:
        """Return D[index, columns] in the numbering of this part."""
        return self.whole.block(self.index[index], self.index[columns])

    def among(self, index: Tensor) -> Part:
        """Return the distances among some of these samples."""
        return Part(self.whole, self.index[index])
