"""Exact greedy facility location, in terms of distances.

F(S) = Σ_i (c − min_{j∈S} D_ij) with any constant c ≥ max D (LCMat Eq. 12) is monotone submodular, and its greedy
maximisation is the BUILD phase of k-medoids: c shifts the first gain of all candidates alike and changes no pick. What
does not depend on c is the cost L(S) = Σ_i min_{j∈S} D_ij (Eq. 11), which is what is reported.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from lcmat.alive import Progress
from lcmat.block_sizes import at_once
from lcmat.compiled import loops, lost_within
from lcmat.distances import Distance, Matrix
from lcmat.distances.protocol import Clients
from lcmat.errors import UserError
from lcmat.facility_location.clusters import Moves
from lcmat.facility_location.cover import Cover
from lcmat.facility_location.lazy import FORMED_ANEW, GAIN_TIE, NOT_FINITE
from lcmat.workers import allowed, in_order

# Half the distance from 1 to the next float64: what one operation rounds by, as a share of its result.
ROUNDING = 2.0**-53


def incremental_greedy(
    clients: Clients,
    candidates: Callable[[Tensor | slice], Tensor],
    sums: Tensor,
    largest: float,
    budget: int,
    own: bool,
) -> tuple[Cover, Tensor]:
    """Choose `budget` of p candidates greedily, so that n clients are close to those chosen.

    clients.rows(index): distances from clients to all candidates, (b, p). candidates(index): from candidates to all
    clients, (b, n). sums: (p,) over all clients. largest: of all distances. own: whether both are the same samples.
    Incremental: a pick changes the gains of others only through the clients that are closer to it than to all earlier
    picks, so only their rows are looked at. That keeps every gain up to rounding; where rounding could decide between
    candidates, their gains are computed anew.
    Returns a Cover of the clients, and the gains that are left (p,), −∞ for the picks.
    """
    if not math.isfinite(largest):
        raise UserError(NOT_FINITE)
    picks, costs, moves, gains = _loop(clients, candidates, sums, largest, budget, own)
    costs = torch.tensor(costs, dtype=sums.dtype, device=sums.device)
    clusters = moves.clusters(budget)
    return Cover(torch.tensor(picks, device=sums.device), -costs.diff(), costs[1:], *clusters), gains


@torch.inference_mode()  # small operations cost less
def _loop(
    clients: Clients,
    candidates: Callable[[Tensor | slice], Tensor],
    sums: Tensor,
    largest: float,
    budget: int,
    own: bool,
) -> tuple[list[int], list[float], Moves, Tensor]:
    """Return the picks, the cost before and after each, the clients that each took, and the gains left."""
    n, step, held = len(clients), _rows_at_once(clients, len(sums)), isinstance(clients, Matrix)
    lost_gains = _updater(clients, step, sums.device)

    def slack_of(gains: Tensor, cost: float) -> Tensor:
        # A gain is a sum of n terms and goes through at most n + budget subtractions before it is computed anew.
        return (2 * n + budget) * ROUNDING * gains + (0 if held else FORMED_ANEW * cost)

    current = torch.full((n,), largest, dtype=sums.dtype, device=sums.device)
    costs, picks, moves = [n * largest], [], Moves(sums.device)
    gains, slack = costs[0] - sums, slack_of(torch.full_like(sums, costs[0]), costs[0])
    for number in Progress(range(budget), desc="facility location", disable=held):
        anew = functools.partial(_gains, candidates, current)
        pick = _best_by_incremental_gain(
            gains, slack, costs[-1], step, anew, give_up_at=math.inf if held or not number else len(sums) // 8
        )
        if pick is None:  # since the gains were computed, distances have become far smaller
            gains = _all_gains(clients, current, step, own).masked_fill_(gains == -math.inf, -math.inf)
            slack = slack_of(gains.clamp(min=0), costs[-1])
            pick = _best_by_incremental_gain(gains, slack, costs[-1], step, anew)
        row = candidates(slice(pick, pick + 1))[0]
        closer = row < current if number else torch.ones_like(row, dtype=torch.bool)
        if own:
            closer[pick] = True  # even if one that equals it was chosen before
        closer = closer.nonzero()[:, 0]
        if number:
            gains -= lost_gains(closer, current[closer], row[closer])
            current = torch.minimum(current, row)
        else:
            current, gains = row, _all_gains(clients, row, step, own)
            slack = slack_of(gains, float(row.sum()))
        gains[pick] = -math.inf
        picks.append(pick)
        costs.append(float(current.sum()))
        moves.add(number, closer)
    return picks, costs, moves, gains


def _all_gains(clients: Clients, current: Tensor, step: int, own: bool) -> Tensor:
    """Return the gain of every candidate, given each client's distance to the nearest pick.

    own: clients and candidates are the same samples, so that each pair is measured once.
    """
    parts = _slices(len(current), step)
    if not own:
        return sum((current[part, None] - clients.rows(part)).clamp_(min=0).sum(0) for part in parts)

    def shares(part: slice) -> tuple[Tensor, Tensor]:
        rows = clients.rows(part, part.start)
        beyond = (current[part.stop :] - rows[:, part.stop - part.start :]).clamp_(min=0).sum(1)
        return (current[part, None] - rows).clamp_(min=0).sum(0), beyond

    gains = torch.zeros_like(current)
    found = in_order(shares, parts, current.device)
    for part in Progress(parts, desc="gains", disable=_quiet(clients)):
        of_columns, of_rows = next(found)
        gains[part.start :] += of_columns
        gains[part] += of_rows
    return gains


def _updater(clients: Clients, step: int, device: torch.device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a function of clients (b,), and their old and new distances to the nearest pick, each (b,).

    It returns what the gains lose, (p,): what max(0, old − D) loses when it becomes max(0, new − D). Many clients are
    shared out between workers.
    """
    values = clients.values if isinstance(clients, Matrix) and clients.values.dtype == torch.float64 else None
    lost = None if values is None else loops(len(values), values.device).lost_gains

    def room() -> Tensor | None:
        """Return memory for rows, that lasts from one update to the next: none is asked for anew."""
        return None if values is None else values.new_empty(step, values.shape[1])

    def of_some(index: Tensor, old: Tensor, new: Tensor, room: Tensor | None) -> Tensor | int:
        total = 0
        for p in _slices(len(index), step):
            if values is None:  # rows are formed anew, or converted
                total = total + lost_within(clients.rows(index[p]), old[p, None], new[p, None])
            else:
                total = total + lost(values, index[p], old[p], new[p], room)
        return total

    lasting, workers = room(), allowed(device)

    def of_all(index: Tensor, old: Tensor, new: Tensor) -> Tensor | int:
        if workers == 1 or len(index) * len(clients) < at_once().shared_out:
            return of_some(index, old, new, lasting)
        shares = list(zip(*(vector.chunk(workers) for vector in (index, old, new)), strict=True))
        return sum(in_order(lambda share: of_some(*share, room()), shares))

    return of_all


