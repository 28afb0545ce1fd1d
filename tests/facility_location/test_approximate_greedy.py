"""Stochastic and partitioned facility location against brute force, and selection that is too large or interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lcmat import UserError, memory_limit
from lcmat.block_sizes import sized
from lcmat.distances.loss_curvature import LossCurvatureDistance
from lcmat.distances.matrix import Matrix, Part
from lcmat.distances.vectors import CosineDistance, RepresentativeDistance, euclidean
from lcmat.facility_location import approximate as module
from lcmat.facility_location.approximate import cover, covering, greedy_options
from lcmat.facility_location.cover import Cover
from lcmat.facility_location.exact import facility_location
from lcmat.last_layer import gradient_factors
from methods import get, names, select
from methods.coverage import PreconditionedDistance
from tests import oracles
from tests.harness import ROOT, Setting
from tests.layouts import LAYOUTS, clusters, duplicates, grid, plane, same, uniform
from tests.problems import BALANCED, digits, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

APPROXIMATE = pytest.mark.parametrize("greedy", ["stochastic", "partition"])
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
WITH_GREEDY = ["Craig", "AdaCore", "FacilityLocation", "LCMat-S", "KMedoids"]


def seeded(seed: int) -> torch.Generator:
    """A generator that starts from a seed."""
    return torch.Generator().manual_seed(seed)


def matrix(D: np.ndarray) -> Matrix:
    """The distances as the library takes them."""
    return Matrix(torch.from_numpy(D))


def check(D: np.ndarray, budget: int, found: Cover) -> None:
    """Assert everything that a Cover claims whose picks are any, by brute force."""
    n, picks = len(D), found.indices.numpy()
    assert picks.dtype == np.int64
    assert len(picks) == len(found.gains) == len(found.costs) == len(found.cluster_sizes) == budget
    assert len(set(picks.tolist())) == budget
    assert picks.min() >= 0
    assert picks.max() < n
    costs = np.minimum.accumulate(D[:, picks], axis=1).sum(axis=0)
    np.testing.assert_allclose(found.costs.numpy(), costs, rtol=1e-13, atol=0)  # sums of the same numbers
    assert (np.abs(found.gains.numpy()[1:] + np.diff(costs)) <= 1e-13 * costs[:-1]).all()
    assert found.cluster_sizes.sum() == n
    assert np.array_equal(found.cluster_sizes.numpy(), oracles.cluster_sizes(D, picks))
    for m in range(1, budget + 1):  # the transfers tell the sizes of every smaller selection, too
        sizes = np.zeros(m + 1)
        for pick, donor, count in found.transfers.tolist():
            if pick < m:
                sizes[pick] += count
                sizes[donor] -= count
        assert np.array_equal(sizes[:m], oracles.cluster_sizes(D, picks[:m]))
    assert found.exact is False
    assert found.bound is None
    assert found.cost_error == 0


# ---- any picks: what is claimed of them is true ---------------------------------------------------------------------


@APPROXIMATE
@EVERY_LAYOUT
def test_claims_are_true(layout: object, greedy: str) -> None:
    """Duplicates, ties, one point only, and distances of 18 orders of magnitude included."""
    D = plane(layout(60, seed=4))
    for budget in (1, 2, 7, 30, 59, 60):
        check(D, budget, cover(matrix(D), budget, seeded(budget), greedy))


@APPROXIMATE
@pytest.mark.parametrize("rows", [1, 5, 40, 1000])
def test_any_number_of_rows_will_do(greedy: str, rows: int) -> None:
    D = plane(duplicates(40, 2))
    for budget in (1, 6, 40):
        check(D, budget, cover(matrix(D), budget, seeded(0), greedy, rows))


@pytest.mark.parametrize("n", [1, 2, 3])
@APPROXIMATE
def test_hardly_any_samples(greedy: str, n: int) -> None:
    D = plane(uniform(n, 0))
    for budget in range(1, n + 1):
        check(D, budget, cover(matrix(D), budget, seeded(0), greedy))


@pytest.mark.parametrize("exponent", [-900, 900])
@APPROXIMATE
def test_scaling_the_distances_changes_no_pick(greedy: str, exponent: int) -> None:
    """By powers of two, so that rounding is the same."""
    D = plane(clusters(80, 7))
    picks, scaled = (cover(matrix(E), 20, seeded(1), greedy).indices for E in (D, np.ldexp(D, exponent)))
    assert torch.equal(picks, scaled)


@APPROXIMATE
def test_the_generator_alone_decides(greedy: str) -> None:
    D = plane(uniform(100, 0))
    first, again, other = (
        cover(matrix(D), 10, seeded(seed), greedy, rows=30, **({"parts": 3} if greedy == "partition" else {}))
        for seed in (0, 0, 1)
    )
    for name in ("indices", "gains", "costs", "cluster_sizes", "transfers"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(first.indices, other.indices)


@pytest.mark.parametrize("greedy", module.GREEDY)
@pytest.mark.parametrize("budget", [0, -1, 6, 1000])
def test_impossible_budget_is_refused(greedy: str, budget: int) -> None:
    with pytest.raises(UserError, match=rf"budget.*5.*{budget}"):
        cover(matrix(plane(uniform(5, 0))), budget, seeded(0), greedy)


@pytest.mark.parametrize("greedy", module.GREEDY)
def test_the_distance_is_left_as_it_was(greedy: str) -> None:
    D = torch.from_numpy(plane(uniform(40, 0)))
    before = D.clone()
    for budget in (1, 7, 40):
        cover(Matrix(D), budget, seeded(0), greedy)
    assert torch.equal(D, before)


@pytest.mark.parametrize("greedy", module.GREEDY)
@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("budget", [1, 3])
def test_distances_that_are_not_finite_are_refused(greedy: str, value: float, budget: int) -> None:
    """All to one sample, as where its features are too large."""
    D = plane(uniform(30, 0))
    D[17] = D[:, 17] = value
    with pytest.raises(UserError, match="not finite"):
        cover(matrix(D), budget, seeded(0), greedy)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@APPROXIMATE
def test_and_so_they_are_where_no_gain_is_taken_over_them(greedy: str, value: float) -> None:
    """The one sample is rarely among the rows or the candidates, but the cost of any selection is not finite."""
    D = plane(uniform(30, 0))
    D[17] = D[:, 17] = value
    for seed in range(10):
        with pytest.raises(UserError, match="not finite"):
            cover(matrix(D), 10, seeded(seed), greedy, rows=3)


def test_exact_is_the_exact_greedy() -> None:
    """And draws no random numbers."""
    D, generator = plane(uniform(50, 0)), seeded(3)
    found, expected = cover(matrix(D), 9, generator), facility_location(matrix(D), 9)
    assert torch.equal(found.indices, expected.indices)
    assert found.exact
    assert found.bound == expected.bound
    assert torch.equal(generator.get_state(), seeded(3).get_state())


# ---- stochastic -----------------------------------------------------------------------------------------------------


class Watched(Matrix):
    """A distance that counts the rows of blocks that are asked for."""

    def block(self, index: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return D[index, columns]."""
        counts.append(len(index))
        return super().block(index, columns)


