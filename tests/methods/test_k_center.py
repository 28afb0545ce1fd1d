"""kCenterGreedy, ContextualDiversity and Herding, replayed pick by pick with every distance formed the plain way."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.datasets import load_digits

from lcmat import Signals, Subset, UserError
from methods import select
from tests import oracles

# Small fractions of small classes round to nothing, which the library says.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
SEEDS = pytest.mark.parametrize("seed", range(4))


def random_signals(seed: int, n: int = 80, d: int = 5, C: int = 4) -> Signals:
    """Random signals in classes of unequal sizes, none empty, in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(C), rng.choice(C, n - C, p=rng.dirichlet(np.full(C, 2.0)))]))
    return Signals(features=rng.normal(size=(n, d)), logits=2 * rng.normal(size=(n, C)), labels=labels)


@pytest.fixture(scope="module")
def real() -> Signals:
    """Scikit-learn's digits: pixels as features, under a random last layer."""
    pixels, labels = load_digits(return_X_y=True)
    features = pixels / 16
    return Signals(features=features, logits=features @ np.random.default_rng(0).normal(size=(64, 10)), labels=labels)


def by_group(subset: Subset, labels: np.ndarray, fraction: float, balanced: bool) -> list[tuple[np.ndarray, list[int]]]:
    """Each group's members and the picks from it as positions among them, as many as the fraction asks for."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if balanced else [np.arange(len(labels))]
    found, start = [], 0
    for members in groups:
        picks = subset.indices[start : start + oracles.class_budget(len(members), fraction)]
        assert np.isin(picks, members).all()
        assert len(set(picks.tolist())) == oracles.class_budget(len(members), fraction)
        found.append((members, np.searchsorted(members, picks).tolist()))
        start += len(picks)
    assert start == len(subset)
    return found


def farthest_first(D: np.ndarray, first: int, budget: int) -> list[int]:
    """Farthest-first traversal from a given start, all distances to the chosen looked at anew before each pick."""
    picks = [first]
    while len(picks) < budget:
        picks.append(max((i for i in range(len(D)) if i not in picks), key=lambda i: min(D[i, j] for j in picks)))
    return picks


def check_farthest_first(D: np.ndarray, picks: Sequence[int], tie: float) -> None:
    """Assert that every pick but the first is as far from the earlier ones as any sample is, up to `tie`."""
    for step in range(1, len(picks)):
        nearest = D[:, picks[:step]].min(axis=1)
        nearest[picks[:step]] = -np.inf
        assert nearest[picks[step]] >= nearest.max() - tie


def radius(D: np.ndarray, picks: Sequence[int]) -> float:
    """How far the farthest sample is from the nearest pick."""
    return float(D[:, list(picks)].min(axis=1).max())


# ---- kCenterGreedy --------------------------------------------------------------------------------------------------


@BALANCED
@SEEDS
def test_k_center_of_random_problems(seed: int, balanced: bool) -> None:
    signals = random_signals(seed)
    features, labels = signals.features.numpy(), signals.labels.numpy()
    # Features alone: nothing else may be read.
    subset = select(
        Signals(features=features, labels=labels), "kCenterGreedy", fraction=0.4, balanced=balanced, seed=seed
    )
    for members, picks in by_group(subset, labels, 0.4, balanced):
        D = cdist(features[members], features[members])
        assert picks == farthest_first(D, picks[0], len(picks))


@BALANCED
def test_k_center_of_digits(real: Signals, balanced: bool) -> None:
    """Distances of pixels are roots of whole numbers and tie often; as multiples of 1/16 they are exact to one ulp."""
    fraction = 0.1 if balanced else 0.02
    subset = select(real, "kCenterGreedy", fraction=fraction, balanced=balanced)
    features = real.features.numpy()
    for members, picks in by_group(subset, real.labels.numpy(), fraction, balanced):
        check_farthest_first(cdist(features[members], features[members]), picks, tie=1e-14)


@pytest.mark.parametrize("n", [4, 6, 9])
@SEEDS
def test_k_center_radius_is_at_most_twice_the_smallest(n: int, seed: int) -> None:
    """In three tight clusters, where the smallest radius drops a hundredfold with the third centre."""
    rng = np.random.default_rng(seed)
    features = 100 * rng.normal(size=(3, 2))[np.arange(n) % 3] + rng.normal(size=(n, 2))
    D = cdist(features, features)
    for budget in range(1, n):
        subset = select(
            Signals(features=features, labels=np.zeros(n, dtype=np.int64)), "kCenterGreedy", budget=budget, seed=seed
        )
        best = min(radius(D, centres) for centres in combinations(range(n), budget))
        assert radius(D, subset.indices.tolist()) <= 2 * best


@pytest.mark.parametrize("name", ["kCenterGreedy", "ContextualDiversity"])
def test_start_is_random(name: str) -> None:
    """The start differs between classes and seeds, is the same for one seed, and is any sample equally often."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 40)
    signals = Signals(features=rng.normal(size=(320, 3)), logits=rng.normal(size=(320, 8)), labels=labels)
    starts = [select(signals, name, budget=8, seed=seed).indices % 40 for seed in range(100)]
    assert np.array_equal(starts[5], select(signals, name, budget=8, seed=5).indices % 40)
    assert all(len(set(start.tolist())) > 2 for start in starts)
    assert len({tuple(start.tolist()) for start in starts}) == 100
    # 800 starts over 40 positions: 20 each, with a standard deviation of 4.4.
    often = np.bincount(np.concatenate(starts), minlength=40)
    assert often.min() > 0
    assert often.max() < 20 + 5 * 4.5


