"""Exact greedy facility location, in terms of distances.

F(S) = Σ_i (c − min_{j∈S} D_ij) with any constant c ≥ max D (LCMat Eq. 12) is monotone submodular, and its greedy
maximisation is the BUILD phase of k-medoids: c shifts the first gain of all candidates alike and changes no pick. What
does not depend on c is the cost L(S) = Σ_i min_{j∈S} D_ij (Eq. 11), which is what is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from lcmat import memory
from lcmat.distances import BLOCK_ELEMENTS, symmetric
from lcmat.errors import UserError

# Candidates whose gains are recomputed at once.
CANDIDATES = 64
# … and for the bound, where as many are wanted as there are picks.
BOUND_CANDIDATES = 512
# Gains that differ by less than this share of the cost still left are equal to rounding (float64 sums of n terms).
TIE = 1e-14


class Distance(Protocol):
    """Pairwise distances of n samples."""

    device: torch.device

    def __len__(self) -> int:
        """Return n."""

    def rows(self, index: Tensor, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start)."""


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

    def rows(self, index: Tensor, start: int = 0) -> Tensor:
        """Return D[index, start:], (len(index), n − start)."""
        return self.values[index, start:]


@dataclass(frozen=True)
class Cover:
    """The outcome of a greedy facility location.

    indices: (m,) the samples in the order chosen.
    gains: (m,) what each pick took off the cost; the first gain is measured from Σ_i max D.
    costs: (m,) L(S) after each pick.
    cluster_sizes: (m,) how many samples are nearest to each pick (ties to the earlier pick); they sum to n.
    transfers: (r, 3) how they came about: a pick, the earlier pick that it took samples from (−1: from none), and how
    many. From these follow the cluster sizes after fewer picks.
    bound: a lower bound of L over all sets of m samples.
    """

    indices: Tensor
    gains: Tensor
    costs: Tensor
    cluster_sizes: Tensor
    transfers: Tensor
    bound: float


def hold(distance: Distance) -> Distance:
    """Return the distance as one matrix, each pair measured once, if that fits into memory; else unchanged."""
    n = len(distance)
    if isinstance(distance, Matrix) or not memory.fits(n * n * 8, memory.OF_A_MATRIX, distance.device):
        return distance
    return Matrix(symmetric(n, distance.rows))


def facility_location(distance: Distance, budget: int) -> Cover:
    """Choose `budget` of the n samples greedily, each time the one that lowers the cost L most.

    Exact: the picks are those of the naive greedy algorithm, ties (gains that agree to rounding) to the lowest index.
    Lazy (Minoux 1978): a gain can only shrink, so a candidate whose last known gain is below the best fresh one
    cannot win; candidates are refreshed in batches of `CANDIDATES`. Source: LCMat Eq. 11-12 and Algorithm 1.
    Raises UserError unless 1 ≤ budget ≤ n, and if a distance is not finite.
    """
    n = len(distance)
    if not 1 <= budget <= n:
        raise UserError(f"the budget must be between 1 and {n}, the number of samples, not {budget}")
    distance = hold(distance)
    row_sums, largest = _row_sums(distance)
    if not math.isfinite(largest):
        raise UserError("distances are not finite: the signals are too large; scale the features down")
    current = torch.full_like(row_sums, largest)  # min_{j∈S} D_ij, with the auxiliary element e of Eq. 12 at c
    bounds = n * largest * (1 + TIE) - row_sums  # upper bounds of the gains; −∞ for what is chosen
    nearest = torch.full((n,), -1, device=current.device)
    indices, gains, costs, transfers = [], [], [current.sum()], []
    quiet = True if isinstance(distance, Matrix) else None  # slow only where distances are formed as needed
    for step in tqdm(range(budget), desc="facility location", disable=quiet, leave=False):
        pick = _best(distance, current, bounds, TIE * float(costs[-1]))
        row = distance.rows(torch.tensor([pick]))[0]
        closer = row < current if step else torch.ones_like(row, dtype=torch.bool)
        closer[pick] = True
        donors, counts = nearest[closer].unique(return_counts=True)
        transfers.append(torch.stack([torch.full_like(donors, step), donors, counts], 1))
        nearest[closer] = step
        current = torch.minimum(current, row)
        bounds[pick] = -math.inf
        indices.append(pick)
        costs.append(current.sum())
        gains.append(costs[-2] - costs[-1])
    return Cover(
        indices=torch.tensor(indices, device=current.device),
        gains=torch.stack(gains),
        costs=torch.stack(costs[1:]),
        cluster_sizes=torch.bincount(nearest, minlength=budget),
        transfers=torch.cat(transfers),
        bound=max(0.0, float(costs[-1]) - _largest_gains(distance, current, bounds, budget)),
    )


def _largest_gains(distance: Distance, current: Tensor, bounds: Tensor, count: int) -> float:
    """Return the sum of the `count` largest gains that are left.

    Adding any `count` samples to S lowers L by no more (gains only shrink), so no set of as many has L below L(S) minus
    this sum. Lazy: what cannot be among the largest, by the bounds known from before, is not computed.
    """
    stale, gains = bounds.clone(), torch.zeros_like(bounds)
    while True:
        least = gains.topk(min(count, len(gains))).values[-1]
        values, candidates = stale.topk(min(BOUND_CANDIDATES, len(stale)))
        candidates = candidates[values > least]
        if len(candidates) == 0:
            return float(gains.topk(min(count, len(gains))).values.sum())
        for part in candidates.split(CANDIDATES):
            gains[part] = (current - distance.rows(part)).clamp_(min=0).sum(1)
        stale[candidates] = -math.inf


def _best(distance: Distance, current: Tensor, bounds: Tensor, tie: float) -> int:
    """Return the candidate of largest gain; every gain that is computed tightens its entry of `bounds`."""
    stale, gains = bounds.clone(), torch.full_like(bounds, -math.inf)
    best = -math.inf
    while True:
        values, candidates = stale.topk(min(CANDIDATES, len(stale)))
        if values[0] <= 0 and best == -math.inf:  # every sample is covered: all that is left ties at no gain
            return int((bounds > -math.inf).nonzero()[0])
        candidates = candidates[(values >= best - tie) & (values > -math.inf)]
        if len(candidates) == 0:
            break
        gains[candidates] = (current - distance.rows(candidates)).clamp_(min=0).sum(1)
        bounds[candidates] = gains[candidates] + tie  # a bound still when rounding is less kind
        stale[candidates] = -math.inf
        best = max(best, float(gains[candidates].max()))
    return int((gains >= best - tie).nonzero()[0])


def _row_sums(distance: Distance) -> tuple[Tensor, float]:
    """Return the sum of each row (n,) and the largest distance; infinity if one is not finite."""
    sums, peaks = [], []
    for part in _blocks(len(distance)):
        rows = distance.rows(part)
        sums.append(rows.sum(1))
        peaks.append(float(rows.max()))
    return torch.cat(sums), max(peaks) if all(map(math.isfinite, peaks)) else math.inf


def _blocks(n: int) -> tuple[Tensor, ...]:
    return torch.arange(n).split(max(1, BLOCK_ELEMENTS // n))
