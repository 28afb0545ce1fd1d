"""Lower bounds of LCMat-S's distance in float32: half the bytes and, with its own L1 sum, a third of the time.

A bound is never above the distance, and within about 1e-4 of the samples' norms below it. A sample's gain follows from
distances that are too short as a number that is too large: enough to tell which samples need not be looked at
(`lazy_greedy`), so that no pick depends on float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lcmat.block_sizes import at_once

# What one operation in float32 rounds by, as a share of its result.
ROUNDING = 2.0**-24
# Beyond this, squares of features could leave float32's range; and products below NOTHING may be lost at its lower end.
LARGEST, NOTHING = 1e6, 1e-20


def products_are_whole(device: torch.device) -> bool:
    """Tell whether matrix products of float32 are computed in it, not in TensorFloat-32 or bfloat16 as users may allow.

    By a try: PyTorch has several switches for that, of which the newer ones make the older ones fail.
    """
    values = torch.full((128, 128), 1 + 2.0**-20, device=device)
    return torch.equal(values @ torch.eye(128, device=device), values)


class LowerBounds:
    """Lower bounds of D_ij = ‖g_i − g_j‖₂ + ½ Σ_k |μ_ik − μ_jk| with g = a ⊗ h̃ and μ = ρλ ≥ 0 (Eq. 10), by tiles.

    From the Gram products, ‖g_i‖² + ‖g_j‖² − 2⟨a_i, a_j⟩⟨h̃_i, h̃_j⟩, and from ½|x − y| = max(x, y) − x/2 − y/2. A
    sum's rounding is at most the number of its terms times that of one operation, as a share of the sum of its terms'
    sizes (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), and that is taken off.
    """

    def __init__(self, n: int, classes: int, features: int, K: int, device: torch.device) -> None:
        """Make room for n samples, (classes + features + K + 2) · 4 bytes each."""

        def empty(*shape: int) -> Tensor:
            return torch.empty(*shape, dtype=torch.float32, device=device)

        self.most = at_once().tile_rows
        self.a, self.h, self.curvature = empty(n, classes), empty(n, features), empty(K, n)
        self.squares, self.offset = empty(n), empty(n)
        # Of the products, and the few operations around them; of the L1 sum.
        self.share = 1.25 * (classes + features + 20) * ROUNDING
        self.share_of_curvature = 1.25 * (4 * K + 32) * ROUNDING

    def fill(self, part: slice, a: Tensor, h: Tensor, squares: Tensor, curvature: Tensor | None) -> bool:
        """Take some samples' a (b, C), h̃ (b, d+1), ‖g‖² (b,) and ρλ (b, K), in float64; False if too large."""
        self.a[part], self.h[part] = a, h
        self.squares[part] = (1 - self.share) * squares - NOTHING
        self.offset[part] = -4 * ROUNDING * squares.sqrt() - NOTHING
        sizes = [h.abs().max()]
        if curvature is not None:
            self.curvature[:, part] = curvature.T
            self.offset[part] -= 0.5 * (1 + self.share_of_curvature) * curvature.sum(1)
            sizes.append(curvature.max() / LARGEST)
        return bool(torch.stack(sizes).max() < LARGEST)  # NaN is not

    def __len__(self) -> int:
        return len(self.squares)

    def tiles(self, index: Tensor | slice, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Yield tiles of the rows at `index` that cover the columns from `start`: where, and bounds (b, w)."""
        a, h = self.a[index], self.h[index]
        squares, offset, curvature = self.squares[index, None], self.offset[index, None], self.curvature[:, index]
        width = max(1, at_once().tile_elements // len(a))
        larger = torch.empty(len(a), width, dtype=torch.float32, device=a.device)
        for left in range(start, len(self), width):
            columns = slice(left, min(left + width, len(self)))
            tile, larger = offset + self.offset[columns], larger[:, : columns.stop - left]
            for own, others in zip(curvature, self.curvature[:, columns], strict=True):
                tile += torch.maximum(own[:, None], others, out=larger)
            scale = squares + self.squares[columns]
            squared = scale.addcmul_(a @ self.a[columns].T, h @ self.h[columns].T, value=-2)
            yield columns, tile.add_(squared.clamp_(min=0).sqrt_())