def _gains(candidates: Callable[[Tensor], Tensor], current: Tensor, index: Tensor) -> Tensor:
    """Return what the candidates at `index` would take off the cost, by definition."""
    rows = candidates(index)
    return torch.sub(current, rows, out=rows).clamp_(min=0).sum(1)


def _best_by_incremental_gain(
    gains: Tensor,
    slack: Tensor,
    cost: float,
    step: int,
    anew: Callable[[Tensor], Tensor],
    give_up_at: float = math.inf,
) -> int | None:
    """Return the candidate of largest gain, given gains within `slack` of the exact ones, and anew(index) for these.

    cost: what all gains together can take off. None if as many as `give_up_at` candidates would have to be looked at.
    """
    if cost == 0:  # every client is covered: all candidates tie at no gain
        return int((gains > -math.inf).nonzero()[0])
    among = (gains + slack >= (gains - slack).max() - GAIN_TIE * cost).nonzero()[:, 0]
    if len(among) == 1:
        return int(among)
    if len(among) >= give_up_at:
        return None
    gains[among] = torch.cat([anew(part) for part in among.split(step)])
    return int(among[gains[among] >= gains[among].max() - GAIN_TIE * cost][0])


def row_sums(distance: Distance) -> tuple[Tensor, float]:
    """Return the sum of each row (n,) and the largest distance, each pair measured once; NaN if there is any."""
    n = len(distance)
    parts = _slices(n, _rows_at_once(distance, n))

    def shares(part: slice) -> tuple[Tensor, Tensor, float]:
        rows = distance.rows(part, part.start)
        return rows.sum(1), rows[:, part.stop - part.start :].sum(0), float(rows.max())

    sums, peaks = torch.zeros(n, dtype=torch.float64, device=distance.device), []
    found = in_order(shares, parts, distance.device)
    for part in Progress(parts, desc="distances", disable=_quiet(distance)):
        of_rows, of_columns, peak = next(found)
        sums[part] += of_rows
        sums[part.stop :] += of_columns
        peaks.append(peak)
    return sums, max(peaks) if all(map(math.isfinite, peaks)) else math.nan


def _quiet(distance: Clients) -> bool | None:
    """Show no bar where distances lie ready; None: silent unless on a terminal."""
    return True if isinstance(distance, Matrix) else None


def _rows_at_once(distance: Clients, width: int) -> int:
    now, held = at_once(), isinstance(distance, Matrix)
    elements, least = (now.held_elements, 1) if held else (now.elements, now.least_rows)
    return max(least, elements // width)


def _slices(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