counts: list[int] = []


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """The candidates of each pick and the rows that their gains are taken over, as stochastic greedy goes on."""
    seen, inner = [], module.gains_of_drawn

    def watching(distance: object, clients: torch.Tensor, candidates: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append((candidates.tolist(), clients.tolist()))
        return inner(distance, clients, candidates, *rest)

    monkeypatch.setattr(module, "gains_of_drawn", watching)
    return seen


def gains_over(D: np.ndarray, clients: list[int], picks: list[int]) -> np.ndarray:
    """What each sample, added to `picks`, takes off the cost over some rows, by definition (at first: but for c)."""
    rows = D[clients]
    if not picks:
        return -rows.sum(0)
    return np.maximum(rows[:, picks].min(1)[:, None] - rows, 0).sum(0)


@pytest.mark.parametrize("tile", [1, 4, 512])
@pytest.mark.parametrize("rows", [50, 200])
@EVERY_LAYOUT
def test_each_pick_is_the_best_of_its_candidates(
    layout: object, rows: int, tile: int, drawn: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that were drawn, by gains computed anew, however few of them are looked at."""
    D = plane(layout(200, seed=5))
    with sized(least_rows=tile, tile_rows=tile):
        picks = cover(matrix(D), 15, seeded(2), "stochastic", rows).indices.tolist()
    assert len(drawn) == 15
    for number, (candidates, clients) in enumerate(drawn):
        assert len(set(clients)) == len(clients) == rows
        assert clients == drawn[0][1], "other rows than for the first pick"
        assert not set(candidates) & set(picks[:number])
        assert picks[number] in candidates
        gains = gains_over(D, clients, picks[:number])
        left = D[clients][:, picks[:number]].min(1).sum() if number else D[clients].sum(0).min()
        assert gains[picks[number]] >= gains[candidates].max() - 1e-13 * left


@pytest.mark.parametrize("layout", [uniform, clusters], ids=lambda f: f.__name__)
def test_looking_at_fewer_candidates_changes_no_pick(layout: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ties, so that the picks are told by the draws; with the bounds left at infinity, all are looked at."""
    D = plane(layout(400, 1))
    found, looked = [], []
    for tile in (1, 10, 512):
        counts.clear()
        with sized(least_rows=tile, tile_rows=tile):
            found.append(module.stochastic(Watched(torch.from_numpy(D)), 10, seeded(0), 400).tolist())
        looked.append(sum(counts))
    assert found[0] == found[1] == found[2]
    assert looked[0] < looked[1] < looked[2], "no candidate was left out"


@pytest.mark.parametrize("layout", [duplicates, grid, same], ids=lambda f: f.__name__)
def test_nor_does_it_between_equals(layout: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties go to the lowest index, whatever the size of a tile."""
    D = plane(layout(200, 1))
    found = []
    for tile in (1, 10, 512):
        with sized(least_rows=tile, tile_rows=tile):
            found.append(module.stochastic(matrix(D), 20, seeded(0), 200).tolist())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("n", "budget"), [(1000, 10), (1000, 50), (400, 20)])
def test_number_of_candidates(n: int, budget: int, drawn: list) -> None:
    """(n/m) ln(1/0.1), less what is drawn twice or was chosen before."""
    module.stochastic(matrix(plane(uniform(n, 0))), budget, seeded(0), 20)
    sizes = [len(set(candidates)) for candidates, _ in drawn]
    expected = n / budget * math.log(10)
    assert 0.85 * expected < np.mean(sizes) <= max(sizes) <= math.ceil(expected)
    often = np.bincount(np.concatenate([candidates for candidates, _ in drawn]), minlength=n)
    assert (often > 0).mean() > 0.8, "some are never candidates: 1 - (1 - 1/n)^(n ln 10) is nine in ten"


@pytest.mark.parametrize("budget", [1, 2])
def test_where_all_are_to_be_candidates_the_first_pick_is_exact(budget: int) -> None:
    """(n/m) ln(1/0.1) is then more than n, so that nothing is left to chance."""
    D = plane(uniform(100, 3))
    expected = oracles.naive_greedy(D, 1)
    assert oracles.clearest_lead(D, expected) > 1e-9
    found = [module.stochastic(matrix(D), budget, seeded(seed), 100).tolist()[:1] for seed in range(20)]
    missed = sum(pick != expected for pick in found)
    assert missed == 0, f"{missed} of 20 first picks are not the best of all"


def many_clusters(n: int, seed: int) -> np.ndarray:
    """Twenty-five clusters."""
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(25, 2))[rng.integers(0, 25, n)] + 0.02 * rng.normal(size=(n, 2))


@pytest.mark.parametrize(("rows", "share"), [(400, 1.10), (150, 1.15)])
def test_quality_of_stochastic(rows: int, share: float) -> None:
    """The mean cost over ten seeds, against the exact greedy's; 0.99 and 1.05 of it when this was written."""
    D = plane(many_clusters(400, 0))
    exact = float(cover(matrix(D), 20, seeded(0)).costs[-1])
    costs = [float(cover(matrix(D), 20, seeded(seed), "stochastic", rows).costs[-1]) for seed in range(10)]
    assert np.mean(costs) < share * exact


@pytest.mark.parametrize("rows", [1000, 300])
def test_quality_of_partition(rows: int) -> None:
    """Where parts offer more than enough, 1 of 50 is wanted; it is much worse where a tenth or more is."""
    D = plane(many_clusters(1000, 0))
    exact = float(cover(matrix(D), 20, seeded(0)).costs[-1])
    costs = [float(cover(matrix(D), 20, seeded(seed), "partition", rows, 4).costs[-1]) for seed in range(5)]
    assert np.mean(costs) < 1.10 * exact


# ---- partition ------------------------------------------------------------------------------------------------------


@EVERY_LAYOUT
@pytest.mark.parametrize("budget", [1, 5, 30, 80])
def test_one_part_and_all_rows_give_the_exact_picks(layout: object, budget: int) -> None:
    D = plane(layout(80, seed=6))
    found = cover(matrix(D), budget, seeded(0), "partition", rows=80, parts=1)
    assert found.indices.tolist() == facility_location(matrix(D), budget).indices.tolist()


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """The samples of each part, and those that it offers, as partition goes on."""
    seen = []

    def watching(distance: Part, budget: int) -> Cover:
        found = facility_location(distance, budget)
        seen.append((distance.index.tolist(), distance.index[found.indices].tolist()))
        return found

    monkeypatch.setattr(module, "facility_location", watching)
    return seen


@pytest.mark.parametrize("parts", [None, 1, 2, 3, 7, 60, 61, 1000])
@pytest.mark.parametrize("budget", [1, 5, 59, 60, 61])
def test_parts_hold_every_sample_once(parts: int | None, budget: int, offers: list) -> None:
    """As many as asked for, but no empty ones; of equal size; each picked from by the exact greedy."""
    D = plane(uniform(61, 0))
    check(D, budget, cover(matrix(D), budget, seeded(0), "partition", parts=parts))
    assert sorted(j for part, _ in offers for j in part) == list(range(61))
    if parts is not None:
        assert len(offers) == min(parts, 61)
    sizes = [len(part) for part, _ in offers]
    assert max(sizes) - min(sizes) <= 1
    assert sum(len(offer) for _, offer in offers) >= budget
    for part, offer in offers:
        inside = D[np.ix_(part, part)]
        fault = oracles.greedy_fault(inside, [part.index(j) for j in offer], np.arange(len(part)), oracles.TIE_MATRIX)
        assert fault is None, fault


def test_parts_are_drawn_at_random(offers: list) -> None:
    D = plane(uniform(60, 0))
    for seed in range(2):
        cover(matrix(D), 5, seeded(seed), "partition", parts=3)
    first, second = ([set(part) for part, _ in offers[start : start + 3]] for start in (0, 3))
    assert not any(part in second for part in first)
    assert not any(part == set(range(min(part), min(part) + 20)) for part in first)


def test_a_part_chooses_at_most_a_tenth_or_thrice_its_share(offers: list) -> None:
    D = plane(uniform(400, 0))
    for budget, parts, expected in ((5, 4, 5), (10, 4, 10), (12, 4, 10), (30, 4, 24), (100, 4, 75), (400, 4, 100)):
        offers.clear()
        assert len(cover(matrix(D), budget, seeded(0), "partition", parts=parts).indices) == budget
        assert [len(offer) for _, offer in offers] == [expected] * 4


@pytest.mark.parametrize(("most", "expected"), [(0, 9), (39, 9), (40, 10), (20_000, 10)])
def test_the_second_round_takes_the_first_of_a_parts_picks(
    most: int, expected: int, offers: list, monkeypatch: pytest.MonkeyPatch, efforts: Setting
) -> None:
    """Thrice its share of 12 samples, rounded up, or a share of what all may offer; it chose a tenth of its samples."""
    seen, inner = [], module.incremental_greedy

    def watching(second: module.Between, *rest: object, **options: object) -> tuple[Cover, torch.Tensor]:
        seen.append(second.distance.index[second.candidates].tolist())
        return inner(second, *rest, **options)

    monkeypatch.setattr(module, "incremental_greedy", watching)
    efforts(offered=most)
    cover(matrix(plane(uniform(400, 0))), 12, seeded(0), "partition", parts=4)
    assert [len(picks) for _, picks in offers] == [10] * 4
    assert seen == [[j for _, picks in offers for j in picks[:expected]]]


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (5 * 10 * 37, 37), (10**9, 600)])
def test_solutions_are_compared_over_few_rows(
    most: int, expected: int, monkeypatch: pytest.MonkeyPatch, efforts: Setting
) -> None:
    """As many as the distances of all solutions, 4 parts' and the second round's, to 10 picks each allow."""
    seen, inner = [], module.nearest_distances

    def watching(distance: object, picks: torch.Tensor, clients: torch.Tensor) -> torch.Tensor:
        seen.append(clients.tolist())
        return inner(distance, picks, clients)

    monkeypatch.setattr(module, "nearest_distances", watching)
    efforts(judgements=most)
    D = plane(many_clusters(600, 1))
    check(D, 10, cover(matrix(D), 10, seeded(0), "partition", 600, 4))
    assert len(seen) == 5
    assert all(clients == seen[0] for clients in seen), "compared over different rows"
    assert len(set(seen[0])) == len(seen[0]) == expected


@pytest.mark.parametrize("parts", [2, 5])
def test_the_better_of_both_rounds(parts: int, offers: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second round fails, the best part's own picks are returned; where it does not, never worse ones."""
    D = plane(many_clusters(600, 1))
    for seed in range(5):
        offers.clear()
        found = float(cover(matrix(D), 10, seeded(seed), "partition", 600, parts).costs[-1])
        assert [len(offer) for _, offer in offers] == [10] * parts
        assert found <= min(oracles.cost(D, offer) for _, offer in offers) * (1 + 1e-13)
    inner, offered = module.incremental_greedy, []

    def failing(*args: object, **options: object) -> tuple[Cover, torch.Tensor]:
        result, gains = inner(*args, **options)
        offered.append(len(gains))
        return replace(result, indices=result.indices[[0] * 10]), gains  # a good first pick, ten times

    monkeypatch.setattr(module, "incremental_greedy", failing)
    for seed in range(5):
        offers.clear()
        found = cover(matrix(D), 10, seeded(seed), "partition", 600, parts)
        best = min((offer for _, offer in offers), key=lambda offer: oracles.cost(D, offer))
        assert found.indices.tolist() == best
    assert offered == [10 * parts] * 5, "the second round chooses from all that was offered"


def test_the_second_round_is_greedy_over_the_offers(offers: list) -> None:
    """By brute force: over all rows, from all that parts offer, where none offers enough to be a solution itself."""
    D = plane(uniform(120, 2))
    picks = cover(matrix(D), 20, seeded(0), "partition", 120, parts=6).indices.tolist()
    candidates = [j for _, offer in offers for j in offer]
    assert all(len(offer) < 20 for _, offer in offers)
    for number, pick in enumerate(picks):
        gains = gains_over(D, list(range(120)), picks[:number])
        rest = [j for j in candidates if j not in picks[:number]]
        assert pick in rest
        assert gains[pick] >= gains[rest].max() - 1e-13 * D.sum(0).min()


@pytest.mark.parametrize("greedy", ["stochastic", "partition"])
@pytest.mark.parametrize("size", [1, "20kB"])
def test_memory_changes_no_pick(greedy: str, size: int | str) -> None:
    """Of a distance that is formed as needed."""
    signals = random_problem(3, 150, 6, 4).signals
    for balanced in (True, False):
        expected = select(signals, budget=15, greedy=greedy, rows=60, balanced=balanced)
        found = select(signals, budget=15, greedy=greedy, rows=60, balanced=balanced, memory=size)
        assert np.array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.costs, expected.costs, rtol=1e-12)


# ---- estimated costs ------------------------------------------------------------------------------------------------


def estimates(D: np.ndarray, picks: list[int], seeds: int) -> list[Cover]:
    """The Cover of the same picks, estimated again and again."""
    chosen = torch.tensor(picks)
    return [covering(matrix(D), chosen, seeded(seed)) for seed in range(seeds)]


@pytest.mark.parametrize("layout", [uniform, many_clusters, duplicates], ids=lambda f: f.__name__)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_estimates_are_unbiased_and_as_sure_as_they_say(layout: object, share: float, efforts: Setting) -> None:
    """Over 200 seeds: errors in units of what they should be average 0 (within 0.3) and spread 1 (0.7 to 1.35)."""
    n, m, seeds = 500, 10, 200
    efforts(evaluations=int(m * (m + share * (n - m))))
    D = plane(layout(n, 3))
    picks = np.random.default_rng(0).permutation(n)[:m].tolist()
    found = estimates(D, picks, seeds)
    errors = np.array([(float(one.costs[-1]) - oracles.cost(D, picks)) / one.cost_error for one in found])
    assert abs(errors.mean()) < 0.3
    assert 0.7 < errors.std() < 1.35
    for number in range(m):  # so are the costs of fewer picks
        costs = np.array([float(one.costs[number]) for one in found])
        assert abs(costs.mean() - oracles.cost(D, picks[: number + 1])) < 4.5 * costs.std() / math.sqrt(seeds)
    sizes = np.array([one.cluster_sizes.tolist() for one in found])
    error = np.maximum(sizes.std(0), 1e-9) / math.sqrt(seeds)
    assert (np.abs(sizes.mean(0) - oracles.cluster_sizes(D, picks)) < 4.5 * error).all()
    np.testing.assert_allclose(sizes.sum(1), n, rtol=1e-12)
    assert sizes.min() >= 1
    for one in found:
        assert one.cost_error > 0
        assert one.transfers is None
        assert one.bound is None
        assert not one.exact
        assert (one.costs.diff() <= 0).all()


def test_equal_samples_keep_a_cluster_of_their_own(efforts: Setting) -> None:
    efforts(evaluations=5 * 50)
    found = covering(matrix(plane(same(100, 0))), torch.tensor([7, 3, 90, 2, 1]), seeded(0))
    np.testing.assert_allclose(found.cluster_sizes.numpy(), [96, 1, 1, 1, 1], rtol=1e-14)
    assert found.costs.tolist() == [0] * 5
    assert found.cost_error == 0


@APPROXIMATE
@pytest.mark.parametrize("budget", [1, 2, 30, 58, 59, 60])
@pytest.mark.parametrize("evaluations", [1, 300])
def test_any_budget_can_be_estimated(greedy: str, budget: int, evaluations: int, efforts: Setting) -> None:
    """All samples included, of which none is left to be sampled: the cost is then 0."""
    efforts(evaluations=evaluations)
    D = plane(uniform(60, 0))
    found = cover(matrix(D), budget, seeded(0), greedy)
    assert len(set(found.indices.tolist())) == budget
    assert found.costs.isfinite().all()
    assert float(found.cluster_sizes.sum()) == pytest.approx(60, rel=1e-12)
    assert math.isfinite(found.cost_error)
    if budget == 60:
        assert float(found.costs[-1]) == 0
        assert found.cluster_sizes.tolist() == [1] * 60


@BALANCED
@APPROXIMATE
def test_a_subset_whose_cost_is_estimated(greedy: str, balanced: bool, efforts: Setting) -> None:
    problem = random_problem(5, 300)
    whole = select(problem.signals, "LCMat-S", budget=12, balanced=balanced, greedy=greedy, weights=True)
    assert whole.cost_error == 0
    assert whole.transfers is not None
    efforts(evaluations=200)
    subset = select(problem.signals, "LCMat-S", budget=12, balanced=balanced, greedy=greedy, weights=True)
    assert np.array_equal(subset.indices, whole.indices)
    for one in (whole, subset):
        assert one.nested is False
        assert one.bound is None
        assert one.weights.sum() == pytest.approx(300, rel=1e-6)  # float32
        assert one.weights.min() >= 1
        with pytest.raises(UserError, match="not nested"):
            one.prefix(budget=6)
    assert subset.transfers is None
    assert 0 < subset.cost_error < whole.cost
    assert abs(subset.cost - whole.cost) < 5 * subset.cost_error
    groups = problem.parts(balanced=balanced)
    truth = oracles.over_parts(groups, subset.indices, oracles.cost)
    assert whole.cost == pytest.approx(truth, rel=1e-10)


# ---- options --------------------------------------------------------------------------------------------------------


def test_the_exact_greedy_adds_no_options() -> None:
    """So that records of earlier runs keep their hash."""
    assert greedy_options("exact", None, None) == {}
    for name in WITH_GREEDY:
        for given in ({}, {"greedy": "Exact"}):
            assert not {"greedy", "rows", "parts"} & get(name).resolved(10, 512, given).keys()


def test_others_are_all_recorded() -> None:
    assert greedy_options("STOCHASTIC", 5, None) == {"greedy": "stochastic", "rows": 5}
    assert greedy_options("partition", None, 7) == {"greedy": "partition", "rows": None, "parts": 7}
    told = {"greedy": "partition", "rows": 1, "parts": None}
    assert told.items() <= get("Craig").resolved(10, 512, {"greedy": "partition", "rows": 1}).items()


@pytest.mark.parametrize(
    ("greedy", "options"),
    [("exact", {"rows": 10}), ("exact", {"parts": 10}), ("stochastic", {"parts": 10})],
    ids=["rows of exact", "parts of exact", "parts of stochastic"],
)
@pytest.mark.parametrize("method", WITH_GREEDY)
def test_options_of_another_greedy_are_refused(method: str, greedy: str, options: dict) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))} has no meaning for the {greedy} greedy"):
        get(method).resolved(10, 64, {"greedy": greedy, **options})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "x", math.nan, math.inf, [3]], ids=repr)
