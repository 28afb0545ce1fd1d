"""Uniform and Full."""

import numpy as np
import pytest
import torch
from scipy import stats

from lcmat import Signals
from methods import select
from tests import oracles
from tests.problems import check_form, equal, random_problem, with_sizes

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


def uniform_picks(sizes: list[int], budget: int, seeds: range, balanced: bool = True) -> np.ndarray:
    """Indices that Uniform picks under each seed, (seeds, budget). Labels come sorted."""
    signals = Signals(labels=np.repeat(np.arange(len(sizes)), sizes))
    return np.array([select(signals, "Uniform", budget=budget, balanced=balanced, seed=s).indices for s in seeds])


def test_uniform_is_seeded() -> None:
    signals = random_problem(0).signals
    one = select(signals, "Uniform", fraction=0.3, seed=1)
    torch.manual_seed(5)
    np.random.seed(5)
    assert equal(one, select(signals, "Uniform", fraction=0.3, seed=1))
    assert not np.array_equal(one.indices, select(signals, "Uniform", fraction=0.3, seed=2).indices)
    assert one.cost is None
    assert one.weights is None


def test_uniform_leaves_the_global_generators_alone() -> None:
    before = torch.random.get_rng_state().clone()
    select(random_problem(0).signals, "Uniform", fraction=0.3, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_uniform_picks_each_ordered_pair_as_often(balanced: bool) -> None:
    """So both which are picked and their order (what a prefix rests on) are uniform: 30 ordered pairs of 6 samples."""
    sizes = [6] if balanced else [4, 2]
    picks = uniform_picks(sizes, 2, range(1500), balanced)
    counts = np.bincount(picks[:, 0] * 6 + picks[:, 1], minlength=36).reshape(6, 6)
    assert (np.diag(counts) == 0).all()
    # The seeds are fixed, so this does not fail now and then: 1e-6 only says how unlikely these counts may be.
    assert stats.chisquare(counts[~np.eye(6, dtype=bool)]).pvalue > 1e-6


def test_uniform_picks_of_classes_are_independent() -> None:
    picks = uniform_picks([5, 5], 2, range(1500))
    counts = np.bincount(picks[:, 0] * 5 + picks[:, 1] - 5, minlength=25)
    assert counts.shape == (25,)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_uniform_picks_of_neighbouring_seeds_are_independent() -> None:
    picks = uniform_picks([5], 1, range(1501))[:, 0]
    counts = np.bincount(picks[:-1] * 5 + picks[1:], minlength=25)
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("size", [{"fraction": 0.1}, {"budget": 3}, {"fraction": 1.0}], ids=str)
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_full_takes_all(size: dict[str, float], balanced: bool) -> None:
    problem = with_sizes([50, 30, 20, 7])
    subset = select(problem.signals, "Full", balanced=balanced, **size)
    assert sorted(subset.indices.tolist()) == list(range(107))
    check_form(subset, problem, balanced)
