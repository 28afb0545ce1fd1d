"""D2 and ZCore against their definitions in plain Python, NumPy and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lcmat import Signals, seeds
from methods import select
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])


def signals(sizes: tuple[int, ...] = (24, 15, 7), seed: int = 0, scale: float = 0.7) -> Signals:
    """Random features and margins, in classes in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    dynamics = {
        "correctness": rng.random((9, len(labels))) < 0.5,
        "probability_margin": rng.uniform(-1, 1, size=(9, len(labels))),
    }
    return Signals(features=scale * rng.normal(size=(len(labels), 3)), labels=labels, dynamics=dynamics)


def groups(given: Signals, balanced: bool) -> list[list[int]]:
    """The samples of each class, or all."""
    labels = given.labels.tolist()
    classes = [[i for i, y in enumerate(labels) if y == c] for c in sorted(set(labels))]
    return classes if balanced else [list(range(len(labels)))]


def d2(h: np.ndarray, hard: list[float], budget: int, k: int, gamma: float, beta: float) -> list[int]:
    """Section 3 of the paper, one sample after the other."""
    cut = min(int(beta * len(h) + 1e-9), len(h) - budget)
    kept = sorted(sorted(range(len(h)), key=lambda i: -hard[i])[cut:])
    squared = {(i, j): math.dist(h[i], h[j]) ** 2 for i in kept for j in kept if i != j}
    near = {i: sorted((j for j in kept if j != i), key=lambda j: squared[i, j])[:k] for i in kept}
    lowest = min(hard[i] for i in kept)
    first = {i: hard[i] - lowest for i in kept}
    score = {i: first[i] + sum(math.exp(-squared[i, j]) * first[j] for j in near[i]) for i in kept}
    chosen = []
    for _ in range(budget):
        best = max((i for i in kept if i not in chosen), key=score.__getitem__)
        chosen.append(best)
        for j in near[best]:
            score[j] -= math.exp(-gamma * squared[best, j]) * score[best]
    return chosen


@BALANCED
@pytest.mark.parametrize(
    ("k", "gamma", "beta", "fraction"), [(5, 0.1, 0.3, 0.3), (3, 1.0, 0.0, 0.5), (9, 0.1, 0.6, 0.7)]
)
def test_d2_as_its_paper_says(k: int, gamma: float, beta: float, fraction: float, balanced: bool) -> None:
    """Over the area under the margin, which has no ties."""
    given = signals()
    options = {"score": "AUM", "neighbours": k, "gamma": gamma, "beta": beta}
    subset = select(given, "D2", fraction=fraction, balanced=balanced, **options)
    hard, expected = (-given.dynamics["probability_margin"].mean(0)).tolist(), []
    for members in groups(given, balanced):
        budget = max(1, round(fraction * len(members)))
        picks = d2(given.features[members].numpy(), [hard[i] for i in members], budget, k, gamma, beta)
        expected += [members[i] for i in picks]
    assert subset.indices.tolist() == expected


def test_d2_breaks_ties_of_counts_at_random() -> None:
    """Each seed draws another order of what is forgotten equally often."""
    given = signals((60,), scale=100.0)  # far apart: no messages
    picks = [select(given, "D2", budget=10, seed=seed, beta=0.0).indices.tolist() for seed in range(3)]
    assert len({tuple(sorted(one)) for one in picks}) == 3
    right = given.dynamics["correctness"].numpy()
    count = (right[:-1] & ~right[1:]).sum(0)
    for one in picks:
        assert sorted(count[one].tolist()) == sorted(count.tolist())[-10:]


def test_d2_takes_one_of_each_cluster_first() -> None:
    """Of equally hard samples, those beside a chosen one come late."""
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    h = np.repeat(centres, 6, axis=0) + 0.01 * np.random.default_rng(0).normal(size=(18, 2))
    margin = np.zeros((1, 18))
    margin[0, ::6] = -1e-3  # the lowest score counts as nothing, so not all may be alike
    given = Signals(features=h, labels=np.zeros(18, dtype=int), dynamics={"probability_margin": margin})
    subset = select(given, "D2", budget=3, score="AUM", beta=0.0)
    assert sorted(subset.indices // 6) == [0, 1, 2]


def zcore(h: np.ndarray, rounds: int, k: int, draw: torch.Generator) -> np.ndarray:
    """Algorithm 1 with the same random numbers: sample after sample, quantiles by SciPy."""
    n, width = h.shape
    scores = np.zeros(n)
    left = rounds * n
    while left > 0:
        size = min(256, left)
        order = torch.rand(size, width, generator=draw, dtype=torch.float64).argsort(1).numpy()
        where = torch.rand(size, min(2, width), generator=draw, dtype=torch.float64).numpy()
        left -= size
        for dims, u in zip(order[:, :2], where, strict=True):
            x = h[:, dims]
            low, high = x.min(0), x.max(0)
            middle = np.sort(x, axis=0)[(n - 1) // 2]
            point = stats.triang.ppf(u, (middle - low) / (high - low), low, high - low)
            nearest = int(np.abs(x - point).sum(1).argmin())
            scores[nearest] += 1
            distance = {j: float(np.abs(x[j] - x[nearest]).sum()) for j in range(n) if j != nearest}
            near = sorted(distance, key=distance.__getitem__)[:k]
            total = sum(distance[j] ** -4 for j in near)
            for j in near:
                scores[j] -= distance[j] ** -4 / total
    return scores


@BALANCED
@pytest.mark.parametrize("k", [1000, 4])
def test_zcore_as_its_paper_says(k: int, balanced: bool) -> None:
    """With the same draws, in the same order."""
    given = signals()
    subset = select(given, "ZCore", fraction=0.4, balanced=balanced, seed=2, neighbours=k)
    expected = []
    for number, members in enumerate(groups(given, balanced)):
        scores = zcore(given.features[members].numpy(), 10, k, seeds.generator(2, "select", number))
        order = sorted(range(len(members)), key=lambda i: -scores[i])
        expected += [members[i] for i in order[: max(1, round(0.4 * len(members)))]]
    assert subset.indices.tolist() == expected


def test_zcore_leaves_repetitions_out() -> None:
    """Of copies of one sample, one is as good as all."""
    rng = np.random.default_rng(0)
    h = np.concatenate([np.zeros((20, 2)), rng.uniform(-1, 1, size=(10, 2))])
    subset = select(Signals(features=h, labels=np.zeros(30, dtype=int)), "ZCore", budget=8)
    assert (subset.indices < 20).sum() <= 1


def test_zcore_reads_no_labels() -> None:
    """Over everything, other labels change nothing."""
    given = signals()
    other = Signals(features=given.features, labels=given.labels.flip(0))
    one, two = (select(s, "ZCore", fraction=0.3, balanced=False).indices.tolist() for s in (given, other))
    assert one == two