@pytest.mark.parametrize("name", ["rows", "parts"])
@pytest.mark.parametrize("method", WITH_GREEDY)
def test_bad_values_are_refused(method: str, name: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{name} must be a whole number of at least 1"):
        get(method).resolved(10, 64, {"greedy": "partition", name: value})


@pytest.mark.parametrize(
    ("word", "nearest"), [("stocastic", "stochastic"), ("partitions", "partition"), ("exakt", "exact")]
)
@pytest.mark.parametrize("method", WITH_GREEDY)
def test_misspelt_greedy(method: str, word: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"greedy '{word}'; did you mean {nearest}"):
        get(method).resolved(10, 64, {"greedy": word})


@pytest.mark.parametrize("word", [1, True, None, 2.5, ""], ids=repr)
def test_a_greedy_that_is_no_word_is_refused(word: object) -> None:
    """The command line's --option greedy=1 gives a number."""
    with pytest.raises(UserError, match="greedy"):
        get("LCMat-S").resolved(10, 64, {"greedy": word})


# ---- blocks of distances --------------------------------------------------------------------------------------------

DISTANCES = {
    "LCMat-S": lambda signals: LossCurvatureDistance(signals, rho=0.1),
    "Craig": lambda signals: LossCurvatureDistance(signals, rho=0.0),
    "euclidean": lambda signals: euclidean(signals.features),
    "cosine": lambda signals: CosineDistance(*gradient_factors(signals)),
    "AdaCore": lambda signals: PreconditionedDistance(signals, 0.1, False),
    "AdaCore, mean": lambda signals: PreconditionedDistance(signals, 0.1, True),
}


@pytest.mark.parametrize("held", [True, False], ids=["vectors kept", "nothing kept"])
@pytest.mark.parametrize("repeated", [True, False], ids=["duplicates", "all different"])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_block_is_a_part_of_rows(name: str, repeated: bool, held: bool) -> None:
    """Whatever is asked for: nothing, one, some twice, more than a tile holds, and in any order."""
    problem = random_problem(8, 700, 5, 3, duplicates=repeated)
    with memory_limit.limited(10**9 if held else 1):
        distance: RepresentativeDistance = DISTANCES[name](problem.signals)
    assert (distance.kept is not None) == (held and name != "cosine")
    rng = np.random.default_rng(0)
    whole = distance.rows(slice(0, 700))
    for size, width in ((1, 1), (1, 700), (5, 60), (60, 5), (600, 700), (700, 3), (0, 4), (4, 0)):
        index, columns = (torch.from_numpy(rng.integers(0, 700, count)) for count in (size, width))
        block = distance.block(index, columns)
        assert block.shape == (size, width)
        assert block.dtype == torch.float64
        np.testing.assert_allclose(block, distance.rows(index)[:, columns], rtol=1e-12, atol=1e-15 * float(whole.max()))
        np.testing.assert_allclose(block, whole[index][:, columns], rtol=1e-12, atol=1e-15 * float(whole.max()))
        equal = distance.representative[index][:, None] == distance.representative[columns]
        if name != "cosine":  # where a gradient is zero, it is at ½ of itself
            assert (block[equal] == 0).all()


@pytest.mark.parametrize("held", [True, False], ids=["vectors kept", "nothing kept"])
@pytest.mark.parametrize("name", DISTANCES)
def test_distances_among_some(name: str, held: bool) -> None:
    """In the numbering of an index in any order, with samples that are equal and some that are named twice."""
    problem = random_problem(8, 700, 5, 3, duplicates=True)
    distance: RepresentativeDistance = DISTANCES[name](problem.signals)
    index = torch.from_numpy(np.random.default_rng(1).integers(0, 700, 650))
    with memory_limit.limited(10**9 if held else 1):
        some = distance.among(index)
    assert (some.kept is not None) == held
    assert len(some) == 650
    expected = distance.block(index, index)
    found = some.rows(slice(0, 650))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15 * float(expected.max()))
    np.testing.assert_allclose(some.rows(torch.tensor([3, 640]), 17), expected[[3, 640], 17:], rtol=1e-12, atol=1e-12)
    if name != "cosine":
        assert (found[distance.representative[index][:, None] == distance.representative[index]] == 0).all()


