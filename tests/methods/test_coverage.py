"""Craig, AdaCore and FacilityLocation against brute force, cluster-size weights of prefixes, and plain distances."""

from collections.abc import Callable, Sequence
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import rel_entr
from sklearn.metrics.pairwise import cosine_similarity

from lcmat import Signals, Subset, UserError, memory_limit
from lcmat.block_sizes import sized
from lcmat.distances.matrix import Matrix
from lcmat.distances.vectors import CosineDistance, SymmetricDivergence, VectorDistance, euclidean
from lcmat.facility_location.exact import facility_location
from methods import select
from tests import oracles
from tests.problems import BALANCED, GAPS, HEAD, Problem, digits, groups_of, random_problem, sure

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

Distances = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def parts_of(problem: Problem, balanced: bool, formed: Distances) -> list[oracles.Part]:
    """The selection problems under a distance that is formed for each group by itself."""
    kind = oracles.twins(np.column_stack(problem.arrays).astype(np.float64))
    groups = groups_of(problem.labels, balanced)
    return [oracles.Part(m, formed(*problem.take(m).arrays), kind[m]) for m in groups]


# ---- the definitions ------------------------------------------------------------------------------------------------


def of_gradients(h: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Craig: ‖g_i − g_j‖₂."""
    g = oracles.gradients(h, z, y)
    return cdist(g, g)


def preconditioned(damping: float = 0.1, mean_curvature: bool = False, dtype: type = np.float64) -> Distances:
    """AdaCore: the distance between g_i/(λ_i + δ), in another type where float64 has no such exponents."""

    def formed(h: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        g = oracles.gradients(h, z, y, dtype)
        p, rest = oracles.softmax_parts(z, dtype)
        curvature = np.einsum("nc,nk->nck", p * rest, oracles.extended(h, dtype) ** 2).reshape(len(g), -1)
        delta = dtype(damping) * curvature.mean()
        x = g / ((curvature.mean(0) if mean_curvature else curvature) + delta)
        if dtype is np.float64:
            return cdist(x, x)
        D = np.sqrt(((x[:, None] - x) ** 2).sum(2))
        return (D / D.max()).astype(np.float64)

    return formed


def similarity(h: np.ndarray, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """½ + ½ cos(g_i, g_j); the cosine with zero is zero."""
    return 0.5 + 0.5 * cosines(oracles.gradients(h, z, y))


def cosines(x: np.ndarray) -> np.ndarray:
    """Scikit-learn's, of rows scaled to a largest entry of 1, so that no square underflows."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    return cosine_similarity(x / np.where(largest > 0, largest, 1))


METHODS = {
    "Craig": ("Craig", {}, of_gradients),
    "AdaCore": ("AdaCore", {}, preconditioned()),
    "AdaCore, mean curvature": ("AdaCore", {"mean_curvature": True}, preconditioned(mean_curvature=True)),
    "AdaCore, damping 2": ("AdaCore", {"damping": 2.0}, preconditioned(2.0)),
    "FacilityLocation": ("FacilityLocation", {}, lambda *arrays: 1 - similarity(*arrays)),
}
KERNELS = pytest.mark.parametrize("kernel", METHODS)


# ---- picks against brute force --------------------------------------------------------------------------------------


@BALANCED
@KERNELS
@pytest.mark.parametrize("seed", range(4))
def test_same_picks_as_naive_greedy_where_there_are_no_ties(kernel: str, seed: int, balanced: bool) -> None:
    method, options, formed = METHODS[kernel]
    problem = random_problem(seed, 150, 6, 3, scale=2.0)
    subset = select(problem.signals, method, fraction=0.2, balanced=balanced, **options)
    parts = parts_of(problem, balanced, formed)
    compared = 0
    for part, picks in zip(parts, oracles.split(subset.indices, parts), strict=True):
        expected = oracles.naive_greedy(part.D, len(picks))
        # Two samples nearest to each other tie once nobody else is nearer to either: up to there all is clear.
        clear = [k for k in range(len(picks) + 1) if oracles.clearest_lead(part.D, expected[:k]) > 1e-9][-1]
        assert picks[:clear].tolist() == expected[:clear]
        compared += clear
    assert compared >= 3, "too many ties in this problem: choose another"


@BALANCED
@KERNELS
@pytest.mark.parametrize("duplicates", [False, True], ids=["all differ", "duplicates"])
def test_picks_and_cost_at_all_budgets(kernel: str, duplicates: bool, balanced: bool) -> None:
    method, options, formed = METHODS[kernel]
    problem = random_problem(7, 90, 5, 4, duplicates=duplicates)
    parts = parts_of(problem, balanced, formed)
    for fraction in (0.1, 0.6, 1.0):
        subset = select(problem.signals, method, fraction=fraction, balanced=balanced, **options)
        if method == "FacilityLocation":
            # A cosine is known to some 1e-16, whatever is left to cover.
            for part, picks in zip(parts, oracles.split(subset.indices, parts), strict=True):
                assert fault_of_cover(1 - part.D, picks, part.kind) is None
        else:
            oracles.check_selection(parts, subset.indices, problem.budgets(fraction, balanced), tie=1e-11)
        cost = oracles.over_parts(parts, subset.indices, oracles.cost)
        assert subset.cost == pytest.approx(cost, rel=1e-10, abs=1e-13 if method == "FacilityLocation" else 0)


def fault_of_cover(s: np.ndarray, picks: Sequence[int], kind: np.ndarray) -> str | None:
    """What shows that `picks` do not greedily maximise Σ_i max_{j∈S} s_ij, taken literally: 0 without picks."""
    best, left = np.zeros(len(s)), np.ones(len(s), dtype=bool)
    for step, j in enumerate(picks):
        gains = np.array([np.maximum(best, s[:, x]).sum() - best.sum() for x in range(len(s))])
        # n similarities below one, each and their sum known to a few roundings of 2.2e-16
        if gains[j] < gains[left].max() - 1e-15 * len(s):
            return f"pick {step} ({j}) gains {gains[j]}, not {gains[left].max()}"
        if np.flatnonzero(left & (kind == kind[j]))[0] != j:
            return f"pick {step} ({j}) is no first of its equals"
        if np.isin(kind[left], kind[~left]).all() and np.flatnonzero(left)[0] != j:
            return f"pick {step} is {j}, but nothing is left to gain and {np.flatnonzero(left)[0]} comes first"
        left[j] = False
        best = np.maximum(best, s[:, j])
    return None


@BALANCED
@HEAD
@KERNELS
def test_picks_of_digits(kernel: str, trained: bool, balanced: bool) -> None:
    method, options, formed = METHODS[kernel]
    problem = digits(trained, 1000 if balanced else 300)
    subset = select(problem.signals, method, fraction=0.1, balanced=balanced, **options)
    parts = parts_of(problem, balanced, formed)
    if method == "FacilityLocation":
        for part, picks in zip(parts, oracles.split(subset.indices, parts), strict=True):
            assert fault_of_cover(1 - part.D, picks, part.kind) is None
    else:
        oracles.check_selection(parts, subset.indices, problem.budgets(0.1, balanced))


def test_adacore_and_craig_differ_and_so_do_the_options() -> None:
    """On these digits, so that no test above can pass with one method in the other's place."""
    signals = digits(True, 300).signals
    picks = [select(signals, m, fraction=0.1, **options).indices.tolist() for m, options, _ in METHODS.values()]
    assert all(picks[i] != picks[j] for i in range(len(picks)) for j in range(i))


def test_adacore_defaults_to_a_tenth_of_the_mean_curvature_of_the_class() -> None:
    signals = digits(True, 300).signals
    assert (
        select(signals, "AdaCore", fraction=0.2).indices.tolist()
        == select(signals, "AdaCore", fraction=0.2, damping=0.1, mean_curvature=False).indices.tolist()
    )
    assert select(signals, "AdaCore", fraction=0.2).weights is None


# ---- degenerate signals ---------------------------------------------------------------------------------------------


@GAPS
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "some wrong"])
@pytest.mark.parametrize("mean_curvature", [False, True], ids=["own curvature", "mean curvature"])
def test_adacore_of_sure_predictions(low: float, high: float, wrong: bool, mean_curvature: bool) -> None:
    """Vectors of any size, since λ may be nearly zero where g is not; their ratios decide."""
    problem = sure(low, high, wrong)
    subset = select(problem.signals, "AdaCore", fraction=0.5, mean_curvature=mean_curvature)
    assert np.isfinite(subset.costs).all()
    parts = parts_of(problem, True, preconditioned(mean_curvature=mean_curvature, dtype=np.longdouble))
    for part, picks in zip(parts, oracles.split(subset.indices, parts), strict=True):
        assert len(np.unique(picks)) == 8
        # Where the distances left are below 1e-140 of the largest, their squares are lost to float64.
        seen = [k for k in range(1, 8) if oracles.cost(part.D, picks[:k]) > 1e-140] or [0]
        # Vectors of very different sizes: what is far smaller than the cost left rounds away.
        assert oracles.greedy_fault(part.D, picks[: seen[-1] + 1], part.kind, tie=1e-10) is None


