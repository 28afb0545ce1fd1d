"""Two loops of selection, compiled by numba where that is installed: `pip install -r requirements-fast.txt`.

Nothing needs it. Each loop has a plain twin of PyTorch's operations, which move the same numbers through memory several
times; both give the same sums but for the order of their terms, and the same picks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcmat.block_sizes import at_once

# Samples whose values stay in the processor's first cache while others are compared with them.
NEAR = 32


@dataclass(frozen=True)
class Loops:
    """The loops, compiled or plain.

    add_l1(out, x, y, factor): add factor · Σ_k |x_ik − y_jk| to out (b, w), of x (b, K) and y (w, K) in float64.
    lost_gains(values, index, old, new, room): return Σ_i max(0, old_i − max(D_ij, new_i)) for each j, (p,), over the
    rows D_i at `index` (b,) of values (n, p) in float64; old, new (b,); room: memory for the rows, (b, p), or more.
    """

    add_l1: Callable[[Tensor, Tensor, Tensor, float], None]
    lost_gains: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def loops(samples: int, device: torch.device) -> Loops:
    """Return the loops for so many samples on a device: compiled where that can be, and pays."""
    return (compiled_loops() if samples >= at_once().compiled and device.type == "cpu" else None) or PLAIN


def plain_add_l1(out: Tensor, x: Tensor, y: Tensor, factor: float) -> None:
    """Add L1 distances to `out`; see `Loops`."""
    out.add_(torch.cdist(x, y, p=1), alpha=factor)


def plain_lost_gains(values: Tensor, index: Tensor, old: Tensor, new: Tensor, room: Tensor) -> Tensor:
    """Return what gains lose when clients at old distances from the nearest pick come to new ones; see `Loops`."""
    return lost_within(torch.index_select(values, 0, index, out=room[: len(index)]), old[:, None], new[:, None])


def lost_within(rows: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return the same for distances given by rows, (b, p), which are overwritten; old, new (b, 1)."""
    return torch.sub(old, torch.maximum(rows, new, out=rows), out=rows).clamp_(min=0).sum(0)


PLAIN = Loops(plain_add_l1, plain_lost_gains)


def l1_loop(out: np.ndarray, x: np.ndarray, y: np.ndarray, factor: float) -> None:
    """`Loops.add_l1` as it is compiled."""
    for start in range(0, y.shape[0], NEAR):
        near = y[start : start + NEAR]
        for i in range(x.shape[0]):
            own, sums = x[i], out[i, start : start + NEAR]
            for j in range(near.shape[0]):
                other = near[j]
                total = 0.0
                for k in range(own.shape[0]):
                    total += abs(own[k] - other[k])
                sums[j] += factor * total


def lost_gains_loop(values: np.ndarray, index: np.ndarray, old: np.ndarray, new: np.ndarray, out: np.ndarray) -> None:
    """`Loops.lost_gains` as it is compiled, added to `out` (p,): each distance is read once, and none is written."""
    for i in range(index.shape[0]):
        row, before, now = values[index[i]], old[i], new[i]
        for j in range(row.shape[0]):
            nearest = row[j] if row[j] > now else now
            lost = before - nearest
            out[j] += lost if lost > 0.0 else 0.0


@functools.cache
def compiled_loops() -> Loops | None:
    """Return the loops compiled by numba; None where it is not installed, or does not work here."""
    try:
        from numba import njit
    except ImportError:
        return None

    def compiled(function: Callable, **how: object) -> Callable:
        try:  # kept beside this file, or in the user's folder for caches
            return njit(function, nogil=True, cache=True, **how)
        except RuntimeError:  # neither can be written to
            return njit(function, nogil=True, **how)

    # Sums in any order, for several terms at once.
    l1, lost = compiled(l1_loop, fastmath={"reassoc", "nsz"}), compiled(lost_gains_loop)

    def add_l1(out: Tensor, x: Tensor, y: Tensor, factor: float) -> None:
        l1(out.numpy(), x.contiguous().numpy(), y.contiguous().numpy(), factor)

    def lost_gains(values: Tensor, index: Tensor, old: Tensor, new: Tensor, _: Tensor) -> Tensor:
        out = values.new_zeros(values.shape[1])
        lost(values.numpy(), index.numpy(), old.numpy(), new.numpy(), out.numpy())
        return out

    return Loops(add_l1, lost_gains)
