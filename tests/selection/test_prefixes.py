"""A subset's prefixes, and the weights and costs that they have."""

import numpy as np
import pytest

from lcmat import UserError
from methods import select
from tests import oracles
from tests.problems import SIZES, check_form, equal, random_problem, with_sizes

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")
METHODS = ["Uniform", "LCMat-S"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_prefix_is_the_selection_for_a_smaller_fraction(method: str, balanced: bool, sizes: list[int]) -> None:
    problem = with_sizes(sizes)
    large = select(problem.signals, method, fraction=0.3, balanced=balanced)
    for fraction in (0.3, 0.25, 0.15, 0.1, 0.05, 0.01):
        small = select(problem.signals, method, fraction=fraction, balanced=balanced)
        prefix = large.prefix(fraction)
        assert equal(prefix, small)
        assert prefix.cost == small.cost
        check_form(prefix, problem, balanced)


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_cost_of_a_prefix(balanced: bool) -> None:
    problem = random_problem(9, 100, 5, 4)
    large, parts = select(problem.signals, fraction=0.6, balanced=balanced), problem.parts(balanced=balanced)
    costs = []
    for fraction in (0.6, 0.3, 0.1):
        prefix = large.prefix(fraction)
        costs.append(prefix.cost)
        assert prefix.cost == pytest.approx(oracles.over_parts(parts, prefix.indices, oracles.cost), rel=1e-11)
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_a_prefix_larger_than_the_subset_is_refused(balanced: bool) -> None:
    subset = select(with_sizes([50, 30, 20, 7]).signals, fraction=0.3, balanced=balanced)
    for fraction in (0.35, 0.5, 1.0):
        with pytest.raises(UserError, match="smaller"):
            subset.prefix(fraction)
    for fraction in (0, -1, 1.5):
        with pytest.raises(UserError, match="fraction"):
            subset.prefix(fraction)


def test_a_prefix_of_everything_is_what_full_gives() -> None:
    """Full takes all, whatever the fraction; the first in file order would be neither that nor a selection."""
    signals = with_sizes([20, 10]).signals
    full = select(signals, "Full", fraction=0.3)
    try:
        prefix = full.prefix(0.1)
    except UserError:
        return
    assert equal(prefix, select(signals, "Full", fraction=0.1))


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("duplicates", [False, True], ids=["all different", "duplicates"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_weights_are_cluster_sizes(fraction: float, duplicates: bool, balanced: bool) -> None:
    problem = random_problem(7, 90, 5, 4, duplicates=duplicates)
    plain = select(problem.signals, fraction=fraction, balanced=balanced)
    subset = select(problem.signals, fraction=fraction, balanced=balanced, weights=True)
    assert plain.weights is None
    assert subset.indices.tolist() == plain.indices.tolist()
    assert isinstance(subset.weights, np.ndarray)
    assert subset.weights.dtype == np.float32
    parts = problem.parts(balanced=balanced)
    picked = oracles.split(subset.indices, parts)
    expected = [oracles.cluster_sizes(part.D, picks) for part, picks in zip(parts, picked, strict=True)]
    assert subset.weights.tolist() == np.concatenate(expected).tolist()
    groups = subset.classes if balanced else np.zeros(len(subset), dtype=np.int64)
    sums = np.bincount(groups, weights=subset.weights)
    assert sums.tolist() == [len(part.members) for part in parts]


def test_weights_of_a_prefix_are_its_own_cluster_sizes() -> None:
    """A smaller set has larger clusters: the first weights of the larger one would be wrong."""
    signals = random_problem(7).signals
    whole, part = (select(signals, fraction=f, weights=True) for f in (0.5, 0.1))
    prefix = whole.prefix(0.1)
    assert prefix.weights.tolist() == part.weights.tolist()
    assert prefix.indices.tolist() == part.indices.tolist()
    assert prefix.weights.sum() == len(signals)
