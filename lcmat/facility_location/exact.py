"""Exact greedy facility location: incremental where the matrix of distances fits into memory, else lazy."""

from __future__ import annotations

from dataclasses import replace

import torch

from lcmat import memory_limit
from lcmat.block_sizes import at_once
from lcmat.distances import Distance, Matrix
from lcmat.distances.vectors import symmetric
from lcmat.facility_location.cover import Cover, check_budget
from lcmat.facility_location.incremental import incremental_greedy, row_sums
from lcmat.facility_location.lazy import lazy_greedy
from lcmat.workers import allowed, threads_for_workers


def hold(distance: Distance) -> Distance:
    """Return the distance as one matrix, each pair measured once, if that fits into memory; else unchanged."""
    n = len(distance)
    if isinstance(distance, Matrix) or not memory_limit.fits(n * n * 8, memory_limit.OF_A_MATRIX, distance.device):
        return distance
    return Matrix(symmetric(n, distance.rows))


def facility_location(distance: Distance, budget: int) -> Cover:
    """Choose `budget` of the n samples greedily, each time the one that lowers the cost L most.

    Exact: the picks are those of the naive greedy algorithm, ties (gains that agree to rounding) to the lowest index.
    Incremental where the matrix fits into memory, else lazy. On a CPU as many workers as there are threads share out
    blocks of distances, and each operation is one thread's.
    Source: LCMat Eq. 11-12 and Algorithm 1.
    Raises UserError unless 1 ≤ budget ≤ n, and if a distance is not finite.
    """
    check_budget(budget, len(distance))
    # A few blocks of distances live at once, in float64.
    blocks = 4 * 8 * min(at_once().elements, len(distance) ** 2)
    with threads_for_workers(distance.device, memory_limit.side_by_side(allowed(distance.device), blocks)):
        return _chosen(hold(distance), budget)


def _chosen(distance: Distance, budget: int) -> Cover:
    """Choose by the greedy that fits the distance, held or not."""
    if isinstance(distance, Matrix):
        cover, gains = incremental_greedy(distance, distance.rows, *row_sums(distance), budget, own=True)
        left = float(gains.topk(budget).values.clamp(min=0).sum())
    else:
        picks, costs, moves, left = lazy_greedy(distance, budget)
        costs = torch.tensor(costs, dtype=torch.float64, device=distance.device)
        picks = torch.tensor(picks, device=distance.device)
        cover = Cover(picks, 0.0 - costs.diff(prepend=costs[:1]), costs, *moves.clusters(budget))
    # Adding any m samples to S lowers L by at most the m largest gains that are left, since gains only shrink.
    return replace(cover, bound=max(0.0, float(cover.costs[-1]) - left))