@pytest.mark.parametrize("mean_curvature", [False, True])
def test_adacore_without_any_curvature(mean_curvature: bool) -> None:
    """All right and sure to the last digit: all gradients are zero, all samples tie, but their features differ."""
    subset = select(sure(900, 1000, False).signals, "AdaCore", fraction=0.5, mean_curvature=mean_curvature)
    assert subset.indices.tolist() == [*range(8), *range(15, 23)]
    assert subset.costs.tolist() == [0.0] * 16
    # Some wrong: g is not zero, and a constant divisor leaves Craig's picks.
    signals = sure(900, 1000, True).signals
    picks = select(signals, "AdaCore", fraction=0.5, mean_curvature=mean_curvature).indices.tolist()
    assert picks == select(signals, "Craig", fraction=0.5).indices.tolist()


@pytest.mark.parametrize("mean_curvature", [False, True])
def test_adacore_where_features_are_zero(mean_curvature: bool) -> None:
    """A dead feature, samples without any, and all samples without any: λ is zero there."""
    options = {"mean_curvature": mean_curvature}
    problem = random_problem(1, 60, 4, 3)
    problem.features[:, 1] = 0
    problem.features[::3] = 0
    for features in (problem.features, np.zeros_like(problem.features)):
        changed = Problem(features, problem.logits, problem.labels)
        subset = select(changed.signals, "AdaCore", fraction=0.4, **options)
        parts = parts_of(changed, True, preconditioned(**options))
        oracles.check_selection(parts, subset.indices, changed.budgets(0.4))


