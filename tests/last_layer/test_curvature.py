"""Gradients, Hessian diagonals and the distance of LCMat-S against autograd, BackPACK, mpmath and formed matrices."""

import numpy as np
import pytest
import torch

from lcmat import Signals, UserError
from lcmat.block_sizes import sized
from lcmat.distances.loss_curvature import LossCurvatureDistance
from lcmat.last_layer import dominant_dimensions, gradient_factors, hessian_factors, hessian_variance
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

# Both sides round a handful of products of numbers of order one.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def random_signals(n: int, d: int, C: int, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> Signals:
    """Random features and logits with all classes among the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % C)
    return Signals(features=offset + rng.normal(size=(n, d)), logits=scale * rng.normal(size=(n, C)), labels=labels)


def formed(factors: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """The outer products of two factors, flattened: (n, C(d+1))."""
    left, right = factors
    return (left[:, :, None] * right[:, None, :]).flatten(1).numpy()


def all_rows(signals: Signals, rho: float, K: int | None = None) -> np.ndarray:
    """The whole distance matrix."""
    return LossCurvatureDistance(signals, rho, K).rows(torch.arange(len(signals))).numpy()


# ---- closed forms ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(2, 1), (2, 5), (3, 4), (10, 3), (10, 7)], ids=lambda p: f"C={p[0]},d={p[1]}")
def head_and_signals(request: pytest.FixtureRequest) -> tuple[torch.nn.Linear, Signals]:
    """A linear head in float64 and the signals of a dozen random samples under it."""
    C, d = request.param
    rng = torch.Generator().manual_seed(C * 100 + d)
    head = torch.nn.Linear(d, C, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(C, d, generator=rng, dtype=torch.float64))
        head.bias.copy_(torch.randn(C, generator=rng, dtype=torch.float64))
    features = torch.randn(12, d, generator=rng, dtype=torch.float64)
    return head, Signals(features=features, logits=head(features), labels=torch.arange(12) % C)


def test_gradients_against_autograd(head_and_signals: tuple[torch.nn.Linear, Signals]) -> None:
    head, signals = head_and_signals
    expected = oracles.autograd_gradients(head, signals.features, signals.labels)
    np.testing.assert_allclose(formed(gradient_factors(signals)), expected, **CLOSE)


def test_hessian_diagonals_against_autograd(head_and_signals: tuple[torch.nn.Linear, Signals]) -> None:
    head, signals = head_and_signals
    expected = oracles.autograd_hessians(head, signals.features, signals.labels)
    np.testing.assert_allclose(formed(hessian_factors(signals)), expected, **CLOSE)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # BackPACK's, without effect on its results
def test_both_against_backpack(head_and_signals: tuple[torch.nn.Linear, Signals]) -> None:
    head, signals = head_and_signals
    gradients, diagonals = oracles.backpack_both(head, signals.features, signals.labels)
    np.testing.assert_allclose(formed(gradient_factors(signals)), gradients, **CLOSE)
    np.testing.assert_allclose(formed(hessian_factors(signals)), diagonals, **CLOSE)


def test_both_against_the_formed_oracle(head_and_signals: tuple[torch.nn.Linear, Signals]) -> None:
    """The oracle that the selection tests rest on agrees too."""
    _, signals = head_and_signals
    arrays = signals.features.numpy(), signals.logits.numpy()
    expected = oracles.gradients(*arrays, signals.labels.numpy())
    np.testing.assert_allclose(formed(gradient_factors(signals)), expected, **CLOSE)
    np.testing.assert_allclose(formed(hessian_factors(signals)), oracles.hessians(*arrays), **CLOSE)


def test_factors_are_float64_whatever_the_signals() -> None:
    signals = random_signals(9, 4, 3)
    narrow = Signals(features=signals.features.float(), logits=signals.logits.float(), labels=signals.labels)
    widened = Signals(features=narrow.features.double(), logits=narrow.logits.double(), labels=signals.labels)
    for factors in (gradient_factors, hessian_factors):
        assert all(factor.dtype == torch.float64 for factor in factors(narrow))
        assert all(torch.equal(a, b) for a, b in zip(factors(narrow), factors(widened), strict=True))


# Differences are exact in float64, so that only exp, sums and quotients round.
EXTREME = {
    "gap 37": [37.0, 0.0, 0.0],
    "gap 40": [0.0, 40.0, -3.5],
    "gap 300": [300.0, 0.0, 1.0],
    "gap 700": [-700.0, 0.0, -699.0],
    "gap 1000": [1000.0, 0.0, -1000.0],
    "gap -1000": [-1000.0, 0.0, -1.0],
    "two classes": [60.0, -60.0],
    "two on top": [500.0, 500.0, 450.0],
    "all equal": [-1000.0, -1000.0, -1000.0, -1000.0],
}


@pytest.mark.parametrize("logits", EXTREME.values(), ids=EXTREME)
def test_sure_predictions_keep_all_digits(logits: list[float]) -> None:
    """a = p - onehot(y) and p(1-p) to full relative precision, where p rounds to one and where it nearly vanishes."""
    C = len(logits)
    p, rest = ([float(x) for x in part] for part in oracles.exact_softmax(logits))
    signals = Signals(features=np.full((C, 2), 0.5), logits=np.tile(logits, (C, 1)), labels=np.arange(C))
    expected_a = np.array([[-rest[c] if c == y else p[c] for c in range(C)] for y in range(C)])
    # A few units in the last place of exp and a sum; below 1e-300 float64 itself runs out.
    close = {"rtol": 1e-14, "atol": 1e-300}
    np.testing.assert_allclose(gradient_factors(signals)[0].numpy(), expected_a, **close)
    expected_b = np.tile([float(x * y) for x, y in zip(*oracles.exact_softmax(logits), strict=True)], (C, 1))
    np.testing.assert_allclose(hessian_factors(signals)[0].numpy(), expected_b, **close)


# ---- variance and dominant dimensions -------------------------------------------------------------------------------

SHAPES = [
    (1, 3, 2, 1.0, 0.0),
    (2, 2, 2, 1.0, 0.0),
    (40, 6, 3, 1.0, 0.0),
    (200, 20, 10, 4.0, 0.0),
    (80, 5, 4, 0.1, 30.0),
]


@pytest.mark.parametrize(("n", "d", "C", "scale", "offset"), SHAPES)
def test_variance_against_numpy(n: int, d: int, C: int, scale: float, offset: float) -> None:
    signals = random_signals(n, d, C, scale=scale, offset=offset)
    variance = hessian_variance(*hessian_factors(signals)).numpy()
    diagonal = oracles.hessians(signals.features.numpy(), signals.logits.numpy())
    assert variance.shape == (C, d + 1)
    assert (variance >= 0).all()
    # E[x^2] - E[x]^2 in float64: n roundings relative to E[x^2], whatever the variance.
    allowed = 1e-14 * np.square(diagonal).mean(axis=0)
    assert (np.abs(variance.ravel() - np.var(diagonal, axis=0)) <= allowed).all()


@pytest.mark.parametrize("K", [1, 7, 20, 84])
@pytest.mark.parametrize("offset", [0.0, 30.0], ids=["centred", "offset"])
def test_dominant_dimensions_of_signals_against_argsort(K: int, offset: float) -> None:
    signals = random_signals(60, 20, 4, seed=3, offset=offset)
    diagonal = oracles.hessians(signals.features.numpy(), signals.logits.numpy())
    got = dominant_dimensions(hessian_variance(*hessian_factors(signals)), K).numpy()
    assert np.array_equal(got, oracles.dominant(diagonal, K))


def test_dominant_dimensions_break_ties_by_the_lowest_index() -> None:
    rng = np.random.default_rng(5)
    variance = rng.integers(0, 4, (6, 50)).astype(np.float64)
    order = np.argsort(-variance.ravel(), kind="stable")
    for K in (1, 10, 150, 300):
        assert np.array_equal(dominant_dimensions(torch.from_numpy(variance), K).numpy(), order[:K])


# ---- distances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("K", [1, 5, None])
@pytest.mark.parametrize("C", [2, 3, 10])
def test_distances_against_formed_gradients(rho: float, K: int | None, C: int) -> None:
    signals = random_signals(50, 12, C, seed=C, scale=2.0)
    arrays = signals.features.numpy(), signals.logits.numpy(), signals.labels.numpy()
    D = all_rows(signals, rho, K)
    np.testing.assert_allclose(D, oracles.distances(*arrays, rho, K), rtol=1e-11, atol=0)
    assert (np.diag(D) == 0).all()


def test_distances_of_sure_predictions() -> None:
    """Gradients of nearly no size are compared with each other, not with the large ones: every digit counts."""
    signals = random_signals(60, 6, 3, seed=1, scale=30.0)
    right = torch.arange(60) < 50
    labels = torch.where(right, signals.logits.argmax(1), signals.labels)
    signals = Signals(features=signals.features, logits=signals.logits, labels=labels)
    arrays = signals.features.numpy(), signals.logits.numpy(), signals.labels.numpy()
    expected = oracles.distances(*arrays, 0.1, None)
    assert expected[expected > 0].min() < 1e-15 < 1 < expected.max()
    np.testing.assert_allclose(all_rows(signals, 0.1), expected, rtol=1e-11, atol=0)


def perturbed(what: str, size: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twenty ordinary samples followed by a nearly identical copy of each."""
    rng = np.random.default_rng(seed)
    h, z, y = rng.normal(size=(20, 8)), rng.normal(size=(20, 4)), rng.integers(0, 4, 20)
    move_h, move_z = (
        1 + size * rng.normal(size=x.shape) * (what in (name, "both")) for x, name in ((h, "h"), (z, "z"))
    )
    return np.concatenate([h, h * move_h]), np.concatenate([z, z * move_z]), np.concatenate([y, y])


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("what", ["h", "z", "both"])
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4, 1e-6, 1e-9])
def test_nearly_identical_samples(size: float, what: str, rho: float) -> None:
    """No cancellation: the Gram matrix alone would have no digit left below a relative 1e-8."""
    h, z, y = perturbed(what, size)
    g, diagonal = oracles.gradients(h, z, y, np.longdouble), oracles.hessians(h, z, np.longdouble)
    columns = diagonal[:, oracles.dominant(diagonal, min(100, diagonal.shape[1]))]
    expected = np.array(
        [
            np.sqrt(np.square(g[i] - g[j]).sum()) + rho / 2 * np.abs(columns[i] - columns[j]).sum()
            for i, j in zip(range(20), range(20, 40), strict=True)
        ],
        dtype=np.float64,
    )
    D = all_rows(Signals(features=h, logits=z, labels=y), rho)
    # Signals of relative precision 2.2e-16 differ by `size`, so their difference is known to 1e-15 / size at best, and
    # lambda's, taken after p(1-p) has been rounded, to a few times that. Above 1e-3 the Gram matrix serves: what it
    # loses is bounded by 2.2e-16 over a relative squared distance of 1e-6.
    allowed = max(1e-9, 1e-14 / size)
    np.testing.assert_allclose(D[np.arange(20), np.arange(20, 40)], expected, rtol=allowed, atol=0)
    np.testing.assert_allclose(D[np.arange(20, 40), np.arange(20)], expected, rtol=allowed, atol=0)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize(("n", "d", "C"), [(36, 5, 3), (101, 64, 10), (203, 129, 10)])