def test_a_block_of_a_matrix() -> None:
    D = plane(uniform(30, 0))
    index, columns = torch.tensor([3, 3, 29, 0]), torch.tensor([5, 1])
    assert torch.equal(matrix(D).block(index, columns), torch.from_numpy(D)[index][:, columns])


def test_distances_among_some_of_a_matrix() -> None:
    D = plane(uniform(30, 0))
    index, some = torch.tensor([7, 3, 29, 0, 3]), torch.tensor([4, 1, 2])
    for part, expected in (
        (matrix(D).among(index), index),
        (matrix(D).among(index).among(some), index[some]),
    ):
        assert len(part) == len(expected)
        assert torch.equal(part.rows(slice(0, 2), 1), torch.from_numpy(D)[expected[:2]][:, expected[1:]])
        assert torch.equal(part.block(torch.tensor([2, 0]), torch.tensor([1])), part.rows(torch.tensor([2, 0]))[:, [1]])


# ---- methods --------------------------------------------------------------------------------------------------------


def test_methods_that_offer_a_choice() -> None:
    assert {name for name in names() if "greedy" in get(name).options} == set(WITH_GREEDY)


@BALANCED
@pytest.mark.parametrize("greedy", module.GREEDY)
@pytest.mark.parametrize("method", WITH_GREEDY)
def test_every_method_with_every_greedy(method: str, greedy: str, balanced: bool) -> None:
    """Digits: as many as asked for of each class, weights that sum to n, and about the exact greedy's cost."""
    problem = digits(True, 300)
    subset = select(problem.signals, method, fraction=0.1, balanced=balanced, greedy=greedy)
    exact = select(problem.signals, method, fraction=0.1, balanced=balanced)
    assert len(np.unique(subset.indices)) == len(subset) == sum(problem.budgets(0.1, balanced))
    if balanced:
        assert np.bincount(subset.classes, minlength=10).tolist() == problem.budgets(0.1)
    assert subset.nested == (greedy == "exact")
    assert (subset.bound is not None) == (greedy == "exact")
    assert subset.cost < 1.2 * exact.cost
    if subset.weights is not None:
        assert subset.weights.sum() == 300
    if greedy == "exact":
        assert np.array_equal(subset.indices, exact.indices)
    elif greedy == "stochastic":  # a class of digits is one part, whose picks are the exact ones
        other = select(problem.signals, method, fraction=0.1, balanced=balanced, greedy=greedy, seed=1, rows=20)
        assert not np.array_equal(subset.indices, other.indices)