@pytest.mark.parametrize("method", ["Craig", "AdaCore", "FacilityLocation"])
def test_identical_samples_are_taken_in_file_order(method: str) -> None:
    problem = random_problem(1, 20, 4, 3).take(np.full(20, 7))
    subset = select(problem.signals, method, fraction=0.5)
    assert subset.indices.tolist() == list(range(10))
    if method == "Craig":
        assert subset.weights.tolist() == [11.0] + [1.0] * 9


@GAPS
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "some wrong"])
def test_facility_location_of_sure_predictions(low: float, high: float, wrong: bool) -> None:
    """A cosine does not depend on the size of a gradient, however small."""
    problem = sure(low, high, wrong)
    subset = select(problem.signals, "FacilityLocation", budget=15, balanced=False)
    s = similarity(*problem.arrays)
    assert fault_of_cover(s, subset.indices, np.arange(30)) is None
    assert subset.cost == pytest.approx(oracles.cost(1 - s, subset.indices), abs=1e-13)


def test_facility_location_of_zero_gradients() -> None:
    """They are half similar to everything, themselves included."""
    problem = random_problem(1, 40, 4, 2)
    problem.logits[::3] = np.where(np.arange(2) == problem.labels[::3, None], 1000, 0)
    assert (oracles.gradients(*problem.arrays)[::3] == 0).all()
    for budget in (5, 40):
        subset = select(problem.signals, "FacilityLocation", budget=budget, balanced=False)
        s = similarity(*problem.arrays)
        assert fault_of_cover(s, subset.indices, np.arange(40)) is None
        assert subset.cost == pytest.approx((1 - s)[:, subset.indices].min(1).sum(), abs=1e-13)


# ---- weights --------------------------------------------------------------------------------------------------------

WEIGHTED = {
    "Craig": ("Craig", {}, of_gradients),
    "AdaCore": ("AdaCore", {"weights": True}, preconditioned()),
    "AdaCore, mean curvature": (
        "AdaCore",
        {"weights": True, "mean_curvature": True},
        preconditioned(mean_curvature=True),
    ),
    "LCMat-S": ("LCMat-S", {"weights": True, "rho": 1.0}, lambda h, z, y: oracles.distances(h, z, y, 1.0, None)),
}


