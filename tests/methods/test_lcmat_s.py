"""Selection as a user calls it: LCMat-S against brute force, Uniform, Full, budgets, prefixes, weights, bad input."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lcmat import Signals, Subset, UserError
from lcmat.distances.matrix import Matrix
from lcmat.facility_location.exact import facility_location
from methods import get, names, select
from tests import oracles
from tests.problems import Problem, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


def equal(one: Subset, other: Subset) -> bool:
    """Whether two subsets agree in everything."""
    fields = ("indices", "rank", "weights", "classes", "class_sizes", "costs")
    pairs = [(getattr(one, name), getattr(other, name)) for name in fields]
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def real() -> Problem:
    """All of scikit-learn's digits under a fixed random layer of ReLUs and a fitted last layer."""
    pixels, labels = load_digits(return_X_y=True)
    features = np.maximum(pixels / 16 @ np.random.default_rng(0).normal(size=(64, 32)) / 8, 0)
    last = LogisticRegression(C=10.0, max_iter=1000, tol=1e-3).fit(features, labels)
    assert last.score(features, labels) > 0.85
    return Problem(features, last.decision_function(features), labels)


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


# ---- picks against brute force --------------------------------------------------------------------------------------

RANDOM = [
    # n, d, C, scale of logits, rho, duplicates
    (20, 1, 2, 0.1, 0.1, False),
    (20, 1, 2, 1.0, 1.0, True),
    (35, 3, 8, 5.0, 0.0, False),
    (50, 2, 2, 5.0, 0.1, True),
    (60, 20, 8, 1.0, 0.1, False),
    (60, 20, 8, 1.0, 1.0, True),
    (90, 7, 4, 0.1, 1.0, False),
    (90, 7, 4, 2.0, 0.0, True),
    (120, 12, 5, 5.0, 1.0, False),
    (150, 20, 6, 0.5, 0.1, True),
    (200, 20, 3, 5.0, 0.1, False),
    (200, 5, 8, 1.0, 1.0, False),
]


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(
    ("n", "d", "C", "scale", "rho", "duplicates"),
    RANDOM,
    ids=[f"n={n},d={d},C={C},scale={s},rho={r}{',duplicates' * dup}" for n, d, C, s, r, dup in RANDOM],
)
def test_picks_and_cost_of_random_problems(
    n: int, d: int, C: int, scale: float, rho: float, duplicates: bool, fraction: float, balanced: bool
) -> None:
    problem = random_problem(n + d, n, d, C, scale, duplicates)
    subset = select(problem.signals, fraction=fraction, rho=rho, balanced=balanced)
    parts = problem.parts(rho, balanced=balanced)
    oracles.check_selection(parts, subset.indices, problem.budgets(fraction, balanced))
    # Distances of relative precision 1e-12; where all are covered nothing but duplicates' exact zeros remains.
    assert subset.cost == pytest.approx(oracles.over_parts(parts, subset.indices, oracles.cost), rel=1e-11, abs=0)


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("fraction", [0.05, 0.1])
def test_picks_of_digits(real: Problem, fraction: float, rho: float) -> None:
    subset = select(real.signals, fraction=fraction, rho=rho)
    parts = real.parts(rho)
    oracles.check_selection(parts, subset.indices, real.budgets(fraction))
    assert subset.cost == pytest.approx(oracles.over_parts(parts, subset.indices, oracles.cost), rel=1e-11)


def test_picks_of_digits_unbalanced(real: Problem) -> None:
    subset = select(real.signals, fraction=0.02, balanced=False)
    oracles.check_selection(real.parts(balanced=False), subset.indices, [36])


def test_picks_of_digits_under_a_sure_network(real: Problem) -> None:
    """Five times the logits, as after longer training: losses from 1e-20 to 10, where gains differ as much as they do.

    Here a tolerance for ties that is a share of the largest distance takes all but the worst-learned samples for tied.
    """
    sure = Problem(real.features, 5 * real.logits, real.labels)
    subset = select(sure.signals, fraction=0.5)
    oracles.check_selection(sure.parts(), subset.indices, sure.budgets(0.5))


