"""Exact greedy facility location where distances are formed as they are needed.

Lazy (Minoux, 1978): gains only shrink, so that a candidate's gain at an earlier pick bounds what it is now, and few
need be looked at. And in two steps: where a distance has cheap lower bounds, these give upper bounds of the gains, and
only candidates that could still win have their distances formed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lcmat.alive import Progress
from lcmat.block_sizes import at_once
from lcmat.distances import Distance
from lcmat.distances.protocol import Tiles
from lcmat.errors import UserError
from lcmat.facility_location.clusters import Moves
from lcmat.workers import allowed, in_order

# Gains that differ by less than this share of the cost still left are equal to rounding (float64 sums of n terms).
GAIN_TIE = 1e-14
# The share by which a distance may differ when it is formed anew: what is left of |x|² + |y|² − 2⟨x, y⟩ is known to
# 1e-16 of these, and is at least 1e-6 of them (`distances.CANCELLATION`).
FORMED_ANEW = 1e-10
NOT_FINITE = "distances are not finite: the signals are too large; scale the features down"
# Rounding of a bound's own sum: of differences in float32.
ABOVE = 1 + 2.0**-22


@dataclass(frozen=True)
class Themselves:
    """The distances as their own lower bounds, where there are no cheaper ones."""

    distance: Distance

    @property
    def most(self) -> int:
        """How many rows are formed at once."""
        now = at_once()
        return max(now.least_bounds, min(now.most_bounds, now.elements // len(self.distance)))

    def tiles(self, index: Tensor | slice, start: int = 0) -> Iterator[tuple[slice, Tensor]]:
        """Yield all columns as one tile."""
        yield slice(start, len(self.distance)), self.distance.rows(index, start)


@torch.inference_mode()  # small operations cost less
def lazy_greedy(distance: Distance, budget: int) -> tuple[list[int], list[float], Moves, float]:
    """Choose `budget` of the n samples, each the one that lowers the cost most, ties to the lowest index.

    Returns the picks, the cost after each, the samples that each took from the earlier ones, and the sum of the
    `budget` largest gains that are left.
    """
    lower = distance.lower() or Themselves(distance)
    upper, current = _all_bounds(lower, len(distance), None, distance.device), None
    picks, costs, moves = [], [], Moves(distance.device)
    for number in Progress(range(budget), desc="facility location"):
        pick = _best_by_upper_bound(upper, distance, lower, current, costs[-1] if costs else None)
        row = distance.rows(slice(pick, pick + 1))[0]
        closer = torch.ones_like(row, dtype=torch.bool) if current is None else row < current
        closer[pick] = True  # even if one that equals it was chosen before
        first, current = current is None, row if current is None else torch.minimum(current, row)
        if first:
            upper = _all_bounds(lower, len(distance), current, distance.device)
        upper[pick] = -math.inf
        picks.append(pick)
        costs.append(float(current.sum()))
        moves.add(number, closer.nonzero()[:, 0])
        if not math.isfinite(costs[-1]):
            raise UserError(NOT_FINITE)
    chosen = torch.tensor(picks, device=distance.device)
    upper = _all_bounds(lower, len(distance), current, distance.device).index_fill_(0, chosen, -math.inf)
    return picks, costs, moves, _sum_of_largest(upper, budget, functools.partial(_gains, distance, current))


def _best_by_upper_bound(
    upper: Tensor, distance: Distance, lower: Tiles, current: Tensor | None, cost: float | None
) -> int:
    """Return the candidate of largest gain, given upper bounds of all gains (n,), which become closer.

    current: (n,) each sample's distance to the nearest pick, and `cost` their sum; None before the first.
    """
    if cost == 0:  # every sample is covered: all candidates tie at no gain
        return int((upper > -math.inf).nonzero()[0])
    gains = torch.full_like(upper, -math.inf)  # those computed for this pick
    bounded = torch.zeros_like(upper, dtype=torch.bool)
    size = at_once().least_bounds
    while True:
        best = float(gains.max())
        least = best - GAIN_TIE * (abs(best) if cost is None else cost)
        worth = upper.masked_fill((gains > -math.inf) | (upper < least), -math.inf)
        first = _largest(worth, at_once().exact_rows)
        if not len(first):
            return int((gains >= least).nonzero()[0])
        if bounded[first].all():
            gains[first] = _gains(distance, current, first)
            formed_anew = FORMED_ANEW * (gains[first].abs() if cost is None else cost)
            upper[first] = torch.minimum(upper[first], gains[first] + formed_anew)
        else:
            more = _largest(worth.masked_fill(bounded, -math.inf), size)
            upper[more] = torch.minimum(upper[more], _bounds(lower, current, more, len(upper)))
            bounded[more], size = True, min(2 * size, lower.most)


def _largest(values: Tensor, count: int) -> Tensor:
    """Return the indices of up to `count` largest values, −∞ never."""
    values, index = values.topk(min(count, len(values)))
    return index[values > -math.inf]


def _gains(distance: Distance, current: Tensor | None, index: Tensor) -> Tensor:
    """Return what the candidates at `index` would take off the cost, by definition; at first, up to a constant."""

    def of_some(index: Tensor) -> Tensor:
        rows = distance.rows(index)
        return -rows.sum(1) if current is None else torch.sub(current, rows, out=rows).clamp_(min=0).sum(1)

    found = _shared_out(of_some, index, len(distance))
    if not torch.isfinite(found).all():
        raise UserError(NOT_FINITE)
    return found


def _bounds(lower: Tiles, current: Tensor | None, index: Tensor, n: int) -> Tensor:
    """Return upper bounds of the gains of the candidates at `index`."""

    def of_some(index: Tensor) -> Tensor:
        tiles = lower.tiles(index)
        return sum(_shares(tile, current, columns).sum(1, dtype=torch.float64) for columns, tile in tiles)

    return _above(_shared_out(of_some, index, n))


def _shared_out(function: Callable[[Tensor], Tensor], index: Tensor, width: int) -> Tensor:
    """Return function(index), which is one number for each; computed by workers if there is much to do."""
    workers = allowed(index.device)
    if workers == 1 or len(index) * width < at_once().shared_out_lazily:
        return function(index)
    return torch.cat(list(in_order(function, index.chunk(workers))))


def _all_bounds(lower: Tiles, n: int, current: Tensor | None, device: torch.device) -> Tensor:
    """Return upper bounds of all gains, (n,), each pair looked at once."""

    def of_some(rows: slice) -> Tensor:
        found = torch.zeros(n - rows.start, dtype=torch.float64, device=device)
        for columns, tile in lower.tiles(rows, rows.start):
            beyond = slice(max(columns.start, rows.stop), columns.stop)  # pairs of which this is one of two
            if beyond.start < beyond.stop:
                others = tile[:, beyond.start - columns.start :].clone()
                sums = _shares(others, current, rows, 1).sum(0, dtype=torch.float64)
                found[beyond.start - rows.start : beyond.stop - rows.start] += sums
            found[: rows.stop - rows.start] += _shares(tile, current, columns).sum(1, dtype=torch.float64)
        return found

    parts = [slice(start, min(start + lower.most, n)) for start in range(0, n, lower.most)]
    total, found = torch.zeros(n, dtype=torch.float64, device=device), in_order(of_some, parts, device)
    for rows in Progress(parts, desc="bounds of all gains"):
        total[rows.start :] += next(found)
    if not torch.isfinite(total).all():
        raise UserError(NOT_FINITE)
    return _above(total)


def _shares(tile: Tensor, current: Tensor | None, samples: slice, axis: int = 0) -> Tensor:
    """Return what each of the samples along the columns (axis 0) or rows (1) adds to a candidate's gain, in `tile`."""
    if current is None:
        return tile.neg_()
    near = (current[samples] * ABOVE).to(tile.dtype)
    return torch.sub(near[:, None] if axis else near, tile, out=tile).clamp_(min=0)


def _above(sums: Tensor) -> Tensor:
    return torch.where(sums > 0, sums * ABOVE, sums / ABOVE)


def _sum_of_largest(upper: Tensor, count: int, gains: Callable[[Tensor], Tensor]) -> float:
    """Return the sum of the `count` largest gains, given upper bounds of all: those among the largest are computed."""
    known = torch.zeros_like(upper, dtype=torch.bool)
    while True:
        values, index = upper.topk(count)
        unknown = index[~known[index] & (values > 0)]
        if not len(unknown):
            return float(values.clamp(min=0).sum())
        for part in unknown.split(at_once().exact_rows):
            upper[part] = gains(part)
        known[unknown] = True