def test_k_center_of_duplicates() -> None:
    """Where only two samples differ, both are taken first, then the rest, each once."""
    features = np.repeat([[0.1, 0.7], [0.3, 0.2]], 5, axis=0)
    for seed in range(5):
        picks = select(
            Signals(features=features, labels=np.zeros(10, dtype=np.int64)), "kCenterGreedy", fraction=1.0, seed=seed
        ).indices
        assert {int(picks[0]) // 5, int(picks[1]) // 5} == {0, 1}
        assert sorted(picks.tolist()) == list(range(10))


# ---- ContextualDiversity --------------------------------------------------------------------------------------------


def divergences(logits: np.ndarray, epsilon: float = 1e-10) -> np.ndarray:
    """½ KL(p‖q) + ½ KL(q‖p) between all pairs, p at least epsilon, term by term."""
    p = np.maximum(softmax(logits, axis=1), epsilon)
    n = len(p)
    kl = np.array([[np.sum(p[i] * (np.log(p[i]) - np.log(p[j]))) for j in range(n)] for i in range(n)])
    return (kl + kl.T) / 2


def test_divergences_are_those_of_scipy() -> None:
    """Of the oracle above: SciPy's entropy normalises what was clamped, which is why it does not serve everywhere."""
    logits = random_signals(0, n=20).logits.numpy()
    p = softmax(logits, axis=1)
    expected = [[(entropy(one, other) + entropy(other, one)) / 2 for other in p] for one in p]
    # Sums of four terms of size ten at most.
    assert divergences(logits) == pytest.approx(np.array(expected), rel=0, abs=1e-13)


@BALANCED
@SEEDS
def test_contextual_diversity_of_random_problems(seed: int, balanced: bool) -> None:
    signals = random_signals(seed)
    logits, labels = signals.logits.numpy(), signals.labels.numpy()
    # Logits alone: nothing else may be read.
    subset = select(
        Signals(logits=logits, labels=labels), "ContextualDiversity", fraction=0.4, balanced=balanced, seed=seed
    )
    for members, picks in by_group(subset, labels, 0.4, balanced):
        assert picks == farthest_first(divergences(logits[members]), picks[0], len(picks))


def test_contextual_diversity_of_digits(real: Signals) -> None:
    subset = select(real, "ContextualDiversity", fraction=0.1)
    logits = real.logits.numpy()
    for members, picks in by_group(subset, real.labels.numpy(), 0.1, True):
        # Ten terms of size ten at most.
        check_farthest_first(divergences(logits[members]), picks, tie=1e-13)


@pytest.mark.parametrize("epsilon", [1e-10, 1e-4, 0.05])
@SEEDS
def test_contextual_diversity_counts_small_probabilities_as_epsilon(epsilon: float, seed: int) -> None:
    """Logits that leave many probabilities below each epsilon, some of them at exactly 0."""
    rng = np.random.default_rng(seed)
    logits = 20 * rng.normal(size=(40, 5)) * rng.choice([1, 100], size=(40, 1))
    assert (softmax(logits, axis=1) == 0).any()
    signals = Signals(logits=logits, labels=np.zeros(40, dtype=np.int64))
    options = {} if epsilon == 1e-10 else {"epsilon": epsilon}
    picks = select(signals, "ContextualDiversity", fraction=0.5, seed=seed, **options).indices.tolist()
    assert len(set(picks)) == 20
    # Five terms of size 23 at most.
    check_farthest_first(divergences(logits, epsilon), picks, tie=1e-13)


def test_contextual_diversity_of_predictions_that_are_exactly_one() -> None:
    """Each class predicted with certainty by three samples: one of each is taken before any second."""
    predicted = np.random.default_rng(1).permutation(np.repeat(np.arange(4), 3))
    signals = Signals(logits=1e4 * np.eye(4)[predicted], labels=np.zeros(12, dtype=np.int64))
    for seed in range(5):
        picks = select(signals, "ContextualDiversity", fraction=1.0, seed=seed).indices
        assert set(predicted[picks[:4]].tolist()) == {0, 1, 2, 3}
        assert sorted(picks.tolist()) == list(range(12))


# ---- Herding --------------------------------------------------------------------------------------------------------


def shortfalls(h: np.ndarray, picks: Sequence[int]) -> np.ndarray:
    """‖(t + 1)μ − Σ chosen − h_x‖ of each x, infinite for those chosen."""
    chosen = h[list(picks)].sum(axis=0)
    values = np.linalg.norm((len(picks) + 1) * h.mean(axis=0) - chosen - h, axis=1)
    values[list(picks)] = np.inf
    return values


@BALANCED
@SEEDS
def test_herding_of_random_problems(seed: int, balanced: bool) -> None:
    signals = random_signals(seed)
    # Off the origin, where the mean that is followed is not near zero.
    features, labels = signals.features.numpy() + np.arange(5), signals.labels.numpy()
    subset = select(Signals(features=features, labels=labels), "Herding", fraction=0.5, balanced=balanced)
    for members, picks in by_group(subset, labels, 0.5, balanced):
        expected: list[int] = []
        for _ in picks:
            values = shortfalls(features[members], expected)
            assert np.diff(np.sort(values)[:2]).max(initial=np.inf) > 1e-10, "the data has ties"
            expected.append(int(values.argmin()))
        assert picks == expected


@BALANCED
def test_herding_of_digits(real: Signals, balanced: bool) -> None:
    fraction = 0.1 if balanced else 0.02
    subset = select(real, "Herding", fraction=fraction, balanced=balanced)
    features = real.features.numpy()
    for members, picks in by_group(subset, real.labels.numpy(), fraction, balanced):
        h = features[members]
        for step, pick in enumerate(picks):
            values = shortfalls(h, picks[:step])
            # Distances of size one from sums of up to 200 features of size ten.
            assert values[pick] <= values.min() + 1e-11


def test_herding_follows_the_mean() -> None:
    """The mean of the chosen approaches that of all much faster than a random sample's, which needs no oracle."""
    h = np.random.default_rng(0).normal(size=(400, 3))
    picks = select(Signals(features=h, labels=np.zeros(400, dtype=np.int64)), "Herding", budget=40).indices
    # A random sample of 40 is off by sqrt(3 / 40) = 0.27.
    assert np.linalg.norm(h[picks].mean(axis=0) - h.mean(axis=0)) < 0.02


# ---- what all share -------------------------------------------------------------------------------------------------

NAMES = pytest.mark.parametrize("name", ["kCenterGreedy", "ContextualDiversity", "Herding"])


@NAMES
def test_all_samples_and_single_samples(name: str) -> None:
    signals = random_signals(7, n=30)
    assert sorted(select(signals, name, fraction=1.0).indices.tolist()) == list(range(30))
    alone = Signals(features=np.ones((2, 3)), logits=np.ones((2, 2)), labels=[1, 0])
    assert select(alone, name, fraction=1.0).indices.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "missing"),
    [("kCenterGreedy", "features"), ("ContextualDiversity", "logits"), ("Herding", "features")],
)
def test_missing_signals_are_named(name: str, missing: str) -> None:
    with pytest.raises(UserError, match=missing):
        select(Signals(labels=np.repeat([0, 1], 5)), name, fraction=0.5)


@pytest.mark.parametrize("epsilon", [0, -1e-3, 1, float("nan")])
def test_bad_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(UserError, match="epsilon"):
        select(random_signals(0), "ContextualDiversity", fraction=0.5, epsilon=epsilon)
