"""Selection problems that several tests share: random ones, real ones, and ones of nearly sure predictions."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lcmat import Signals, Subset
from tests import oracles

BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
HEAD = pytest.mark.parametrize("trained", [True, False], ids=["trained head", "random head"])

GAPS = pytest.mark.parametrize(
    ("low", "high"), [(0, 30), (30, 60), (100, 110), (300, 350), (360, 420), (380, 700)], ids=lambda x: f"{x}"
)


@dataclass(frozen=True)
class Problem:
    """Arrays of signals, and the selection problems that they pose."""

    features: np.ndarray
    logits: np.ndarray
    labels: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, logits, labels."""
        return self.features, self.logits, self.labels

    @property
    def signals(self) -> Signals:
        """The same as the library takes them."""
        return Signals(features=self.features, logits=self.logits, labels=self.labels)

    def parts(self, rho: float = 0.1, K: int | None = None, balanced: bool = True) -> list[oracles.Part]:
        """The same as the oracle takes them."""
        return oracles.parts(*self.arrays, rho=rho, K=K, balanced=balanced)

    def budgets(self, fraction: float, balanced: bool = True) -> list[int]:
        """How many samples of each class (unbalanced: of all) a fraction asks for."""
        sizes = np.unique(self.labels, return_counts=True)[1] if balanced else [len(self.labels)]
        return [oracles.class_budget(int(size), fraction) for size in sizes]

    def take(self, index: np.ndarray) -> "Problem":
        """The samples in `index`, in that order."""
        return Problem(*(array[index] for array in self.arrays))


def random_problem(
    seed: int, n: int = 60, d: int = 5, C: int = 3, scale: float = 1.0, duplicates: bool = False
) -> Problem:
    """Random signals in classes of unequal sizes, none empty; with duplicates only n / 3 of them differ."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(C, 2.0))
    labels = np.concatenate([np.arange(C), rng.choice(C, n - C, p=shares)])
    problem = Problem(rng.normal(size=(n, d)), scale * rng.normal(size=(n, C)), labels)
    if duplicates:
        problem = problem.take(np.concatenate([np.arange(C), rng.integers(0, max(C, n // 3), n - C)]))
    return problem.take(rng.permutation(n))


@functools.cache
def digits(trained: bool, n: int = 1797) -> Problem:
    """Scikit-learn's digits: pixels as features, under a fitted or a random last layer."""
    pixels, labels = load_digits(return_X_y=True)
    features = pixels / 16
    if trained:
        logits = LogisticRegression(max_iter=300, tol=1e-3).fit(features, labels).decision_function(features)
    else:
        rng = np.random.default_rng(0)
        logits = features @ rng.normal(size=(64, 10)) / 4 + rng.normal(size=10)
    return Problem(features[:n], logits[:n], labels[:n])


def groups_of(labels: np.ndarray, balanced: bool) -> list[np.ndarray]:
    """The samples' numbers, class by class or all at once."""
    return [np.flatnonzero(labels == c) for c in np.unique(labels)] if balanced else [np.arange(len(labels))]


def sure(low: float, high: float, wrong: bool, n: int = 30) -> Problem:
    """Two classes of samples whose label, or every fifth time another class, leads by gaps between the two given."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], n // 2)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), (labels + (np.arange(n) % 5 == 4) * wrong) % 3] = rng.uniform(low, high, n)
    return Problem(rng.normal(size=(n, 4)), logits, labels)


SIZES = {
    "unequal": [50, 30, 20, 7],
    "very unequal": [100, 3, 1],
    "one each": [1, 1, 1, 1],
    "one class": [40],
    "labels skipped": [0, 12, 0, 5, 0],
}


def with_sizes(sizes: list[int], seed: int = 0) -> Problem:
    """A random problem with so many samples in each class (0: a label that nobody has)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = len(labels)
    return Problem(rng.normal(size=(n, 4)), rng.normal(size=(n, len(sizes))), labels)


def same(one: Subset, other: Subset, only: tuple[str, ...] = ()) -> bool:
    """Whether two subsets agree in every field, or in some."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in only or Subset.__dataclass_fields__]
    return all((a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in pairs)


def equal(one: Subset, other: Subset) -> bool:
    """Whether two subsets agree in all that was picked; a prefix has no bound of its own."""
    return same(one, other, ("indices", "rank", "weights", "classes", "class_sizes", "costs"))


def check_form(subset: Subset, problem: Problem, balanced: bool) -> None:
    """Assert what holds of every subset."""
    for name in ("indices", "rank", "classes", "class_sizes"):
        assert getattr(subset, name).dtype == np.int64, name
    count = len(subset)
    assert subset.indices.shape == subset.rank.shape == subset.classes.shape == (count,)
    assert len(set(subset.indices.tolist())) == count, "a sample was picked twice"
    assert 0 <= subset.indices.min() <= subset.indices.max() < len(problem.labels)
    assert np.array_equal(subset.classes, problem.labels[subset.indices])
    assert np.array_equal(subset.class_sizes, np.bincount(problem.labels, minlength=problem.logits.shape[1]))
    if balanced:
        assert (np.diff(subset.classes) >= 0).all()
        counts = np.unique(subset.classes, return_counts=True)[1]
        assert subset.rank.tolist() == [k for c in counts for k in range(c)]
    else:
        assert subset.rank.tolist() == list(range(count))
    if subset.weights is not None:
        assert subset.weights.dtype == np.float32
        assert subset.weights.shape == (count,)
        assert np.isfinite(subset.weights).all()
        assert (subset.weights > 0).all()
    if subset.costs is not None:
        assert subset.costs.shape == (count,)
        assert np.isfinite(subset.costs).all()