# ---- in a process of its own ----------------------------------------------------------------------------------------

SELECTING = """
import signal, sys, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # even where the tests run in the background
from lcmat import Signals
from lcmat.command_line import run_command_line
from methods import select

def main(argv):
    n = 6_000
    torch.manual_seed(0)
    signals = Signals(torch.rand(n, 16), torch.randn(n, 4), torch.zeros(n, dtype=torch.int64))
    print("started", flush=True)
    select(signals, budget=600, memory=1)
    print("ended", flush=True)

try:
    main([])
except KeyboardInterrupt:
    print("caught", flush=True)
code = run_command_line(main, [])
print("code", code, flush=True)
main([])
"""


def test_interrupted() -> None:
    """Ctrl-C ends a selection that would still take long, at once: in a program, in a command, and a process itself."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", SELECTING], cwd=ROOT, env=environment, **pipes)

    def interrupt(seconds: float) -> None:
        assert process.stdout.readline() == "started\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)

    try:
        interrupt(1)
        began = time.monotonic()
        assert process.stdout.readline() == "caught\n"
        assert time.monotonic() - began < 5
        interrupt(0.5)
        assert process.stdout.readline() == "code 130\n"
        interrupt(0.2)
        out, error = process.communicate(timeout=5)
    finally:
        process.kill()
    assert out == ""
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert error.count("interrupted; the same command goes on with --resume") == 1
    assert error.count("Traceback") == 1
    assert error.rstrip().endswith("KeyboardInterrupt")


LARGE = """
import json, sys, torch
from lcmat import Signals
from lcmat.hardware import peak_memory
from methods import select

