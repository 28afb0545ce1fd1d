"""Lower bounds of LCMat-S's distance in float32, and the lazy greedy that rests on them."""

import numpy as np
import pytest
import torch

from lcmat import memory_limit
from lcmat.block_sizes import sized
from lcmat.distances import lower_bounds
from lcmat.distances.loss_curvature import LossCurvatureDistance
from lcmat.distances.lower_bounds import LowerBounds
from lcmat.facility_location.exact import facility_location
from lcmat.facility_location.lazy import Themselves, lazy_greedy
from tests import oracles
from tests.problems import Problem, digits, random_problem, sure

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def scaled(features: float, logits: float, n: int = 90) -> Problem:
    """A random problem whose features and logits are as large as asked for."""
    problem = random_problem(3, n, 20, 4)
    return Problem(features * problem.features, logits * problem.logits, problem.labels)


def spread() -> Problem:
    """Features over twelve orders of magnitude, sample by sample."""
    problem = random_problem(4, 90, 20, 4)
    sizes = 10.0 ** np.random.default_rng(0).uniform(-8, 4, (90, 1))
    return Problem(sizes * problem.features, problem.logits, problem.labels)


def nearly_alike() -> Problem:
    """Pairs that differ by a millionth: float32 cannot tell how far apart they are."""
    problem = random_problem(5, 90, 20, 4)
    order = np.arange(90) // 2
    features = problem.features[order] + 1e-6 * problem.features
    return Problem(features, problem.logits[order], problem.labels[order])


PROBLEMS = {
    "random": lambda: random_problem(0, 90, 20, 4),
    "duplicates": lambda: random_problem(1, 90, 20, 4, duplicates=True),
    "nearly alike": nearly_alike,
    "large": lambda: scaled(1e5, 1),
    "tiny": lambda: scaled(1e-9, 1e-3),
    "spread": spread,
    "sure": lambda: sure(30, 60, wrong=True),
    "surer": lambda: sure(300, 350, wrong=True),
    "digits": lambda: digits(trained=True, n=400),
}
problems = pytest.mark.parametrize("name", PROBLEMS)
radii = pytest.mark.parametrize("rho", [0.0, 0.1, 30.0])


def whole(lower: LowerBounds | Themselves, n: int) -> np.ndarray:
    """All bounds as one matrix; each column is covered once."""
    matrix, times = np.full((n, n), np.nan), np.zeros(n)
    for columns, tile in lower.tiles(torch.arange(n)):
        matrix[:, columns] = tile
        times[columns] += 1
    assert (times == 1).all()
    return matrix


@problems
@radii
@pytest.mark.parametrize("elements", [7, 2000, 2**19])
def test_never_above_the_distance_and_close(
    name: str, rho: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = PROBLEMS[name]()
    n = len(problem.labels)
    D = oracles.distances(*problem.arrays, rho, None)
    lower = LossCurvatureDistance(problem.signals, rho).lower()
    with sized(tile_elements=elements):
        bounds = whole(lower, n)
    assert (bounds <= D * (1 + 1e-12)).all()  # the oracle rounds, too
    # What the squares lose is at most a few 1e-5 of |g_i|² + |g_j|², and its root is largest where nothing is left.
    norms = np.linalg.norm(oracles.gradients(*problem.arrays), axis=1)
    curvature = rho * np.abs(oracles.hessians(*problem.arrays[:2])).sum(1)
    squares = np.add.outer(norms**2, norms**2)
    clear = D >= 0.1 * np.sqrt(squares)
    sizes = np.add.outer(norms + curvature, norms + curvature)
    assert (D - bounds <= 0.02 * sizes + 1e-9).all()
    if rho == 0:
        assert (D - bounds <= 1e-3 * np.sqrt(squares) + 1e-9)[clear].all()


def test_columns_from_a_start_and_any_rows() -> None:
    problem = random_problem(0, 90, 20, 4)
    lower = LossCurvatureDistance(problem.signals, 0.1).lower()
    bounds = whole(lower, 90)
    index = torch.tensor([80, 3, 3, 41])
    for rows, expected in ((index, bounds[index]), (slice(10, 30), bounds[10:30])):
        parts = list(lower.tiles(rows, 40))
        assert parts[0][0].start == 40
        found = np.concatenate([tile.numpy() for _, tile in parts], 1)
        np.testing.assert_allclose(found, expected[:, 40:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e7, 1e100])
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_none_beyond_what_float32_can_hold(size: float, rho: float) -> None:
    assert LossCurvatureDistance(scaled(size, 1).signals, rho).lower() is None


def test_none_where_they_do_not_fit_into_memory() -> None:
    distance = LossCurvatureDistance(random_problem(0, 90, 20, 4).signals, 0.1)
    size = 4 * 90 * (4 + 21 + 84 + 2)  # C, d + 1, K and two more
    with memory_limit.limited(int(size / memory_limit.OF_VECTORS) - 1):
        assert distance.lower() is None
    with memory_limit.limited(int(size / memory_limit.OF_VECTORS) + 1):
        assert distance.lower() is not None


def test_none_where_products_of_float32_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the tensor cores of a GPU do where the user lets them: ten bits of each factor."""
    distance = LossCurvatureDistance(random_problem(0, 90, 20, 4).signals, 0.1)
    product = torch.Tensor.__matmul__

    def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return product(a.half().float(), b.half().float())

    assert lower_bounds.products_are_whole(torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not lower_bounds.products_are_whole(torch.device("cpu"))
    assert distance.lower() is None


class Counted(LossCurvatureDistance):
    """Counts the rows that are formed in float64; its matrix is never held."""

    formed = 0

    def rows(self, index: torch.Tensor | slice, start: int = 0) -> torch.Tensor:
        """Return D[index, start:]."""
        rows = super().rows(index, start)
        self.formed += len(rows)
        return rows


@problems
@radii
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_picks_are_those_of_naive_greedy(name: str, rho: float, share: float) -> None:
    problem = PROBLEMS[name]()
    n = len(problem.labels)
    budget = max(1, int(share * n))
    distance = LossCurvatureDistance(problem.signals, rho)
    picks, costs, moves, left = lazy_greedy(distance, budget)
    D = distance.rows(slice(0, n)).numpy()
    fault = oracles.greedy_fault(D, np.array(picks), oracles.twins(D), oracles.TIE_MATRIX)
    assert fault is None, fault
    held = facility_location(distance, budget)
    np.testing.assert_allclose(costs, held.costs, rtol=1e-12, atol=1e-13 * D.sum())
    assert moves.count >= n
    if costs[-1] > 0:
        assert max(0.0, costs[-1] - left) == pytest.approx(held.bound, rel=1e-9, abs=1e-12 * D.sum())


def test_few_distances_are_formed_in_float64() -> None:
    """Eight rows and the pick's own for each pick, and for the certificate one for each of the largest gains."""
    problem = random_problem(2, 1500, 20, 4)
    distance = Counted(problem.signals, 0.1)
    with memory_limit.limited(4 * 10**6):  # the matrix would be 18 MB
        cover = facility_location(distance, 15)
    assert 15 < distance.formed <= 15 * 9 + 30
    assert torch.equal(cover.indices, facility_location(LossCurvatureDistance(problem.signals, 0.1), 15).indices)