def test_identical_samples_are_at_distance_zero_and_as_far_from_all_others(n: int, d: int, C: int, rho: float) -> None:
    """Each row holds the same number for both, to the last bit: at these sizes a matrix product alone would not."""
    which = torch.randint(n // 3, (n,), generator=torch.Generator().manual_seed(0))
    D = all_rows(random_signals(n // 3, d, C, seed=2)[which], rho)
    same = (which[:, None] == which).numpy()
    assert same.sum() > n
    assert ((D == 0) == same).all()
    for i, j in np.argwhere(same):
        assert np.array_equal(D[:, i], D[:, j])
        # Their own rows are formed by matrix products that may round differently from row to row.
        np.testing.assert_allclose(D[i], D[j], rtol=1e-13, atol=0)


def test_all_samples_identical() -> None:
    signals = Signals(features=np.full((7, 3), 0.3), logits=np.tile([1.0, 2.0], (7, 1)), labels=np.ones(7, dtype=int))
    assert (all_rows(signals, 0.1) == 0).all()


def test_equal_features_with_another_label_or_logit_are_not_identical() -> None:
    features, logits = np.full((4, 3), 0.3), np.tile([1.0, 2.0], (4, 1))
    logits[3, 0] += 1e-12
    labels = np.array([0, 1, 0, 0])
    D = all_rows(Signals(features=features, logits=logits, labels=labels), 0.0)
    assert (D == 0).tolist() == [[i == j or {i, j} == {0, 2} for j in range(4)] for i in range(4)]


@pytest.mark.parametrize("narrow", ["features", "logits"])
def test_signals_of_mixed_precision_are_told_apart(narrow: str) -> None:
    """Samples that differ by less than a float32 can show stay different if the field they differ in is float64."""
    fields = {"features": np.full((3, 3), 0.5), "logits": np.full((3, 2), 0.5)}
    wide = "logits" if narrow == "features" else "features"
    fields[wide][2, 0] += 2.0**-40
    fields[narrow] = fields[narrow].astype(np.float32)
    D = all_rows(Signals(labels=np.zeros(3, dtype=int), **fields), 0.1)
    assert D[0, 1] == 0
    assert D[0, 2] > 0
    assert D[2, 1] > 0


@pytest.mark.parametrize(
    "index",
    [[3], [0, 39, 1], [7, 7, 7], list(range(39, -1, -1)), []],
    ids=["one", "any order", "repeated", "reversed", "none"],
)
@pytest.mark.parametrize("duplicates", [False, True], ids=["all different", "duplicates"])
def test_rows_in_any_order(index: list[int], duplicates: bool) -> None:
    signals = random_signals(40, 5, 3, seed=4)
    if duplicates:
        signals = signals[torch.arange(40) % 25]
    distance = LossCurvatureDistance(signals, 0.1)
    rows = distance.rows(torch.tensor(index, dtype=torch.int64)).numpy()
    assert len(distance) == 40
    assert rows.shape == (len(index), 40)
    assert rows.dtype == np.float64
    # Matrix products of other shapes may sum in another order.
    np.testing.assert_allclose(rows, all_rows(signals, 0.1)[index], rtol=1e-12, atol=0)


@pytest.mark.parametrize("elements", [1, 97, 400])
def test_rows_do_not_depend_on_the_size_of_blocks(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    h, z, y = perturbed("both", 1e-7)
    signals = Signals(features=h, logits=z, labels=y)
    whole = all_rows(signals, 0.1)
    with sized(elements=elements):
        cut = all_rows(signals, 0.1)
    np.testing.assert_allclose(cut, whole, rtol=1e-9, atol=0)  # 1e-9: cancellation, see above


def test_rho_zero_leaves_the_gradients_alone() -> None:
    signals = random_signals(30, 4, 3, seed=6)
    arrays = signals.features.numpy(), signals.logits.numpy(), signals.labels.numpy()
    g = oracles.gradients(*arrays)
    expected = np.array([[np.linalg.norm(a - b) for b in g] for a in g])
    np.testing.assert_allclose(all_rows(signals, 0.0), expected, rtol=1e-11, atol=0)
    assert (all_rows(signals, 0.1) - expected)[~np.eye(30, dtype=bool)].min() > 1e-6


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [0, -1, 16, 1000])
def test_impossible_number_of_dimensions_is_refused(K: int) -> None:
    with pytest.raises(UserError, match="K"):
        LossCurvatureDistance(random_signals(10, 4, 3), 0.1, K)


def test_all_dimensions_may_be_asked_for() -> None:
    assert np.array_equal(all_rows(random_signals(10, 4, 3), 0.1, 15), all_rows(random_signals(10, 4, 3), 0.1))


@pytest.mark.parametrize("rho", [-1e-9, -1.0, float("-inf"), float("nan"), float("inf")])
def test_impossible_rho_is_refused(rho: float) -> None:
    with pytest.raises(UserError, match="rho"):
        LossCurvatureDistance(random_signals(10, 4, 3), rho)