n, d, C = 6_000, 64, 4
torch.manual_seed(0)
warm = Signals(torch.rand(50, d), torch.rand(50, C), torch.zeros(50, dtype=torch.int64))
select(warm, fraction=0.1)
of = torch.randint(40, (n,))
features, logits = torch.rand(40, d)[of] + 0.01 * torch.randn(n, d), torch.randn(40, C)[of] + 0.01 * torch.randn(n, C)
signals = Signals(features, logits, torch.zeros(n, dtype=torch.int64))
before, found = peak_memory(), {}
for greedy in sys.argv[1:]:
    options = {"exact": {}, "stochastic": {"rows": 2_000}, "partition": {"rows": 2_000, "parts": 4}}[greedy]
    subset = select(signals, budget=50, memory="60MB", greedy=greedy, rho=0.0, **options)
    found[greedy] = {"cost": subset.cost, "picks": len(set(subset.indices.tolist()))}
print(json.dumps({"found": found, "MB": (peak_memory() - before) / 1e6}))
"""


def test_a_class_too_large_for_its_matrix(script: Callable) -> None:
    """The matrix would be 288 MB; each greedy does without."""
    done = script(["-c", LARGE, *module.GREEDY])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["MB"] < 120
    exact = result["found"]["exact"]["cost"]
    for greedy in module.GREEDY:
        assert result["found"][greedy]["picks"] == 50
        assert result["found"][greedy]["cost"] < 1.2 * exact
