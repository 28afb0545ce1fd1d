"""Methods as released, switch by switch, against the released computation in plain loops over single numbers.

What is meant by each switch stands in methods/README.md. Nothing here shares code with the library.
"""

import warnings
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from lcmat import Signals, UserError
from lcmat.facility_location.released import naive_greedy
from lcmat.last_layer import gradient_factors
from lcmat.signals.released import with_softmax_twice
from methods import get, names, select
from tests import oracles
from tests.problems import Problem, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
F = np.float32


def softmax(z: np.ndarray) -> np.ndarray:
    """In the type of z."""
    powers = np.exp(z - z.max())
    return powers / powers.sum()


def gradients(problem: Problem, scale: np.ndarray) -> np.ndarray:
    """Per-sample gradients of the mean loss of a batch, [bias, weights] as there, in float32."""
    rows = []
    for h, z, y, s in zip(problem.features, problem.logits, problem.labels, scale, strict=True):
        a = softmax(z.astype(F)) - (np.arange(len(z)) == y).astype(F)
        a = (a * F(s)).astype(F)
        rows.append(np.concatenate([a, np.outer(a, h.astype(F)).ravel()]))
    return np.array(rows, dtype=F)


def hessians(problem: Problem, scale: np.ndarray) -> np.ndarray:
    """Diagonals of the Hessian of the same, in float32."""
    rows = []
    for h, z, s in zip(problem.features, problem.logits, scale, strict=True):
        p = softmax(z.astype(np.float64))
        b = np.array([p[c] * np.delete(p, c).sum() * s for c in range(len(p))]).astype(F)
        rows.append(np.concatenate([b, np.outer(b, h.astype(F) ** 2).ravel()]))
    return np.array(rows, dtype=F)


def distances(x: np.ndarray) -> np.ndarray:
    """√(x² + y² − 2xy) for each pair, one by one; 0 for what is no number."""
    n = len(x)
    D = np.zeros((n, n), dtype=F)
    for i in range(n):
        for j in range(n):
            squared = (x[i] * x[i]).sum() + (x[j] * x[j]).sum() - F(2) * (x[i] * x[j]).sum()
            root = np.sqrt(squared)
            D[i, j] = 0 if np.isnan(root) else root
    return D


def greedy(similarity: np.ndarray, budget: int) -> list[int]:
    """The released NaiveGreedy over FacilityLocation: NumPy sums such a block, whose rows lie one after the other, row
    by row."""
    n = len(similarity)
    best, chosen, gain = np.zeros(n, dtype=F), np.zeros(n, dtype=bool), np.zeros(n)
    picks = []
    for _ in range(budget):
        of_left = similarity[np.ix_(np.ones(n, dtype=bool), ~chosen)]
        gain[~chosen] = np.maximum(F(0), of_left - best.reshape(-1, 1)).sum(axis=0)
        pick = int(gain.argmax())
        chosen[pick], gain[pick] = True, -np.inf
        best = np.maximum(best, similarity[:, pick])
        picks.append(pick)
    return picks


def lcmat(problem: Problem, scale: np.ndarray, eps: float, K: int, budget: int) -> list[int]:
    """LCMat-S of one class as released."""
    D = distances(gradients(problem, scale))
    hessian = hessians(problem, scale)
    most_variable = np.argsort(np.var(hessian, axis=0))[::-1][:K]
    reduced = hessian[:, most_variable]
    similarity = np.zeros_like(D)
    for i in range(len(D)):
        for j in range(len(D)):
            similarity[i, j] = F(10) - D[i, j] - F(eps) * np.abs(reduced[i] - reduced[j]).sum()
    return greedy(similarity, budget)


def adacore(problem: Problem, scale: np.ndarray, budget: int) -> list[int]:
    """AdaCore of one class as released."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dividing by 0 is what it is about
        x = gradients(problem, scale) * np.reciprocal(hessians(problem, scale))
        return greedy(F(10) - distances(x), budget)


def one_class(seed: int, n: int = 40, d: int = 4, rectified: bool = False) -> tuple[Problem, np.ndarray]:
    """Samples of one class, features as after a ReLU if so said; and a scale of batches of 16."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)).astype(F)
    features = np.maximum(features, 0) if rectified else features
    problem = Problem(features, (2 * rng.normal(size=(n, 3))).astype(F), np.full(n, 1))
    return problem, np.array([1 / 16] * (n - n % 16) + [1 / (n % 16)] * (n % 16))


def picks(problem: Problem, method: str, budget: int, scale: np.ndarray | None = None, **options: object) -> list[int]:
    """What a method picks, in order."""
    signals = replace(problem.signals, scale=scale)
    return select(signals, method, budget=budget, balanced=False, **options).indices.tolist()


