"""LCMat-S against the definition: picks, costs, dimensions, invariances, and the bound."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lcmat import Signals, Subset
from lcmat.distances.matrix import Matrix
from lcmat.facility_location.exact import facility_location
from methods import get, select
from tests import oracles
from tests.problems import Problem, check_form, equal, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


@pytest.fixture(scope="module")
def real() -> Problem:
    """All of scikit-learn's digits under a fixed random layer of ReLUs and a fitted last layer."""
    pixels, labels = load_digits(return_X_y=True)
    features = np.maximum(pixels / 16 @ np.random.default_rng(0).normal(size=(64, 32)) / 8, 0)
    last = LogisticRegression(C=10.0, max_iter=1000, tol=1e-3).fit(features, labels)
    assert last.score(features, labels) > 0.85
    return Problem(features, last.decision_function(features), labels)


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


METHODS = ["Uniform", "LCMat-S"]


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