@BALANCED
@pytest.mark.parametrize("kernel", WEIGHTED)
@pytest.mark.parametrize("duplicates", [False, True], ids=["all differ", "duplicates"])
def test_weights_count_the_nearest_samples(kernel: str, duplicates: bool, balanced: bool) -> None:
    method, options, formed = WEIGHTED[kernel]
    problem = random_problem(3, 80, 5, 3, duplicates=duplicates)
    parts = parts_of(problem, balanced, formed)
    for fraction in (0.02, 0.1, 0.3, 0.7, 1.0):
        subset = select(problem.signals, method, fraction=fraction, balanced=balanced, **options)
        picked = oracles.split(subset.indices, parts)
        sizes = [oracles.cluster_sizes(part.D, picks) for part, picks in zip(parts, picked, strict=True)]
        assert subset.weights.dtype == np.float32
        assert subset.weights.tolist() == np.concatenate(sizes).tolist()
        assert subset.weights.sum() == 80
        if balanced:
            totals = np.bincount(subset.classes, weights=subset.weights)
            assert totals.tolist() == np.bincount(problem.labels).tolist()


@BALANCED
@pytest.mark.parametrize("kernel", WEIGHTED)
@pytest.mark.parametrize("duplicates", [False, True], ids=["all differ", "duplicates"])
def test_prefixes_are_the_smaller_selections(kernel: str, duplicates: bool, balanced: bool, tmp_path: Path) -> None:
    """Also of what was saved and read again, and of a prefix."""
    method, options, _ = WEIGHTED[kernel]
    problem = random_problem(5, 60, 5, 3, duplicates=duplicates)
    whole = select(problem.signals, method, fraction=0.8, balanced=balanced, **options)
    whole.save(tmp_path / "subset.npz")
    read = Subset.load(tmp_path / "subset.npz")
    middle = whole.prefix(0.55)
    for fraction in np.arange(1, 17) / 20:
        smaller = select(problem.signals, method, fraction=fraction, balanced=balanced, **options)
        for larger in (whole, read, middle) if fraction <= 0.55 else (whole, read):
            prefix = larger.prefix(fraction)
            for name in ("indices", "rank", "weights", "classes", "class_sizes", "costs", "transfers"):
                assert np.array_equal(getattr(prefix, name), getattr(smaller, name)), name
            assert prefix.weights.dtype == np.float32
    assert np.array_equal(read.weights, whole.weights)
    for budget in (3, 10, 30):
        smaller = select(problem.signals, method, budget=budget, balanced=balanced, **options)
        assert np.array_equal(whole.prefix(budget=budget).indices, smaller.indices)
        assert np.array_equal(whole.prefix(budget=budget).weights, smaller.weights)


@pytest.mark.parametrize("method", ["AdaCore", "LCMat-S", "FacilityLocation"])
def test_no_weights_unless_asked_for(method: str) -> None:
    problem = random_problem(5, 60, 5, 3)
    subset = select(problem.signals, method, fraction=0.5)
    assert subset.weights is None
    assert subset.transfers is None
    assert subset.prefix(0.2).weights is None


@pytest.mark.parametrize("seed", range(5))
def test_transfers_give_the_cluster_sizes_after_any_number_of_picks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 5, (40, 2)).astype(float) if seed % 2 else rng.normal(size=(40, 2))
    D = cdist(points, points)
    cover = facility_location(Matrix(torch.from_numpy(D)), 40)
    transfers, picks = cover.transfers.numpy(), cover.indices.numpy()
    assert (transfers[:, 1] < transfers[:, 0]).all()
    assert (transfers[:, 2] > 0).all()
    assert transfers[transfers[:, 1] < 0].tolist() == [[0, -1, 40]]
    for count in range(1, 41):
        sizes = np.zeros(count, dtype=np.int64)
        for taker, giver, number in transfers[transfers[:, 0] < count]:
            sizes[taker] += number
            if giver >= 0:
                sizes[giver] -= number
        assert sizes.tolist() == oracles.cluster_sizes(D, picks[:count]).tolist()


# ---- distances ------------------------------------------------------------------------------------------------------


def whole(distance: object) -> np.ndarray:
    """All rows."""
    return distance.rows(torch.arange(len(distance))).numpy()


def wide(matrix: np.ndarray) -> np.ndarray:
    """Euclidean distances of the very same float64 numbers, in the machine's longest type."""
    x = matrix.astype(np.longdouble)
    return np.sqrt(((x[:, None] - x) ** 2).sum(2)).astype(np.float64)