def options_of(method: str) -> dict[str, object]:
    """What --numerics released sets of a method's options."""
    how = ("signals_mode", "gradient_scale", "weights_by")
    return {name: value for name, value in get(method).released.items() if name not in how}


# ---- LCMat-S and AdaCore --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scaled", [False, True], ids=["per sample", "by the batch"])
def test_lcmat_s_is_the_released_one(seed: int, scaled: bool) -> None:
    problem, scale = one_class(seed)
    scale = scale if scaled else np.ones(40)
    expected = lcmat(problem, scale, eps=0.01, K=8, budget=12)
    assert picks(problem, "LCMat-S", 12, scale, K=8, **options_of("LCMat-S")) == expected
    assert expected != picks(problem, "LCMat-S", 12, scale, K=8, rho=5.0)


@pytest.mark.parametrize("seed", range(4))
def test_similarities_of_ten_less_the_distance_do_not_see_what_is_farther(seed: int) -> None:
    """Of gradients of length 30 or so, in float32 and in float64 alike."""
    problem, _ = one_class(seed)
    far = replace(problem, features=20 * problem.features)
    expected = lcmat(far, np.ones(40), eps=0.01, K=8, budget=12)
    usual, in_float64, in_float32 = (
        picks(far, "LCMat-S", 12, rho=0.02, K=8, **more) for more in ({}, {"ten": True}, {"ten": True, "float32": True})
    )
    assert in_float32 == in_float64 == expected
    assert usual != expected
    assert picks(far, "LCMat-S", 12, rho=0.02, K=8, float32=True) == usual
    subset = select(far.signals, "LCMat-S", budget=12, rho=0.02, K=8, ten=True, float32=True, weights=True)
    assert subset.cost <= 28 * 10
    assert subset.nested
    assert subset.weights.sum() == 40


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0], ids=["no", "some", "all"])
def test_adacore_is_the_released_one(seed: int, share: float) -> None:
    """A feature of 0 has curvature 0, and makes the sample one that is at distance 0 from all."""
    problem, scale = one_class(seed)
    zero = np.random.default_rng(seed).random(40) < share
    problem.features[zero, 2] = 0
    expected = adacore(problem, scale, 12)
    assert picks(problem, "AdaCore", 12, scale, **options_of("AdaCore")) == expected
    if share == 1:
        assert expected == list(range(12))
    if share:
        first = int(np.flatnonzero(zero)[0])
        assert expected == [first, *[i for i in range(40) if i != first][:11]]
        # Undamped in float64, too, with all distances that count for something.
        assert picks(problem, "AdaCore", 12, scale, damping=0) == expected
    assert picks(problem, "AdaCore", 12, scale) != expected


