"""How many samples of each class a fraction or a budget takes."""

import signal
from collections.abc import Iterator

import numpy as np
import pytest

from lcmat import UserError
from methods import select
from tests import oracles
from tests.problems import SIZES, check_form, equal, with_sizes

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


@pytest.fixture
def five_seconds() -> Iterator[None]:
    """Interrupt a test that would never end."""

    def stop(*_: object) -> None:
        raise TimeoutError("no answer within five seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def largest_remainders(sizes: list[int], budget: int) -> list[int]:
    """Shares in proportion, rounded down, and the rest to the largest remainders (ties to the lowest label)."""
    total = sum(sizes)
    counts = [budget * size // total for size in sizes]
    remainders = [budget * size % total for size in sizes]
    for label in sorted(range(len(sizes)), key=lambda c: -remainders[c])[: budget - sum(counts)]:
        counts[label] += 1
    return counts


METHODS = ["Uniform", "LCMat-S"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.35, 0.5, 0.999, 1.0, 1])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_fraction_is_rounded_class_by_class(method: str, fraction: float, sizes: list[int]) -> None:
    problem = with_sizes(sizes)
    subset = select(problem.signals, method, fraction=fraction)
    check_form(subset, problem, balanced=True)
    expected = [oracles.class_budget(size, fraction) if size else 0 for size in sizes]
    assert np.bincount(subset.classes, minlength=len(sizes)).tolist() == expected
    whole = select(problem.signals, method, fraction=fraction, balanced=False)
    check_form(whole, problem, balanced=False)
    assert len(whole) == oracles.class_budget(sum(sizes), fraction)


def test_half_is_rounded_as_python_does() -> None:
    """2.5 to 2, 3.5 to 4."""
    subset = select(with_sizes([5, 7]).signals, fraction=0.5)
    assert np.bincount(subset.classes).tolist() == [2, 4]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_a_budget_is_met_exactly(method: str, sizes: list[int]) -> None:
    problem = with_sizes(sizes)
    n, nonempty = sum(sizes), sum(size > 0 for size in sizes)
    for budget in sorted({nonempty, nonempty + 1, nonempty + 2, n // 3, n // 2, n - 1, n} - set(range(nonempty))):
        if budget > n:
            continue
        subset = select(problem.signals, method, budget=budget)
        check_form(subset, problem, balanced=True)
        counts = np.bincount(subset.classes, minlength=len(sizes))
        assert len(subset) == budget
        assert all(1 <= count <= size if size else count == 0 for count, size in zip(counts, sizes, strict=True))
        if all(budget * size >= n or size == 0 for size in sizes):
            assert counts.tolist() == largest_remainders(sizes, budget)
        whole = select(problem.signals, method, budget=budget, balanced=False)
        check_form(whole, problem, balanced=False)
        assert len(whole) == budget


def test_a_budget_picks_what_a_fraction_of_that_size_picks() -> None:
    problem = with_sizes([40, 20])
    by_budget, by_fraction = select(problem.signals, budget=15), select(problem.signals, fraction=0.25)
    assert equal(by_budget, by_fraction)
    oracles.check_selection(problem.parts(), by_budget.indices, [10, 5])


def test_a_numpy_integer_is_a_budget() -> None:
    signals = with_sizes([40, 20]).signals
    assert equal(select(signals, budget=np.int64(15)), select(signals, budget=15))


@pytest.mark.parametrize("method", [*METHODS, "Full"])
def test_everything(method: str) -> None:
    problem = with_sizes([9, 4, 1])
    subset = select(problem.signals, method, fraction=1.0)
    assert sorted(subset.indices.tolist()) == list(range(14))
    assert subset.cost == (0.0 if method == "LCMat-S" else None)
    check_form(subset, problem, balanced=True)


def test_a_fraction_that_rounds_to_nothing_warns() -> None:
    problem = with_sizes([3, 4, 200])
    with pytest.warns(UserWarning, match=r"0\.01 rounds to no sample in 2 of 3"):
        subset = select(problem.signals, fraction=0.01)
    assert np.bincount(subset.classes).tolist() == [1, 1, 2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("budget", [0, -3, 108, 10**9])
def test_impossible_budget_is_refused(method: str, budget: int, balanced: bool) -> None:
    with pytest.raises(UserError, match=rf"budget.*{budget}"):
        select(with_sizes([50, 30, 20, 7]).signals, method, budget=budget, balanced=balanced)


def test_a_budget_for_each_class_picks_what_its_classes_alone_do() -> None:
    problem = with_sizes([40, 20])
    subset = select(problem.signals, budget=(4, 9))
    oracles.check_selection(problem.parts(), subset.indices, [4, 9])
    assert equal(select(problem.signals, budget=np.array([6, 9])).prefix(budget=[4, 9]), subset)
    with pytest.raises(UserError, match="this subset of 13 samples is smaller than a budget of 14"):
        subset.prefix(budget=[4, 10])


@pytest.mark.parametrize(
    ("budget", "balanced", "message"),
    [
        ([4], True, "1 numbers for 2 classes"),
        ([4, 21], True, "21 samples are asked for of class 1, which has 20"),
        ([4, -1], True, "-1 samples are asked for of class 1"),
        ([4, 1.5], True, "1.5 samples are asked for of class 1"),
        ([0, 0], True, "0 for every class"),
        ([4, 9], False, "2 numbers for 1 classes; give one for each, or a sum"),
        ("49", True, "whole number of samples, not '49'"),
    ],
)
def test_impossible_budgets_for_each_class_are_refused(budget: object, balanced: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(with_sizes([40, 20]).signals, budget=budget, balanced=balanced)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_below_one_a_class_is_refused_only_when_balanced(method: str) -> None:
    signals = with_sizes([50, 30, 20, 7]).signals
    with pytest.raises(UserError, match=r"budget.*3.*4 classes"):
        select(signals, method, budget=3)
    assert len(select(signals, method, budget=3, balanced=False)) == 3


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.usefixtures("five_seconds")
def test_a_budget_that_is_no_whole_number_is_refused(balanced: bool) -> None:
    with pytest.raises(UserError, match="budget"):
        select(with_sizes([50, 30]).signals, budget=10.5, balanced=balanced)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_impossible_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match="fraction"):
        select(with_sizes([50, 30]).signals, fraction=fraction)


@pytest.mark.parametrize("size", [{}, {"fraction": 0.1, "budget": 8}], ids=["neither", "both"])
def test_just_one_of_fraction_and_budget(size: dict[str, float]) -> None:
    with pytest.raises(UserError, match="either a fraction or a budget"):
        select(with_sizes([50, 30]).signals, **size)