def nearly_coincident(n: int, width: int, apart: float = 1e-9) -> np.ndarray:
    """Points of norm 1e3 that are about so far from each other."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=width)
    return 1e3 * centre / np.linalg.norm(centre) + apart * rng.normal(size=(n, width)) / np.sqrt(width)


@pytest.mark.parametrize("width", [1, 3, 60])
def test_euclidean(width: int) -> None:
    x = np.random.default_rng(width).normal(size=(50, width))
    # Below 1e-6 of |x|² + |y|² squared distances are formed anew; above, 2.2e-16/1e-6 of them may be lost to the inner
    # products' rounding, of which there are a few.
    np.testing.assert_allclose(whole(euclidean(torch.from_numpy(x))), cdist(x, x), rtol=2e-9)
    assert (np.diagonal(whole(euclidean(torch.from_numpy(x)))) == 0).all()


def test_euclidean_of_points_that_nearly_coincide() -> None:
    x = nearly_coincident(30, 20)
    assert 1e-10 < wide(x)[0, 1] < 1e-8
    np.testing.assert_allclose(whole(euclidean(torch.from_numpy(x))), wide(x), rtol=1e-14)  # sums of 20 squares


def test_euclidean_over_many_scales() -> None:
    """From 1e-12 to 1e3 apart, all about a point of norm 1e3: every share of cancellation there is."""
    rng = np.random.default_rng(1)
    x = nearly_coincident(1, 8) + rng.normal(size=(80, 8)) * 10 ** rng.uniform(-12, 3, (80, 1))
    np.testing.assert_allclose(whole(euclidean(torch.from_numpy(x))), wide(x), rtol=2e-9)  # as above


def test_distance_of_formed_vectors() -> None:
    """VectorDistance: vectors that a function forms, here the rows of a matrix, and equals that are named."""
    x = np.random.default_rng(0).normal(size=(30, 5))
    x[20:] = x[:10]
    matrix, same = torch.from_numpy(x), torch.tensor([*range(20), *range(10)])
    D = whole(VectorDistance(matrix.__getitem__, 5, same))
    np.testing.assert_allclose(D, cdist(x, x), rtol=2e-9)
    assert (D[np.arange(10), np.arange(20, 30)] == 0).all()
    assert np.array_equal(D[:, :10], D[:, 20:])


def test_cosine_distance() -> None:
    """Of the outer products, against their formed cosines; ½ wherever one is zero."""
    rng = np.random.default_rng(0)
    a, h = rng.normal(size=(40, 3)) * 10 ** rng.uniform(-100, 100, (40, 1)), rng.normal(size=(40, 5))
    a[:3], h[5] = 0, 0
    g = np.einsum("nc,nd->ncd", a, h).reshape(40, -1)
    D = whole(CosineDistance(torch.from_numpy(a), torch.from_numpy(h)))
    np.testing.assert_allclose(D, 0.5 - 0.5 * cosines(g), atol=1e-15)
    assert (D[:3] == 0.5).all()
    assert (D[:, 5] == 0.5).all()


@pytest.mark.parametrize("exponent", [-300, -200, -160, 160, 300])
def test_cosine_distance_does_not_depend_on_the_size(exponent: int) -> None:
    """Also where the squares of the entries underflow or overflow: gradients of sure predictions are that small."""
    rng = np.random.default_rng(0)
    a, h = torch.from_numpy(rng.normal(size=(10, 3))), torch.from_numpy(rng.normal(size=(10, 4)))
    factor = 10.0**exponent
    np.testing.assert_allclose(whole(CosineDistance(a * factor, h)), whole(CosineDistance(a, h)), atol=1e-15)
    np.testing.assert_allclose(whole(CosineDistance(a, h * factor)), whole(CosineDistance(a, h)), atol=1e-15)


def test_symmetric_divergence() -> None:
    p, _ = oracles.softmax_parts(3 * np.random.default_rng(0).normal(size=(40, 6)))
    forth = rel_entr(p[:, None], p).sum(2)
    D = whole(SymmetricDivergence(torch.from_numpy(p)))
    np.testing.assert_allclose(D, (forth + forth.T) / 2, rtol=1e-11, atol=1e-15)  # KL itself cancels: terms of order 1
    assert (D >= 0).all()
    assert np.array_equal(D, D.T)


def test_duplicates_are_at_distance_exactly_zero() -> None:
    """From each other and from themselves, and any row has them equally far: what the module says of all distances."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 12, 40)
    x, p = rng.normal(size=(40, 9))[which], oracles.softmax_parts(rng.normal(size=(40, 4)))[0][which]
    of = {
        "euclidean": euclidean(torch.from_numpy(1e3 + x)),
        "cosine": CosineDistance(torch.from_numpy(p - 0.3), torch.from_numpy(x)),
        "divergence": SymmetricDivergence(torch.from_numpy(p)),
    }
    same = which[:, None] == which
    for name, distance in of.items():
        D = whole(distance)
        assert (D[~same] > 0).all(), name
        assert all(np.array_equal(D[:, i], D[:, j]) for i, j in np.argwhere(same)), name
        assert (D[same] == 0).all(), name


