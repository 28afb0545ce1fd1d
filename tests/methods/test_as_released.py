"""Methods as released, switch by switch, against the released computation in plain loops over single numbers.

What is meant by each switch stands in methods/README.md. Nothing here shares code with the library.
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from lcmat import Signals, UserError
from lcmat.facility_location.released import naive_greedy
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
    how = ("signals_mode", "gradient_scale")
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


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in names() if get(name).released])
def test_switches_are_off_by_default_and_a_configuration_names_those_that_are_on(method: str) -> None:
    own, released = get(method), options_of(method)
    usual = own.recorded(3, 5, {})
    assert own.recorded(3, 5, {name: own.options[name] for name in released}) == usual
    for name, value in released.items():
        assert own.options[name] != value
        assert own.recorded(3, 5, {name: value}) == {**usual, name: value}
    assert set(own.released) <= {*own.options, "signals_mode", "gradient_scale"}


def test_craigs_weights_can_be_left_out() -> None:
    problem = random_problem(0)
    usual, without = (select(problem.signals, "Craig", fraction=0.2, weights=weights) for weights in (True, False))
    assert usual.weights.sum() == 60
    assert without.weights is None
    assert usual.indices.tolist() == without.indices.tolist()
