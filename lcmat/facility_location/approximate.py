"""Facility location for groups too large for the exact greedy: on samples of candidates, of rows, or part by part.

Distances are asked for in blocks (`Distance.block`) and never held whole. The gains are taken over a random sample of
the rows (the samples that are to be covered), as many as `rows` says; and so is the cost that is reported, over other
rows, where all would be too many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor

from lcmat import memory_limit
from lcmat.alive import Progress
from lcmat.block_sizes import at_once
from lcmat.distances import Distance
from lcmat.effort import effort
from lcmat.errors import UserError, lookup
from lcmat.facility_location.clusters import Moves
from lcmat.facility_location.cover import Cover, check_budget
from lcmat.facility_location.exact import facility_location
from lcmat.facility_location.incremental import NOT_FINITE, incremental_greedy
from lcmat.selection.ranking import SCORE_TIE, first_largest

GREEDY = ("exact", "stochastic", "partition")
# Stochastic greedy reaches 1 − 1/e − ε of the optimum in expectation.
EPSILON = 0.1
# Rows that gains are taken over, unless told: at least so many, and so many for each pick.
SAMPLED_ROWS, ROWS_FOR_EACH_PICK = 20_000, 5
# A part chooses at most this share of its samples, or so many times its share of what is wanted.
SHARE_OF_A_PART, TIMES_ITS_SHARE = 0.1, 3


def greedy_options(greedy: str, rows: int | None, parts: int | None) -> dict[str, object]:
    """Return those of a method's options that say how its greedy is done: none if it is exact. Refuses bad ones."""
    greedy = lookup("greedy", str(greedy), GREEDY)
    for name, value, owners in (("rows", rows, GREEDY[1:]), ("parts", parts, GREEDY[2:])):
        if value is None:
            continue
        if greedy not in owners:
            raise UserError(f"{name} has no meaning for the {greedy} greedy; give --greedy {' or '.join(owners)}, too")
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
    if greedy == "exact":
        return {}
    return {"greedy": greedy, "rows": rows} | ({"parts": parts} if greedy == "partition" else {})


def resolve_greedy(classes: int, features: int, greedy: str, rows: int | None, parts: int | None) -> dict[str, object]:
    """Return the options of a method that has no others (see `Method.resolve`)."""
    return greedy_options(greedy, rows, parts)


def cover(
    distance: Distance,
    budget: int,
    generator: torch.Generator,
    greedy: str | SecondRound = "exact",
    rows: int | None = None,
    parts: int | None = None,
) -> Cover:
    """Choose `budget` of the n samples by facility location; see `facility_location`, `stochastic` and `partition`.

    rows: over how many samples gains are taken, by default max(20,000, 5 · budget); parts: see `partition`.
    """
    if isinstance(greedy, SecondRound):
        return greedy.cover(distance)
    greedy = lookup("greedy", greedy, GREEDY)
    if greedy == "exact":
        return facility_location(distance, budget)
    check_budget(budget, len(distance))
    rows = rows_for(len(distance), budget, rows)
    if greedy == "stochastic":
        picks = stochastic(distance, budget, generator, rows)
    else:
        picks = partition(distance, budget, generator, rows, parts)
    return covering(distance, picks, generator)


def stochastic(distance: Distance, budget: int, generator: torch.Generator, rows: int) -> Tensor:
    """Choose each pick from (n/m) ln(1/ε) candidates drawn at random, and return the picks (m,).

    Lazy as well: a candidate drawn again is looked at only if its last gain leaves it a chance.
    Source: Mirzasoleiman et al., Lazier Than Lazy Greedy, AAAI 2015, Algorithm 1.
    """
    n, device = len(distance), distance.device
    clients = some(n, rows, generator).to(device)
    size = min(n, math.ceil(n / budget * math.log(1 / EPSILON)))
    bounds = torch.full((n,), math.inf, dtype=torch.float64, device=device)  # of the gains; −∞ for what is chosen
    picks, current = [], None
    for _ in Progress(range(budget), desc="stochastic greedy"):
        drawn = torch.arange(n) if size == n else torch.randint(n, (size,), generator=generator).unique()
        drawn = drawn.to(device)
        drawn = drawn[bounds[drawn] > -math.inf]
        if not len(drawn):  # nearly all are chosen
            drawn = (bounds > -math.inf).nonzero()[:, 0]
        gains = gains_of_drawn(distance, clients, drawn, current, bounds)
        pick = drawn[first_largest(gains)][None]
        row = distance.block(pick, clients)[0]
        current = row if current is None else torch.minimum(current, row)
        bounds[pick] = -math.inf
        picks.append(pick)
    return torch.cat(picks)