def test_picks_when_losses_span_many_orders_of_magnitude() -> None:
    """The same on a small scale: one class, its samples ever surer."""
    rng = np.random.default_rng(0)
    gaps = rng.permutation(np.linspace(0, 60, 40))
    problem = Problem(rng.normal(size=(40, 3)), np.stack([gaps, np.zeros(40)], axis=1), np.zeros(40, dtype=np.int64))
    subset = select(problem.signals, fraction=1.0)
    oracles.check_selection(problem.parts(), subset.indices, [40])


@pytest.mark.parametrize("narrow", ["features", "logits"])
def test_picks_of_mixed_precision(narrow: str) -> None:
    """Samples that only the float64 field tells apart, next to true duplicates."""
    problem = random_problem(3, 40, 4, 3, duplicates=True)
    wide = "logits" if narrow == "features" else "features"
    fields = {"features": problem.features, "logits": problem.logits}
    # Each sample's narrow field is shared by all, the wide one differs by 1e-9 or, for duplicates, not at all.
    fields[narrow] = np.broadcast_to(fields[narrow][:1], fields[narrow].shape).astype(np.float32)
    fields[wide] = fields[wide][:1] + 1e-9 * fields[wide]
    mixed = Problem(fields["features"], fields["logits"], problem.labels)
    subset = select(mixed.signals, fraction=0.5, rho=0.0)
    # Signals a relative 1e-9 apart hold seven digits of their difference.
    oracles.check_selection(mixed.parts(0.0), subset.indices, mixed.budgets(0.5), tie=1e-6)


def test_rho_zero_is_facility_location_on_gradients() -> None:
    problem = random_problem(11, 90, 6, 3, scale=2.0)
    subset = select(problem.signals, fraction=0.2, rho=0)
    expected = []
    for label in range(3):
        members = np.flatnonzero(problem.labels == label)
        g = oracles.gradients(*(array[members] for array in problem.arrays))
        cover = facility_location(Matrix(torch.from_numpy(cdist(g, g))), oracles.class_budget(len(members), 0.2))
        expected += members[cover.indices.numpy()].tolist()
    assert subset.indices.tolist() == expected
    assert select(problem.signals, fraction=0.2, rho=5.0).indices.tolist() != expected


def test_rho_defaults_to_a_tenth() -> None:
    signals = random_problem(11, 90, 6, 3, scale=2.0).signals
    assert equal(select(signals, fraction=0.3), select(signals, fraction=0.3, rho=0.1))


@pytest.mark.parametrize(("C", "d", "K"), [(2, 1, 4), (10, 9, 100), (10, 8, 90), (3, 512, 100), (100, 512, 100)])
def test_default_number_of_dimensions(C: int, d: int, K: int) -> None:
    assert get("LCMat-S").resolved(C, d, {})["K"] == K


def test_number_of_dimensions_matters_and_is_a_hundred() -> None:
    problem = random_problem(5, 80, 20, 6)
    by_default = select(problem.signals, fraction=0.5, rho=5.0)
    assert equal(by_default, select(problem.signals, fraction=0.5, rho=5.0, K=100))
    for K in (1, 126):
        other = select(problem.signals, fraction=0.5, rho=5.0, K=K)
        assert not np.array_equal(by_default.indices, other.indices)
        oracles.check_selection(problem.parts(5.0, K), other.indices, problem.budgets(0.5))


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_samples_does_not_matter(seed: int, balanced: bool) -> None:
    problem = random_problem(seed, 150, 6, 3)
    subset = select(problem.signals, fraction=0.06, balanced=balanced)
    parts = problem.parts(balanced=balanced)
    for part, picks in zip(parts, oracles.split(subset.indices, parts), strict=True):
        assert oracles.clearest_lead(part.D, picks) > 1e-9, "this problem has ties: choose another"
    order = np.random.default_rng(seed).permutation(150)
    shuffled = select(problem.take(order).signals, fraction=0.06, balanced=balanced)
    assert order[shuffled.indices].tolist() == subset.indices.tolist()
    assert shuffled.cost == pytest.approx(subset.cost, rel=1e-12)


