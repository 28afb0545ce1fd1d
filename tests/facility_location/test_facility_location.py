"""Greedy facility location against brute force, on distance matrices that are the same for both."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcmat import UserError, memory_limit
from lcmat.block_sizes import sized
from lcmat.distances.matrix import Matrix
from lcmat.facility_location.clusters import Moves
from lcmat.facility_location.cover import Cover
from lcmat.facility_location.exact import facility_location
from tests import oracles
from tests.layouts import LAYOUTS, clusters, duplicates, grid, outlier, plane, same, uniform

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def cover_of(D: np.ndarray, budget: int) -> Cover:
    """The code under test, on a held matrix."""
    return facility_location(Matrix(torch.from_numpy(D)), budget)


def check(D: np.ndarray, budget: int, cover: Cover, held: bool = True) -> None:
    """Assert everything that a Cover claims, by brute force. held: whether its first gain is measured from Σ max D."""
    n = len(D)
    picks = cover.indices.numpy()
    assert picks.dtype == np.int64
    assert len(picks) == len(cover.gains) == len(cover.costs) == len(cover.cluster_sizes) == budget
    assert len(set(picks.tolist())) == budget
    assert picks.min() >= 0
    assert picks.max() < n
    fault = oracles.greedy_fault(D, picks, oracles.twins(D), oracles.TIE_MATRIX)
    assert fault is None, fault
    costs = np.minimum.accumulate(D[:, picks], axis=1).sum(axis=0)
    np.testing.assert_allclose(cover.costs.numpy(), costs, rtol=1e-13, atol=0)  # sums of the same numbers
    gains = -np.diff(np.concatenate([[n * D.max()], costs]))
    # A gain is a difference of costs, and both have the rounding of the larger one.
    before = np.concatenate([[n * D.max()], costs[:-1]])
    found = cover.gains.numpy()[not held :]
    assert (np.abs(found - gains[not held :]) <= 1e-13 * before[not held :]).all()
    assert (np.diff(found) <= 1e-13 * before[not held : -1]).all(), "a gain is larger than the one before"
    assert held or cover.gains[0] == 0
    sizes = cover.cluster_sizes.numpy()
    assert sizes.sum() == n
    assert np.array_equal(sizes, oracles.cluster_sizes(D, picks))


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0], ids=["a tenth", "half", "all"])
@pytest.mark.parametrize("n", [1, 2, 9, 60, 120])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_against_naive_greedy(layout: object, n: int, share: float) -> None:
    D = plane(layout(n, seed=n))
    budget = max(1, round(share * n))
    check(D, budget, cover_of(D, budget))


@pytest.mark.parametrize("n", [65, 130, 200], ids=lambda n: f"n={n}")
@pytest.mark.parametrize("seed", range(4))
def test_same_picks_as_naive_greedy_where_there_are_no_ties(n: int, seed: int) -> None:
    D = plane(uniform(n, seed))
    expected = oracles.naive_greedy(D, 6)
    assert oracles.clearest_lead(D, expected) > 1e-9
    assert cover_of(D, 6).indices.tolist() == expected


def test_not_only_planar_distances() -> None:
    """No triangle inequality is used."""
    rng = np.random.default_rng(0)
    D = rng.exponential(size=(70, 70)) ** 3
    D = np.triu(D, 1) + np.triu(D, 1).T
    check(D, 70, cover_of(D, 70))


def test_float32_matrix() -> None:
    """A matrix of few digits, whose sums are exact in float32: as the same matrix in float64."""
    D = np.abs(np.subtract.outer(*[np.random.default_rng(1).permutation(1000)[:40].astype(np.float64)] * 2))
    narrow = facility_location(Matrix(torch.from_numpy(D).float()), 12)
    wide = cover_of(D, 12)
    assert narrow.indices.tolist() == wide.indices.tolist()
    assert narrow.costs.tolist() == wide.costs.tolist()


def test_scaling_the_distances_changes_no_pick() -> None:
    """By powers of two, so that rounding is the same."""
    D = plane(clusters(80, 7))
    picks = cover_of(D, 80).indices.tolist()
    for exponent in (-900, -60, 60, 900):
        assert cover_of(np.ldexp(D, exponent), 80).indices.tolist() == picks


def test_identical_samples_alone_tie_to_the_lowest_index() -> None:
    D = plane(same(12, 0))
    cover = cover_of(D, 12)
    assert cover.indices.tolist() == list(range(12))
    assert cover.costs.tolist() == [0.0] * 12
    assert cover.gains.tolist() == [0.0] * 12
    assert cover.cluster_sizes.tolist() == [1] * 12
    assert cover_of(D, 3).cluster_sizes.tolist() == [10, 1, 1]


def test_exact_ties_on_a_line() -> None:
    """0, 1, 2, 3 by hand, no rounding: at first 1 and 2 tie (gain 12 - 4), then 2 and 3 (gain 2), then 0 and 3."""
    D = np.abs(np.subtract.outer(np.arange(4.0), np.arange(4.0)))
    cover = cover_of(D, 4)
    assert cover.indices.tolist() == [1, 2, 0, 3]
    assert cover.gains.tolist() == [8.0, 2.0, 1.0, 1.0]
    assert cover.costs.tolist() == [4.0, 2.0, 1.0, 0.0]
    assert cover_of(D, 2).cluster_sizes.tolist() == [2, 2]


def test_a_sample_as_near_to_two_picks_belongs_to_the_earlier() -> None:
    """Two triples of points and one halfway between them."""
    x = np.array([-5.0, 0.0, -5.0, 5.0, 5.0, -5.0, 5.0])
    D = np.abs(np.subtract.outer(x, x))
    cover = cover_of(D, 3)
    assert cover.indices.tolist() == [1, 0, 3]
    for budget, sizes in ((1, [7]), (2, [4, 3]), (3, [1, 3, 3])):
        assert cover_of(D, budget).cluster_sizes.tolist() == sizes
    x[1] = -5.0
    x = np.append(x, 0.0)  # four on the left, three on the right, one halfway
    cover = cover_of(np.abs(np.subtract.outer(x, x)), 2)
    assert cover.indices.tolist() == [0, 3]
    assert cover.cluster_sizes.tolist() == [5, 3]


class OnDemand:
    """A distance that forms rows when asked, and counts them."""

    device = torch.device("cpu")

    def __init__(self, D: np.ndarray) -> None:
        self.D = torch.from_numpy(D)
        self.asked = 0

    def __len__(self) -> int:
        return len(self.D)

    def rows(self, index: torch.Tensor | slice, start: int = 0) -> torch.Tensor:
        """Return D[index, start:]."""
        self.asked += len(range(len(self))[index]) if isinstance(index, slice) else len(index)
        return self.D[index, start:].clone()

    def lower(self) -> None:
        """There are no cheaper bounds."""


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_rows_on_demand_give_the_same(layout: object) -> None:
    D = plane(layout(130, seed=3))
    held = OnDemand(D)
    expected = facility_location(held, 50)
    assert held.asked == 130, "a matrix that fits is formed once"
    check(D, 50, expected)
    formed = OnDemand(D)
    with memory_limit.limited(1):
        cover = facility_location(formed, 50)
    assert formed.asked > 130, "the limit on memory was not kept"
    for name in ("indices", "costs", "cluster_sizes", "transfers"):
        assert torch.equal(getattr(cover, name), getattr(expected, name)), name
    check(D, 50, cover, held=False)
    assert cover.bound == pytest.approx(expected.bound, rel=1e-12, abs=1e-13 * D.sum())


@pytest.mark.parametrize("elements", [1, 500, 3000, 10**6])
@pytest.mark.parametrize("held", [True, False])
def test_the_size_of_blocks_changes_nothing(held: bool, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    D = plane(np.concatenate([uniform(60, 1), duplicates(60, 1)]))
    expected = cover_of(D, 120)
    most = {"exact_rows": 64, "least_bounds": 64, "most_bounds": 512}
    rows = {name: min(elements, count) for name, count in most.items()}
    with sized(elements=elements, held_elements=elements, **rows), memory_limit.limited(10**9 if held else 1):
        cover, bound = facility_location(OnDemand(D), 120), facility_location(OnDemand(D), 7).bound
    check(D, 120, cover, held)
    assert cover.indices.tolist()[:20] == expected.indices.tolist()[:20]
    assert bound == pytest.approx(cover_of(D, 7).bound, rel=1e-12)
    assert bound > 0


class Unsteady(OnDemand):
    """Each time a distance is formed, it comes out a little different, as sums in another order do."""

    draw = np.random.default_rng(0)

    def rows(self, index: torch.Tensor | slice, start: int = 0) -> torch.Tensor:
        """Return D[index, start:], each off by up to one part in 10¹²; 0 is 0."""
        rows = super().rows(index, start)
        return rows * (1 + 1e-12 * torch.from_numpy(self.draw.uniform(-1, 1, rows.shape)))


@pytest.mark.parametrize("far", [1e2, 1e6, 1e9, 1e12])
def test_rounding_of_distances_formed_anew_changes_no_pick(far: float) -> None:
    """What rounding leaves of one point's huge distances is larger than the other points' gains."""
    points = uniform(150, 3)
    points[60] += far
    D = plane(points)
    with memory_limit.limited(1):
        picks = facility_location(Unsteady(D), 12).indices.numpy()
    # As a share of the cost left: loose before the far point is chosen, and tight afterwards.
    fault = oracles.greedy_fault(D, picks, oracles.twins(D), 1e-11)
    assert fault is None, fault
    assert 60 in picks[:2]


def test_the_distance_is_left_as_it_was() -> None:
    D = torch.from_numpy(plane(uniform(30, 0)))
    before = D.clone()
    facility_location(Matrix(D), 30)
    assert torch.equal(D, before)


@pytest.mark.parametrize("layout", [uniform, clusters, duplicates, grid, outlier], ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_at_least_63_per_cent_of_the_optimum(layout: object, seed: int) -> None:
    """F(greedy) >= (1 - 1/e) F(OPT) (Nemhauser 1978), and never above F(OPT)."""
    D = plane(layout(9, seed=seed))
    for budget in range(1, 10):
        reached, best = oracles.coverage(D, cover_of(D, budget).indices.tolist()), oracles.best_coverage(D, budget)
        assert (1 - 1 / math.e) * best <= reached <= best * (1 + 1e-14)  # two sums of nine terms
        if budget == 1:
            assert reached == pytest.approx(best, rel=1e-14)


@pytest.mark.parametrize("budget", [0, -1, 6, 1000])
def test_impossible_budget_is_refused(budget: int) -> None:
    with pytest.raises(UserError, match=rf"budget.*5.*{budget}"):
        cover_of(plane(uniform(5, 0)), budget)


few = settings(derandomize=True, max_examples=30, deadline=None)
coordinates = st.integers(-3, 3) | st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda x: round(x, 6))
layouts = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=14)


@few
@given(points=layouts, data=st.data())
def test_any_points(points: list[tuple[float, float]], data: st.DataObject) -> None:
    D = plane(np.array(points, dtype=np.float64))
    budget = data.draw(st.integers(1, len(D)))
    check(D, budget, cover_of(D, budget))


@few
@given(
    entries=st.lists(st.sampled_from([0.0, 1.0, 2.0, 1e-3, 1e3, 0.1]), min_size=0, max_size=45),
    data=st.data(),
)
def test_any_symmetric_matrix(entries: list[float], data: st.DataObject) -> None:
    """Few distinct entries: ties everywhere, and zeros between samples that are not alike."""
    n = int((1 + math.isqrt(1 + 8 * len(entries))) // 2)
    D = np.zeros((n, n))
    D[np.triu_indices(n, 1)] = entries[: n * (n - 1) // 2]
    D += D.T
    budget = data.draw(st.integers(1, n))
    check(D, budget, cover_of(D, budget))


@few
@given(points=layouts)
def test_a_smaller_budget_gives_the_first_picks(points: list[tuple[float, float]]) -> None:
    D = plane(np.array(points, dtype=np.float64))
    whole = cover_of(D, len(D))
    for budget in range(1, len(D)):
        part = cover_of(D, budget)
        for name in ("indices", "gains", "costs"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[:budget]), name


def remaining_gains(D: np.ndarray, picks: list[int]) -> np.ndarray:
    """What each further sample would take off the cost, largest first, by definition."""
    current = D[picks].min(0)
    gains = [(current - np.minimum(current, D[j])).sum() for j in range(len(D)) if j not in picks]
    return np.sort(gains)[::-1]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("budget", [1, 3, 20, 39, 40])
def test_the_bound_is_the_cost_less_the_largest_remaining_gains(layout: object, budget: int) -> None:
    D = plane(layout(40, 1))
    cover = cover_of(D, budget)
    cost, gains = float(cover.costs[-1]), remaining_gains(D, cover.indices.tolist())
    expected = max(0.0, cost - gains[:budget].sum())
    assert cover.bound == pytest.approx(expected, rel=1e-9, abs=1e-12 * D.sum())


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_no_set_of_as_many_samples_costs_less_than_the_bound(layout: object, seed: int) -> None:
    D = plane(layout(9, seed))
    for budget in range(1, 9):
        cover = cover_of(D, budget)
        optimum = min(D[list(chosen)].min(0).sum() for chosen in itertools.combinations(range(9), budget))
        assert cover.bound <= optimum + 1e-12 * D.sum()
        assert float(cover.costs[-1]) >= optimum - 1e-12 * D.sum()


def test_moves_of_any_number_are_counted() -> None:
    """More than are first made room for, added pick by pick and several picks at once, against a dictionary."""
    rng, moves = np.random.default_rng(0), Moves(torch.device("cpu"))
    owner: dict[int, int] = {}
    transfers: dict[tuple[int, int], int] = {}
    for pick in range(40):
        clients = rng.permutation(9000)[: 9000 if pick == 0 else rng.integers(0, 9000)]
        for client in clients.tolist():
            key = (pick, owner.get(client, -1))
            transfers[key] = transfers.get(key, 0) + 1
            owner[client] = pick
        moves.add(pick if pick % 2 else torch.full((len(clients),), pick), torch.from_numpy(clients))
    assert moves.count > 2**17
    weights = torch.from_numpy(rng.uniform(1, 2, 9000))
    for each in (None, weights):
        sizes, counted = moves.clusters(40, each)
        assert {(pick, donor): count for pick, donor, count in counted.tolist()} == transfers
        expected = np.bincount(
            [owner[client] for client in range(9000)], None if each is None else each.numpy(), minlength=40
        )
        np.testing.assert_allclose(sizes, expected, rtol=1e-12)
