"""GraphCut and LogDeterminant against their definitions taken literally, on full matrices of similarities."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from lcmat import UserError
from methods import select
from tests import oracles
from tests.problems import BALANCED, GAPS, HEAD, Problem, digits, groups_of, random_problem, sure

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

EPSILON = 1e-6


def similarity(problem: Problem) -> np.ndarray:
    """½ + ½ cos(g_i, g_j), of gradients scaled to a largest entry of 1 first; the cosine with zero is zero."""
    g = oracles.gradients(*problem.arrays)
    largest = np.abs(g).max(axis=1, keepdims=True)
    return 0.5 + 0.5 * cosine_similarity(g / np.where(largest > 0, largest, 1))


def graph_cut_gains(s: np.ndarray, picks: Sequence[int]) -> np.ndarray:
    """Σ_{i∈V} s_ix − 2 Σ_{j∈S} s_jx of every x."""
    return np.array([sum(s[:, x]) - 2 * sum(s[j, x] for j in picks) for x in range(len(s))])


def log_determinant_gains(s: np.ndarray, picks: Sequence[int], epsilon: float = EPSILON) -> np.ndarray:
    """log det(s_{S∪x} + εI) − log det(s_S + εI) of every x; −∞ of those in S."""
    before = np.linalg.slogdet(s[np.ix_(picks, picks)] + epsilon * np.eye(len(picks)))[1] if len(picks) else 0.0
    gains = np.full(len(s), -np.inf)
    for x in set(range(len(s))) - set(picks):
        joint = [*picks, x]
        sign, after = np.linalg.slogdet(s[np.ix_(joint, joint)] + epsilon * np.eye(len(joint)))
        assert sign > 0
        gains[x] = after - before
    return gains


Gains = Callable[[np.ndarray, Sequence[int]], np.ndarray]


def check_replay(s: np.ndarray, picks: np.ndarray, gains_of: Gains, tie: float) -> int:
    """Assert that each pick has the largest gain but for `tie`; how many of them tied with another."""
    tied = 0
    for step, j in enumerate(picks):
        gains = gains_of(s, picks[:step].tolist())
        gains[picks[:step]] = -np.inf
        assert gains[j] >= gains.max() - tie, f"pick {step} ({j}) gains {gains[j]}, but {gains.argmax()} {gains.max()}"
        tied += (gains >= gains.max() - tie).sum() > 1
    return tied


def check(
    problem: Problem, method: str, gains_of: Gains, tie: float, balanced: bool, fraction: float, **options: float
) -> int:
    """Replay a selection group by group; how many picks tied with another sample."""
    subset = select(problem.signals, method, fraction=fraction, balanced=balanced, **options)
    tied = 0
    for members in groups_of(problem.labels, balanced):
        chosen = subset.indices[np.isin(subset.indices, members)]
        assert len(np.unique(chosen)) == len(chosen) == oracles.class_budget(len(members), fraction)
        tied += check_replay(similarity(problem.take(members)), np.searchsorted(members, chosen), gains_of, tie)
    return tied


# n similarities summed and 2|S| taken off again, each with a rounding of at most n · 2.2e-16; and gains that agree to
# 1e-13 of their size, n at most, count as equal.
TIE = 2e-11
# The Schur complement that is left of a sample, ε at least, has the rounding of some n of similarities: 1e-14/1e-6.
TIE_DETERMINANT = 1e-7


# ---- GraphCut -------------------------------------------------------------------------------------------------------


@BALANCED
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_graph_cut(seed: int, fraction: float, balanced: bool) -> None:
    problem = random_problem(seed, 60, 4, 3)
    tied = check(problem, "GraphCut", graph_cut_gains, TIE, balanced, fraction)
    assert tied == 0, "no ties among random numbers: every pick, and their order, is decided"


@BALANCED
@HEAD
def test_graph_cut_of_digits(trained: bool, balanced: bool) -> None:
    assert check(digits(trained, 200), "GraphCut", graph_cut_gains, TIE, balanced, 0.2) == 0


def test_graph_cut_of_duplicates_and_zero_gradients() -> None:
    """Zero gradients are half similar to all, themselves included, so that they all tie; the first comes first."""
    problem = random_problem(2, 40, 3, 2, duplicates=True)
    problem.logits[::4] = np.where(np.arange(2) == problem.labels[::4, None], 1000, 0)
    assert (oracles.gradients(*problem.arrays)[::4] == 0).all()
    check(problem, "GraphCut", graph_cut_gains, TIE, False, 1.0)
    picks = select(problem.signals, "GraphCut", fraction=1.0, balanced=False).indices
    zero = [j for j in picks if j % 4 == 0]
    assert zero == sorted(zero)


@pytest.mark.parametrize("method", ["GraphCut", "LogDeterminant"])
def test_identical_samples_are_taken_in_file_order(method: str) -> None:
    problem = random_problem(1, 20, 4, 3).take(np.full(20, 7))
    assert select(problem.signals, method, fraction=0.5).indices.tolist() == list(range(10))


@GAPS
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "some wrong"])
def test_graph_cut_of_sure_predictions(low: float, high: float, wrong: bool) -> None:
    check(sure(low, high, wrong), "GraphCut", graph_cut_gains, TIE, False, 0.5)


# ---- LogDeterminant -------------------------------------------------------------------------------------------------


@BALANCED
@pytest.mark.parametrize("seed", range(3))
def test_log_determinant(seed: int, balanced: bool) -> None:
    """Up to the rank of s, that is (C−1)(d+1)+1 at most, and beyond it."""
    problem = random_problem(seed, 36, 3, 3)
    assert np.linalg.matrix_rank(similarity(problem), tol=1e-9) == 9
    groups = groups_of(problem.labels, balanced)
    # All samples tie for the first pick, s_xx being 1, and no others do.
    assert check(problem, "LogDeterminant", log_determinant_gains, TIE_DETERMINANT, balanced, 0.25) == len(groups)
    check(problem, "LogDeterminant", log_determinant_gains, TIE_DETERMINANT, balanced, 1.0)
    subset = select(problem.signals, "LogDeterminant", fraction=0.25, balanced=balanced)
    assert subset.indices[subset.rank == 0].tolist() == [members[0] for members in groups]


@pytest.mark.parametrize("epsilon", [1e-4, 0.1, 10.0])
def test_log_determinant_with_another_epsilon(epsilon: float) -> None:
    """With room for ε all but the first pick are clear, beyond the rank, too."""

    def gains_of(s: np.ndarray, picks: Sequence[int]) -> np.ndarray:
        return log_determinant_gains(s, picks, epsilon)

    tie = 0.1 * TIE_DETERMINANT * EPSILON / epsilon + 1e-14
    assert check(random_problem(4, 30, 2, 3), "LogDeterminant", gains_of, tie, False, 0.9, epsilon=epsilon) == 1


def test_epsilon_defaults_to_a_millionth() -> None:
    signals = digits(True, 200).signals
    by_default = select(signals, "LogDeterminant", fraction=0.8).indices.tolist()
    given = [select(signals, "LogDeterminant", fraction=0.8, epsilon=e) for e in (1e-6, 1.0)]
    assert by_default == given[0].indices.tolist()
    assert by_default != given[1].indices.tolist()


@BALANCED
@HEAD
def test_log_determinant_of_digits(trained: bool, balanced: bool) -> None:
    problem = digits(trained, 120)
    tied = check(problem, "LogDeterminant", log_determinant_gains, TIE_DETERMINANT, balanced, 0.2)
    assert tied == (10 if balanced else 1), "other than the first pick of each group"


def test_log_determinant_of_duplicates_and_zero_gradients() -> None:
    """The second of two identical samples adds log ε, almost; a zero gradient at first log(½ + ε)."""
    problem = random_problem(2, 30, 3, 2, duplicates=True)
    problem.logits[::4] = np.where(np.arange(2) == problem.labels[::4, None], 1000, 0)
    check(problem, "LogDeterminant", log_determinant_gains, TIE_DETERMINANT, False, 1.0)


@GAPS
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "some wrong"])
def test_log_determinant_of_sure_predictions(low: float, high: float, wrong: bool) -> None:
    check(sure(low, high, wrong), "LogDeterminant", log_determinant_gains, TIE_DETERMINANT, False, 0.5)


# ---- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GraphCut", "LogDeterminant"])
def test_a_smaller_fraction_has_the_first_picks(method: str) -> None:
    problem = random_problem(6, 60, 4, 3)
    subset = select(problem.signals, method, fraction=0.8)
    assert subset.weights is None
    for fraction in (0.01, 0.2, 0.5):
        again = select(problem.signals, method, fraction=fraction)
        assert again.indices.tolist() == subset.prefix(fraction).indices.tolist()


@pytest.mark.parametrize("epsilon", [0, -1, 1e-11, float("nan"), float("inf")])
def test_impossible_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(UserError, match="epsilon"):
        select(random_problem(0).signals, "LogDeterminant", fraction=0.5, epsilon=epsilon)


@pytest.mark.parametrize(("method", "option"), [("GraphCut", "epsilon"), ("LogDeterminant", "epsilo")])
def test_unknown_options_are_refused(method: str, option: str) -> None:
    with pytest.raises(UserError, match=f"{method} has no option '{option}'"):
        select(random_problem(0).signals, method, fraction=0.5, **{option: 1})