def gains_of_drawn(
    distance: Distance, clients: Tensor, drawn: Tensor, current: Tensor | None, bounds: Tensor
) -> Tensor:
    """Return the gains of candidates (−∞ where too small to win), and keep them as bounds of later ones."""
    gains = torch.full((len(drawn),), -math.inf, dtype=torch.float64, device=drawn.device)
    best = -math.inf
    for order in bounds[drawn].argsort(descending=True, stable=True).split(_rows_at_once(len(clients))):
        order = order[bounds[drawn[order]] >= best - SCORE_TIE * abs(best)] if best > -math.inf else order
        if not len(order):
            break
        block = distance.block(drawn[order], clients)
        if current is None:  # the first gain, up to a constant; it bounds no later one
            gains[order] = -block.sum(1)
            continue
        gains[order] = bounds[drawn[order]] = torch.sub(current, block, out=block).clamp_(min=0).sum(1)
        best = max(best, float(gains[order].max()))
    return gains


def partition(
    distance: Distance, budget: int, generator: torch.Generator, rows: int, parts: int | None = None
) -> Tensor:
    """Choose exactly within random parts, then from what they offer, and return the better of both, (m,).

    The second round's gains, and the comparison, are over random rows. `parts` is by default n/10,000, but at most half
    of n/m, so that a part is larger than what is wanted. A part chooses m samples, but at most a tenth of it or thrice
    its share of m; if that is fewer than m, no part's choice is a solution by itself, and the second round's is taken.
    It offers the first of these, 20,000 divided by the parts or thrice its share, so that the second round's time
    does not grow with the number of parts.
    Source: Mirzasoleiman et al., Distributed Submodular Maximization (GreeDi), NeurIPS 2013, Algorithm 2.
    """
    device, rounds = distance.device, Rounds.of(len(distance), budget, rows, parts)
    chosen = []
    for part in Progress(rounds.random_parts(generator), desc="parts"):
        part = part.to(device)
        chosen.append(part[facility_location(distance.among(part), rounds.wanted(len(part))).indices])
    clients, judges = rounds.clients_and_judges(chosen, generator)
    return second_round(distance, rounds, chosen, clients.to(device), judges.to(device))


def rows_for(n: int, budget: int, rows: int | None) -> int:
    """Return over how many samples gains are taken."""
    return min(n, rows or max(SAMPLED_ROWS, ROWS_FOR_EACH_PICK * budget))