def test_adacore_of_relu_features_takes_the_first_of_each_class() -> None:
    """What the published row is."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(90, 32)), 0)
    signals = Signals(features=features, logits=rng.normal(size=(90, 3)), labels=np.arange(90) % 3)
    released, first = (
        select(signals, method, fraction=0.2, **options)
        for method, options in (("AdaCore", options_of("AdaCore")), ("FirstInOrder", {}))
    )
    assert sorted(released.indices.tolist()) == sorted(first.indices.tolist())


def test_gains_are_summed_in_float32_row_by_row() -> None:
    """With similarities near 10 their sums are so coarse that other candidates win than in float64."""
    coarse = 0
    for seed in range(6):
        points = np.random.default_rng(seed).normal(size=(700, 3)).astype(F)
        similarity = (F(10) - F(0.001) * np.linalg.norm(points[:, None] - points, axis=2)).astype(F)
        found = naive_greedy(torch.from_numpy(similarity), 40).tolist()
        assert found == greedy(similarity, 40)
        assert len(set(found)) == 40
        coarse += found[0] != similarity.astype(np.float64).sum(0).argmax()
    assert coarse > 0


def test_what_is_asked_of_the_greedy_in_float32_is_refused_where_it_cannot_be() -> None:
    problem, _ = one_class(0)
    for method in ("LCMat-S", "AdaCore"):
        with pytest.raises(UserError, match=r"float32 is for the exact greedy"):
            picks(problem, method, 5, float32=True, greedy="partition")
    with pytest.raises(UserError, match="raise --memory"):
        select(problem.signals, "LCMat-S", budget=5, float32=True, memory="1KB")
    with pytest.raises(UserError, match="damping"):
        picks(problem, "AdaCore", 5, damping=-0.1)


# ---- a softmax too many ---------------------------------------------------------------------------------------------


def twice(problem: Problem, scale: np.ndarray) -> np.ndarray:
    """Gradients of cross-entropy that is given softmax(z) for its logits, [bias, weights], by automatic differentiation
    of each sample's share of the mean of its batch."""
    h, z, y = (torch.from_numpy(np.asarray(array)) for array in problem.arrays)
    head = torch.zeros(z.shape[1], h.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    rows = []
    for i in range(len(y)):
        logits = z[i].double() + head @ torch.cat([torch.ones(1, dtype=torch.float64), h[i].double()])
        loss = torch.nn.functional.cross_entropy(torch.softmax(logits, 0)[None], y[i : i + 1])
        rows.append(torch.autograd.grad(loss * scale[i], head)[0].T.flatten().numpy())
    return np.array(rows)


def released_gradients(seed: int, n: int = 40) -> tuple[Problem, np.ndarray, np.ndarray]:
    """A class, the scale of its batches, and gradients as the released methods take them."""
    problem, scale = one_class(seed, n)
    problem = Problem(problem.features.astype(np.float64), problem.logits.astype(np.float64), problem.labels)
    return problem, scale, twice(problem, scale)


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0, 3e4])
def test_gradients_of_two_softmaxes_are_those_of_automatic_differentiation(size: float) -> None:
    """Where predictions are sure, what is left of p is compared with mpmath, in which nothing cancels."""
    rng = np.random.default_rng(0)
    logits = size * rng.normal(size=(12, 4))
    signals = Signals(features=np.ones((12, 1)), logits=logits, labels=rng.integers(0, 4, 12))
    a, _ = gradient_factors(with_softmax_twice(signals))
    for i in range(12):
        with mpmath.workdps(400):
            p, _ = oracles.exact_softmax(logits[i], 400)
            r, _ = oracles.exact_softmax(p, 400)
            r[int(signals.labels[i])] -= 1
            mean = sum(p[c] * r[c] for c in range(4))
            exact = [float(p[c] * (r[c] - mean)) for c in range(4)]
        assert a[i].numpy() == pytest.approx(exact, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("seed", range(4))
def test_craig_is_the_released_one(seed: int) -> None:
    """Facility location of distances between gradients of two softmaxes; weights are cluster sizes and one."""
    problem, scale, g = released_gradients(seed)
    D = np.linalg.norm(g[:, None] - g, axis=2)
    subset = select(replace(problem.signals, scale=scale), "Craig", budget=12, balanced=False, **options_of("Craig"))
    expected = oracles.naive_greedy(D, 12)
    assert subset.indices.tolist() == expected
    assert subset.weights.tolist() == (oracles.cluster_sizes(D, expected) + 1).tolist()
    assert not subset.nested
    assert picks(problem, "Craig", 12) != expected


@pytest.mark.parametrize("method", ["Glister", "Glister-Val"])
@pytest.mark.parametrize("seed", range(3))
def test_glister_is_the_released_one_whose_target_is_never_taken_anew(seed: int, method: str) -> None:
    problem, scale, g = released_gradients(seed)
    held_out, of_held_out, target = released_gradients(seed + 10, 24) if method == "Glister-Val" else (None, None, g)
    signals = replace(problem.signals, scale=scale)
    if held_out is not None:
        signals = replace(signals, validation=replace(held_out.signals, scale=of_held_out))
    found = select(signals, method, budget=12, balanced=False, **options_of(method)).indices.tolist()
    assert found == np.argsort(-(g @ target.mean(0)), kind="stable")[:12].tolist()


def pursuit(g: np.ndarray, target: np.ndarray, budget: int) -> dict[int, float]:
    """The released matching pursuit: picks by the largest product with the residual, and weights, if not 0."""
    residual, chosen = target.copy(), []
    for step in range(budget):
        products = g @ residual
        products[chosen] = -np.inf
        chosen.append(int(products.argmax()))
        A = g[chosen]
        if step == 0:
            x = np.array([products[chosen[0]] / (A[0] @ A[0])])
        else:
            x = np.linalg.lstsq(A @ A.T + np.eye(step + 1), A @ target, rcond=None)[0]
        residual = target - A.T @ x
    if budget == 1:
        return {chosen[0]: 1.0}
    weights = nnls(A @ A.T + np.eye(budget), A @ target)[0]
    return {i: w for i, w in zip(chosen, weights, strict=True) if w}


@pytest.mark.parametrize("method", ["GradMatch", "GradMatch-Val"])
@pytest.mark.parametrize("scaled", [False, True], ids=["per sample", "by the batch"])
@pytest.mark.parametrize("seed", range(3))
def test_gradmatch_is_the_released_one(seed: int, scaled: bool, method: str) -> None:
    """λ = 1 beside gradients of any size, and what NNLS leaves at 0 stays out: then there are fewer than asked for."""
    problem, scale, _ = released_gradients(seed)
    scale = scale if scaled else np.full(40, 1e3)
    target = g = twice(problem, scale)
    signals = replace(problem.signals, scale=scale)
    if method == "GradMatch-Val":
        held_out, of_held_out, target = released_gradients(seed + 10, 24)
        signals = replace(signals, validation=replace(held_out.signals, scale=of_held_out))
    for budget in (1, 5, 25):
        expected = pursuit(g, target.mean(0), budget)
        subset = select(signals, method, budget=budget, balanced=False, **options_of(method))
        assert subset.indices.tolist() == list(expected)
        assert subset.weights == pytest.approx(list(expected.values()), rel=1e-5)
        assert len(subset) <= budget
    if not scaled and method == "GradMatch-Val":
        assert len(subset) < 25


def test_grand_is_the_released_one() -> None:
    problem, scale, g = released_gradients(0)
    signals = Signals(labels=problem.labels, initialisations=[replace(problem.signals, scale=scale)])
    found = select(signals, "GraNd", budget=12, balanced=False, **options_of("GraNd")).indices.tolist()
    assert found == np.argsort(-np.linalg.norm(g, axis=1), kind="stable")[:12].tolist()
    assert found != select(signals, "GraNd", budget=12, balanced=False).indices.tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", ["FacilityLocation", "GraphCut", "LogDeterminant"])
def test_the_submodular_family_takes_cosines_of_gradients_of_two_softmaxes(method: str, seed: int) -> None:
    problem, scale, g = released_gradients(seed)
    unit = g / np.linalg.norm(g, axis=1, keepdims=True)
    s = 0.5 + 0.5 * unit @ unit.T
    expected: list[int] = []
    for _ in range(8):
        if method == "FacilityLocation":
            values = [oracles.coverage(1 - s, [*expected, j]) for j in range(40)]
        elif method == "GraphCut":
            values = s.sum(0) - 2 * s[expected].sum(0)
        else:
            blocks = [s[np.ix_([*expected, j], [*expected, j])] for j in range(40)]
            values = [np.linalg.slogdet(block + 1e-6 * np.eye(len(block)))[1] for block in blocks]
        values = np.array(values)
        values[expected] = -np.inf
        expected.append(int(np.flatnonzero(values >= values.max() - 1e-9)[0]))
    assert picks(problem, method, 8, scale, **options_of(method)) == expected
    assert picks(problem, method, 8) != expected


# ---- the others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_herding_takes_the_farthest(seed: int) -> None:
    problem, _ = one_class(seed)
    h = problem.features.astype(np.float64)
    mean, expected = h.mean(0), []
    for step in range(10):
        aim = (step + 1) * mean - h[expected].sum(0)
        far = np.linalg.norm(aim - h, axis=1)
        far[expected] = -np.inf
        expected.append(int(far.argmax()))
    assert picks(problem, "Herding", 10, **options_of("Herding")) == expected
    assert picks(problem, "Herding", 10) != expected


def test_least_confidence_is_by_the_largest_logit() -> None:
    """A shift of a sample's logits, which its probabilities do not see, decides."""
    problem, _ = one_class(0)
    shifted = replace(problem, logits=problem.logits + np.linspace(-9, 9, 40)[:, None])
    found = picks(shifted, "LeastConfidence", 10, **options_of("LeastConfidence"))
    assert found == np.argsort(shifted.logits.max(1), kind="stable")[:10].tolist()
    assert picks(shifted, "LeastConfidence", 10) == picks(problem, "LeastConfidence", 10) != found


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in names() if get(name).released])
def test_switches_are_off_by_default_and_a_configuration_names_those_that_are_on(method: str) -> None:
    own, released = get(method), options_of(method)
    usual = own.recorded(3, 5, {})
    assert own.recorded(3, 5, {name: own.options[name] for name in released}) == usual
    for name, value in released.items():
        assert own.options[name] != value
        assert own.recorded(3, 5, {name: value}) == {**usual, name: value}
    assert set(own.released) <= {*own.options, "signals_mode", "gradient_scale", "weights_by"}


def test_craigs_weights_can_be_left_out() -> None:
    problem = random_problem(0)
    usual, without = (select(problem.signals, "Craig", fraction=0.2, weights=weights) for weights in (True, False))
    assert usual.weights.sum() == 60
    assert without.weights is None
    assert usual.indices.tolist() == without.indices.tolist()