def test_other_classes_do_not_matter() -> None:
    """What is picked of a class depends on that class alone."""
    problem = random_problem(2, 100, 5, 3)
    subset = select(problem.signals, fraction=0.3)
    members = np.flatnonzero(problem.labels == 1)
    alone = select(problem.take(members).signals, fraction=0.3)
    assert members[alone.indices].tolist() == subset.indices[subset.classes == 1].tolist()


def test_arrays_and_tensors_give_the_same() -> None:
    problem = random_problem(1, 60, 5, 3)
    expected = select(problem.signals, fraction=0.4)
    h, z, y = (torch.tensor(array) for array in problem.arrays)
    column_major = [np.asfortranarray(array) for array in problem.arrays]
    for features, logits, labels in (
        (h, z, y),
        (h, problem.logits, problem.labels.astype(np.int32)),
        (problem.features, z, y.to(torch.uint8)),
        (h.clone().requires_grad_(), z, y),
        (torch.repeat_interleave(h, 2, dim=1)[:, ::2], z, y),
        column_major,
    ):
        subset = select(Signals(features=features, logits=logits, labels=labels), fraction=0.4)
        assert equal(subset, expected)


def test_reversed_views_are_arrays_too() -> None:
    problem = random_problem(1, 60, 5, 3)
    expected = select(problem.take(np.arange(60)[::-1].copy()).signals, fraction=0.4)
    h, z, y = (array[::-1] for array in problem.arrays)
    assert equal(select(Signals(features=h, logits=z, labels=y), fraction=0.4), expected)


def test_signals_are_left_as_they_were() -> None:
    problem = random_problem(1, 60, 5, 3)
    copies = [array.copy() for array in problem.arrays]
    select(problem.signals, fraction=0.4, weights=True)
    assert all(np.array_equal(a, b) for a, b in zip(copies, problem.arrays, strict=True))


def test_float32_signals_of_digits_give_the_same_picks(real: Problem) -> None:
    """And how many picks rounding to bfloat16 would leave: printed, since nothing follows from its exact value."""
    narrow = Problem(real.features.astype(np.float32), real.logits.astype(np.float32), real.labels)
    rounded = [torch.tensor(array).bfloat16() for array in (real.features, real.logits)]
    for fraction in (0.05, 0.1):
        subset = select(real.signals, fraction=fraction)
        assert select(narrow.signals, fraction=fraction).indices.tolist() == subset.indices.tolist()
        half = select(Signals(features=rounded[0], logits=rounded[1], labels=real.labels), fraction=fraction)
        overlap = len(np.intersect1d(half.indices, subset.indices)) / len(subset)
        print(f"fraction {fraction}: signals rounded to bfloat16 keep {overlap:.1%} of {len(subset)} picks")
        assert len(half) == len(subset)
        assert 0.5 < overlap <= 1


# ---- budgets --------------------------------------------------------------------------------------------------------