@dataclass(frozen=True)
class Rounds:
    """How the two rounds of `partition` go: of n samples `budget` in so many parts, gains over so many rows."""

    n: int
    budget: int
    rows: int
    parts: int

    @staticmethod
    def of(n: int, budget: int, rows: int | None, parts: int | None) -> Rounds:
        """Return the rounds with what the user leaves open filled in."""
        if parts is None:
            parts = max(1, min(-(-n // effort().part), n // (2 * budget)))
        return Rounds(n, budget, rows_for(n, budget, rows), min(parts, n))

    def random_parts(self, generator: torch.Generator) -> list[Tensor]:
        """Return the numbers below n in random parts, each ascending."""
        order = torch.randperm(self.n, generator=generator)
        return [part.sort().values for part in order.tensor_split(self.parts)]

    def wanted(self, size: int) -> int:
        """Return how many samples a part of this size chooses."""
        return min(self.budget, max(math.ceil(SHARE_OF_A_PART * size), self._least), size)

    @property
    def offered(self) -> int:
        """How many of what a part chose are offered to the second round at most."""
        return max(effort().offered // self.parts, self._least)

    @property
    def _least(self) -> int:
        return TIMES_ITS_SHARE * -(-self.budget // self.parts)

    def clients_and_judges(self, chosen: list[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return random rows that the second round's gains are over, and others, to tell the better solution by.

        Of these there are none where no part's choice is a solution by itself.
        """
        clients = some(self.n, self.rows, generator)
        solutions = 1 + sum(len(picks) == self.budget for picks in chosen)
        if solutions == 1:
            return clients, clients[:0]
        # Not the rows that the second round was fitted to.
        judges = min(self.rows, max(1, effort().judgements // (solutions * self.budget)))
        return clients, some(self.n, judges, generator)


def second_round(distance: Distance, rounds: Rounds, chosen: list[Tensor], clients: Tensor, judges: Tensor) -> Tensor:
    """Choose from what the parts offer, (m,), unless what one part chose is better on the judges; see `partition`."""
    budget = rounds.budget
    offered = torch.cat([picks[: rounds.offered] for picks in chosen])
    positions = torch.arange(len(clients) + len(offered), device=distance.device)
    both = distance.among(torch.cat([clients, offered]))
    second = Between(both, positions[: len(clients)], positions[len(clients) :]).hold()
    found = offered[incremental_greedy(second, second.columns, *second.sums(), budget, own=False)[0].indices]
    solutions = [found, *(picks for picks in chosen if len(picks) == budget)]
    if len(solutions) == 1:
        return found
    costs = [float(nearest_distances(distance, solution, judges).sum()) for solution in solutions]
    return solutions[costs.index(min(costs))]


@dataclass(frozen=True)
class SecondRound:
    """What the second round of `partition` takes where no more of a group is at hand: given in the place of a greedy.

    chosen: what each part chose; clients, judges: see `second_round`; sample: of the group at random, to estimate the
    cost from. All as positions in what is at hand.
    """

    rounds: Rounds
    chosen: list[Tensor]
    clients: Tensor
    judges: Tensor
    sample: Tensor

    def cover(self, distance: Distance) -> Cover:
        """Choose, and estimate the cost."""
        picks = second_round(distance, self.rounds, self.chosen, self.clients, self.judges)
        others = self.sample[~torch.isin(self.sample, picks)]
        own = torch.arange(len(picks), device=picks.device)
        return _cover_of(distance, picks, torch.cat([picks, others]), own, self.rounds.n - len(picks))


@dataclass(frozen=True)
class Between:
    """The distances from clients (n,) to candidates (p,), given as positions; as a matrix (n, p) if held."""

    distance: Distance
    clients: Tensor
    candidates: Tensor
    matrix: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clients)

    def rows(self, index: Tensor | slice) -> Tensor:
        """Return the distances from the clients at `index` to all candidates, (b, p)."""
        if self.matrix is not None:
            return self.matrix[index]
        return self.distance.block(self.clients[index], self.candidates)

    def columns(self, index: Tensor | slice) -> Tensor:
        """Return the distances from the candidates at `index` to all clients, (b, n)."""
        if self.matrix is not None:
            return self.matrix[:, index].T.contiguous()
        return self.distance.block(self.candidates[index], self.clients)

    def hold(self) -> Between:
        """Return the same, held as one matrix if that fits into memory."""
        n, p = len(self.clients), len(self.candidates)
        if not memory_limit.fits(n * p * 8, memory_limit.OF_A_MATRIX, self.distance.device):
            return self
        matrix = torch.empty(n, p, dtype=torch.float64, device=self.distance.device)
        for part in torch.arange(n).split(_rows_at_once(p)):
            matrix[part[0] : part[-1] + 1] = self.rows(part)
        return replace(self, matrix=matrix)

    def sums(self) -> tuple[Tensor, float]:
        """Return the sum over the clients for each candidate, (p,), and the largest distance; NaN if there is any."""
        total, peaks = 0, []
        for part in torch.arange(len(self)).split(_rows_at_once(len(self.candidates))):
            rows = self.rows(part)
            total = total + rows.sum(0)
            peaks.append(float(rows.max()))
        return total, max(peaks) if all(map(math.isfinite, peaks)) else math.nan


def covering(distance: Distance, picks: Tensor, generator: torch.Generator) -> Cover:
    """Return the Cover of m picks in their order; estimated where n · m distances would be too many.

    An estimate knows the picks themselves, and all others from a random sample: costs come with a standard error, and
    cluster sizes, 1 for the pick and a share of the others, still sum to n.
    """
    n, m, device = len(distance), len(picks), distance.device
    count = max(2, effort().evaluations // m - m)  # of the others
    if n - m <= count:
        return _cover_of(distance, picks, torch.arange(n, device=device), picks, n - m)
    others = torch.ones(n, dtype=torch.bool, device=device).index_fill(0, picks, False).nonzero()[:, 0]
    sample = others[some(len(others), count, generator).to(device)]
    return _cover_of(distance, picks, torch.cat([picks, sample]), torch.arange(m, device=device), n - m)


def _cover_of(distance: Distance, picks: Tensor, clients: Tensor, own: Tensor, others: int) -> Cover:
    """Return the Cover of picks (m,) by clients, which `own` places among; the rest of these stand for all others."""
    m, device = len(picks), distance.device
    sampled = len(clients) - m
    weight = others / sampled if sampled else 1.0
    weights = torch.full((len(clients),), weight, dtype=torch.float64, device=device)
    weights[own] = 1
    nearest, costs, moves = torch.empty_like(weights), 0, Moves(device)
    # All picks at once, since the vectors of this many clients may have to be formed anew each time.
    parts = torch.arange(len(clients), device=device).split(max(at_once().least_rows, 2 * at_once().elements // m))
    for part in Progress(parts, desc="cost"):
        rows = distance.block(clients[part], picks)
        lowest = rows.cummin(1).values
        costs = costs + weights[part] @ lowest
        nearest[part] = lowest[:, -1]
        closer = torch.ones_like(rows, dtype=torch.bool)
        torch.lt(rows[:, 1:], lowest[:, :-1], out=closer[:, 1:])
        mine = ((own >= part[0]) & (own <= part[-1])).nonzero()[:, 0]
        closer[own[mine] - part[0], mine] = True  # a pick is its own, even if one that equals it came before
        client, pick = closer.nonzero(as_tuple=True)
        if weight != 1:  # how they came about is not asked for, only whose they are in the end
            last = client.diff(append=client.new_tensor([-1])) != 0
            client, pick = client[last], pick[last]
        moves.add(pick, part[client])
    if not torch.isfinite(costs).all():
        raise UserError(NOT_FINITE)
    sizes, transfers = moves.clusters(m, weights)
    if weight == 1:
        return Cover(picks, -costs.diff(prepend=costs[:1]), costs, sizes.long(), transfers, exact=False)
    error = float(nearest[m:].std()) * math.sqrt(sampled * (1 - sampled / others))
    return Cover(picks, -costs.diff(prepend=costs[:1]), costs, sizes, None, exact=False, cost_error=weight * error)


def nearest_distances(distance: Distance, picks: Tensor, clients: Tensor) -> Tensor:
    """Return the distance from each client to the nearest pick."""
    current = torch.full((len(clients),), math.inf, dtype=torch.float64, device=distance.device)
    for part in picks.split(_rows_at_once(len(clients))):
        current = torch.minimum(current, distance.block(part, clients).amin(0))
    return current


def _rows_at_once(width: int) -> int:
    """Return how many rows of distances are formed at once: few hundred, fewer where they are long."""
    now = at_once()
    return max(now.least_rows, min(now.tile_rows, 8 * now.elements // width))


def some(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` of the numbers below n at random, ascending; all of them if there are no more."""
    return torch.randperm(n, generator=generator)[:count].sort().values