def test_cosine_distance_of_vectors_that_nearly_coincide() -> None:
    """Exact also for samples that nearly coincide, as the module says: here ¼ of the square of an angle of 1e-9.

    Such an angle is known to seven digits from unit vectors in float64; from their inner product, to none.
    """
    h = nearly_coincident(4, 5, apart=1e-6)
    D = whole(CosineDistance(torch.ones(4, 1, dtype=torch.float64), torch.from_numpy(h)))
    with mpmath.workdps(60):
        rows = [mpmath.matrix(list(map(mpmath.mpf, map(float, row)))) for row in h]
        size = [mpmath.norm(row) for row in rows]
        for i, j in ((0, 1), (1, 2), (0, 3)):
            exact = (1 - (rows[i].T * rows[j])[0] / size[i] / size[j]) / 2
            assert D[i, j] == pytest.approx(float(exact), rel=1e-5, abs=0)


def test_divergence_of_distributions_that_nearly_coincide() -> None:
    """The same of ½KL + ½KL, at probabilities a relative 1e-9 apart."""
    rng = np.random.default_rng(0)
    p = oracles.softmax_parts(rng.normal(size=4) + 1e-9 * rng.normal(size=(4, 4)))[0]
    D = whole(SymmetricDivergence(torch.from_numpy(p)))
    with mpmath.workdps(60):
        for i, j in ((0, 1), (1, 2), (0, 3)):
            pairs = [(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(p[i], p[j], strict=True)]
            exact = mpmath.fsum((a - b) * mpmath.log(a / b) for a, b in pairs) / 2
            assert D[i, j] == pytest.approx(float(exact), rel=1e-6, abs=0)


@pytest.mark.parametrize("elements", [1, 50, 1000])
@pytest.mark.parametrize("held", [True, False], ids=["vectors held", "vectors formed"])
def test_block_sizes_change_nothing(elements: int, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(20, 6)), nearly_coincident(20, 6)])
    x[35:] = x[:5]
    p = oracles.softmax_parts(rng.normal(size=(40, 4)))[0]
    problem = random_problem(2, 50, 4, 2)

    def everything() -> list[np.ndarray]:
        return [
            whole(euclidean(torch.from_numpy(x))),
            whole(CosineDistance(torch.from_numpy(p - 0.3), torch.from_numpy(x))),
            whole(SymmetricDivergence(torch.from_numpy(p))),
        ]

    expected, picks = everything(), select(problem.signals, "AdaCore", fraction=0.3)
    with sized(elements=elements), memory_limit.limited(None if held else 1):
        found, again = everything(), select(problem.signals, "AdaCore", fraction=0.3)
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-9, atol=1e-15)  # as above; matrix products round as they are cut
    assert again.indices.tolist() == picks.indices.tolist()
    np.testing.assert_allclose(again.costs, picks.costs, rtol=1e-12)


def test_vectors_that_do_not_fit_are_formed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more of them at once than a block holds."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 6)))
    most = []

    def form(index: torch.Tensor | slice) -> torch.Tensor:
        most.append(len(x[index]))
        return x[index]

    with sized(elements=60), memory_limit.limited(1):
        VectorDistance(form, 6, torch.arange(30)).rows(torch.arange(2))
    assert max(most) == 10


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [-1, -0.1, float("nan"), float("inf")])
def test_impossible_damping_is_refused(damping: float) -> None:
    with pytest.raises(UserError, match="damping"):
        select(random_problem(0).signals, "AdaCore", fraction=0.5, damping=damping)


@pytest.mark.parametrize(("method", "option"), [("Craig", "rho"), ("AdaCore", "dampin"), ("FacilityLocation", "K")])
def test_unknown_options_are_refused(method: str, option: str) -> None:
    with pytest.raises(UserError, match=f"{method} has no option '{option}'"):
        select(random_problem(0).signals, method, fraction=0.5, **{option: 1})


@pytest.mark.parametrize("method", ["Craig", "AdaCore", "FacilityLocation"])
@pytest.mark.parametrize("missing", ["features", "logits"])
def test_missing_signals_are_named(method: str, missing: str) -> None:
    fields = dict(zip(("features", "logits", "labels"), random_problem(0).arrays, strict=True))
    del fields[missing]
    with pytest.raises(UserError, match=f"{method} needs {missing}"):
        select(Signals(**fields), method, fraction=0.5)