def with_sizes(sizes: list[int], seed: int = 0) -> Problem:
    """A random problem with so many samples in each class (0: a label that nobody has)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(labels)
    return Problem(rng.normal(size=(n, 4)), rng.normal(size=(n, len(sizes))), labels)


def check_form(subset: Subset, problem: Problem, balanced: bool) -> None:
    """Assert what holds of every subset, whatever the method."""
    n = len(problem.labels)
    for name in ("indices", "rank", "classes", "class_sizes"):
        array = getattr(subset, name)
        assert isinstance(array, np.ndarray), name
        assert array.dtype == np.int64, name
    assert len(subset) == len(subset.indices) == len(subset.rank) == len(subset.classes)
    assert len(np.unique(subset.indices)) == len(subset)
    assert subset.indices.min() >= 0
    assert subset.indices.max() < n
    assert np.array_equal(subset.classes, problem.labels[subset.indices])
    assert np.array_equal(subset.class_sizes, np.bincount(problem.labels, minlength=problem.logits.shape[1]))
    if balanced:
        assert (np.diff(subset.classes) >= 0).all()
        counts = np.unique(subset.classes, return_counts=True)[1]
        assert subset.rank.tolist() == [k for count in counts for k in range(count)]
    else:
        assert subset.rank.tolist() == list(range(len(subset)))


def largest_remainders(sizes: list[int], budget: int) -> list[int]:
    """Shares in proportion, rounded down, and the rest to the largest remainders (ties to the lowest label)."""
    total = sum(sizes)
    counts = [budget * size // total for size in sizes]
    remainders = [budget * size % total for size in sizes]
    for label in sorted(range(len(sizes)), key=lambda c: -remainders[c])[: budget - sum(counts)]:
        counts[label] += 1
    return counts


SIZES = {
    "unequal": [50, 30, 20, 7],
    "very unequal": [100, 3, 1],
    "one each": [1, 1, 1, 1],
    "one class": [40],
    "labels skipped": [0, 12, 0, 5, 0],
}
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


# ---- prefixes -------------------------------------------------------------------------------------------------------


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


# ---- weights --------------------------------------------------------------------------------------------------------


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


# ---- names, options, bad signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("lcmat-s", "LCMat-S"),
        ("LCMAT-S", "LCMat-S"),
        ("uniform", "Uniform"),
        ("Random", "Uniform"),
        ("rAnDoM", "Uniform"),
    ],
)
def test_names_ignore_case_and_random_means_uniform(name: str, canonical: str) -> None:
    signals = random_problem(0).signals
    subset = select(signals, name, fraction=0.2, seed=3)
    assert subset.method == canonical
    assert equal(subset, select(signals, canonical, fraction=0.2, seed=3))


def test_canonical_names() -> None:
    assert {"Uniform", "LCMat-S", "Full"} <= set(names())
    assert "Random" not in names()
    assert len(set(names())) == len(names())
    assert all(get(name.upper()).name == name for name in names())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("LCMat", "LCMat-[SC]"), ("lcmat_s", "LCMat-S"), ("LCMATS", "LCMat-S"), ("Unifrom", "Uniform"), ("ful", "Full")],
)
def test_unknown_method_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}'.*did you mean {nearest}\?"):
        select(random_problem(0).signals, name, fraction=0.1)


def test_unknown_option_is_named() -> None:
    signals = random_problem(0).signals
    with pytest.raises(UserError, match=r"LCMat-S.*'roh'.*did you mean rho\?"):
        select(signals, fraction=0.1, roh=0.1)
    with pytest.raises(UserError, match=r"LCMat-S.*'temperature'.*rho.*K.*weights"):
        select(signals, fraction=0.1, temperature=0.1)
    for method in ("Uniform", "Full"):
        with pytest.raises(UserError, match=rf"{method}.*'rho'"):
            select(signals, method, fraction=0.1, rho=0.1)


@pytest.mark.parametrize(
    "options",
    [{"rho": -0.1}, {"rho": float("nan")}, {"rho": float("inf")}, {"K": 0}, {"K": -5}, {"K": 19}, {"K": 2.5}],
    ids=str,
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    (name,) = options
    with pytest.raises(UserError, match=name):
        select(random_problem(0).signals, fraction=0.1, **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["features", "logits"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(field: str, value: float, dtype: type) -> None:
    problem = random_problem(0)
    fields = {"features": problem.features.astype(dtype), "logits": problem.logits.astype(dtype)}
    fields[field][17, 2] = value
    with pytest.raises(UserError, match=rf"{field}.*sample 17"):
        Signals(labels=problem.labels, **fields)


def test_opposite_infinities_are_refused() -> None:
    problem = random_problem(0)
    problem.features[3, 0], problem.features[9, 0] = np.inf, -np.inf
    with pytest.raises(UserError, match="features"):
        problem.signals  # noqa: B018


def test_missing_signals_are_named() -> None:
    problem = random_problem(0)
    with pytest.raises(UserError, match="features"):
        select(Signals(logits=problem.logits, labels=problem.labels), fraction=0.1)
    with pytest.raises(UserError, match="logits"):
        select(Signals(features=problem.features, labels=problem.labels), fraction=0.1)
    assert len(select(Signals(labels=problem.labels), "Uniform", budget=10)) == 10


# ---- Uniform and Full -----------------------------------------------------------------------------------------------


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


# ---- anything -------------------------------------------------------------------------------------------------------


@st.composite
def awkward(draw: st.DrawFn) -> Problem:
    """Few samples, very unequal or empty classes, identical samples, logits from all equal to 1e4 apart."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    n, d = sum(sizes), draw(st.integers(1, 4))
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = draw(st.sampled_from([0.0, 1e-6, 1.0, 1e3])) * rng.normal(size=(n, d))
    logits = draw(st.sampled_from([0.0, 1e-6, 1.0, 50.0, 1e4])) * rng.uniform(-1, 1, size=(n, len(sizes)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    alike = draw(st.sampled_from(["no", "some", "all"]))
    which = {"no": np.arange(n), "some": rng.integers(0, n, n), "all": np.zeros(n, dtype=np.int64)}[alike]
    return Problem(features[which].astype(dtype), logits[which].astype(dtype), labels)


@pytest.mark.parametrize("method", METHODS)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(problem=awkward(), balanced=st.booleans(), data=st.data())
def test_anything_can_be_selected_from(method: str, problem: Problem, balanced: bool, data: st.DataObject) -> None:
    n, nonempty = len(problem.labels), len(np.unique(problem.labels))
    budget = data.draw(st.integers(nonempty if balanced else 1, n) | st.just(n), label="budget")
    rho = data.draw(st.sampled_from([0.0, 0.1, 10.0]), label="rho")
    options = {"rho": rho} if method == "LCMat-S" else {}
    subset = select(problem.signals, method, budget=budget, balanced=balanced, seed=1, **options)
    assert len(subset) == budget
    check_form(subset, problem, balanced)
    assert equal(subset, select(problem.signals, method, budget=budget, balanced=balanced, seed=1, **options))
    if method == "LCMat-S":
        parts = problem.parts(rho, balanced=balanced)
        expected = oracles.over_parts(parts, subset.indices, oracles.cost)
        # Samples that differ by a millionth share six digits of gradient and curvature, and rounding is relative to
        # those, not to the difference; besides, the library lets a squared distance cancel by six digits.
        sizes = np.linalg.norm(oracles.gradients(*problem.arrays), axis=1)
        sizes += rho / 2 * oracles.hessians(problem.features, problem.logits).sum(axis=1)
        assert subset.cost == pytest.approx(expected, rel=1e-9, abs=1e-14 * sizes.max() * n)
        assert np.isfinite(subset.costs).all()


# ---- the certificate ------------------------------------------------------------------------------------------------


def test_the_bound_is_the_sum_over_the_classes_and_belongs_to_the_whole_selection() -> None:
    problem = random_problem(5, 120)
    subset = select(problem.signals, fraction=0.2)
    by_class = [select(problem.take(np.flatnonzero(problem.labels == c)).signals, fraction=0.2) for c in range(3)]
    assert 0 < subset.bound < subset.cost
    assert subset.bound == pytest.approx(sum(one.bound for one in by_class))
    assert subset.prefix(0.2).bound == subset.bound
    assert subset.prefix(0.1).bound is None
    assert select(problem.signals, "Uniform", fraction=0.2).bound is None


def test_the_bound_is_saved(tmp_path: Path) -> None:
    subset = select(random_problem(5, 120).signals, fraction=0.2)
    subset.save(tmp_path / "s.npz")
    assert Subset.load(tmp_path / "s.npz").bound == subset.bound
