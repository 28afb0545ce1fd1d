"""DUAL, Dyn-Unc, TDDS, EVA, and CCS over other scores, against their definitions in plain Python and SciPy."""

import itertools
import math
import statistics
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from lcmat import Signals, Subset, UserError
from methods import get, select
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
SIZES = (31, 17, 9)


def signals(epochs: int, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> Signals:
    """Random dynamics, in classes in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    shape = (epochs, len(labels))
    dynamics = {
        "correctness": rng.random(shape) < 0.6,
        "probability_margin": rng.uniform(-1, 1, shape),
        "error_norm": rng.random(shape),
        "loss": rng.exponential(size=shape),
        "change": np.concatenate([np.zeros((1, len(labels))), rng.exponential(size=(epochs - 1, len(labels)))]),
    }
    logits = rng.normal(size=(2, len(labels), 3))
    several = [Signals(logits=one, labels=labels) for one in logits]
    return Signals(labels=labels, dynamics=dynamics, initialisations=several)


def windows(rows: list[float], size: int) -> list[list[float]]:
    """All runs of so many; the whole if there are fewer."""
    size = min(size, len(rows))
    return [rows[k : k + size] for k in range(len(rows) - size + 1)]


def of_sample(given: Signals, name: str, i: int) -> list[float]:
    """What the dynamics say of one sample."""
    return given.dynamics[name][:, i].tolist()


def dyn_unc(given: Signals, i: int, window: int) -> float:
    """The mean over windows of the deviation of p_y."""
    p = [math.exp(-loss) for loss in of_sample(given, "loss", i)]
    return statistics.fmean(statistics.pstdev(one) for one in windows(p, window))


def dual(given: Signals, i: int, window: int, epochs: int) -> float:
    """The mean over early windows of the deviation of p_y times its mean distance from 1."""
    p = [math.exp(-loss) for loss in of_sample(given, "loss", i)][:epochs]
    return statistics.fmean(statistics.pstdev(one) * (1 - statistics.fmean(one)) for one in windows(p, window))


def tdds(given: Signals, i: int, epochs: int, window: int) -> float:
    """The weighted sum over windows of the norm of what K_t differs from its mean; each has a K_t less than epochs."""
    change = of_sample(given, "change", i)[:epochs]
    total = 0.0
    for k in range(epochs - window + 1):
        part = change[k + 1 : k + window]
        norm = math.sqrt(sum((value - statistics.fmean(part)) ** 2 for value in part))
        total += 0.9 * (1 - 0.9) ** (epochs - window - k) * norm
    return total


def eva(given: Signals, i: int, window: int) -> float:
    """The variance in the first epochs plus that in the last."""
    error = of_sample(given, "error_norm", i)
    return statistics.pvariance(error[:window]) + statistics.pvariance(error[-window:])


def groups(given: Signals, balanced: bool) -> list[list[int]]:
    """The samples of each class, or all."""
    labels = given.labels.tolist()
    return [[i for i, y in enumerate(labels) if y == c] for c in range(3)] if balanced else [list(range(len(labels)))]


def best(members: list[int], scores: dict[int, float], count: int) -> list[int]:
    """The highest scores, highest first."""
    return sorted(members, key=lambda i: -scores[i])[:count]


SCORES = {
    "Dyn-Unc": (12, {"window": 5}, lambda s, i: dyn_unc(s, i, 5)),
    "Dyn-Unc, few epochs": (4, {}, lambda s, i: dyn_unc(s, i, 10)),
    "DUAL": (12, {"window": 4, "epochs": 9, "sampling": False}, lambda s, i: dual(s, i, 4, 9)),
    "DUAL, defaults": (40, {"sampling": False}, lambda s, i: dual(s, i, 10, 30)),
    "TDDS": (12, {"epochs": 9, "window": 4}, lambda s, i: tdds(s, i, 9, 4)),
    "TDDS, defaults": (12, {}, lambda s, i: tdds(s, i, 12, 12)),  # 70% removed: 60 epochs and 20, but for 12
    "EVA": (12, {"window": 3}, lambda s, i: eva(s, i, 3)),
    "EVA, few epochs": (6, {}, lambda s, i: eva(s, i, 3)),
}


@BALANCED
@pytest.mark.parametrize("case", SCORES)
def test_the_highest_scores_are_chosen(case: str, balanced: bool) -> None:
    """In their order, class by class."""
    epochs, options, score = SCORES[case]
    given = signals(epochs)
    subset = select(given, case.partition(",")[0], fraction=0.3, balanced=balanced, **options)
    scores = {i: score(given, i) for i in range(len(given))}
    expected = [best(m, scores, max(1, round(0.3 * len(m)))) for m in groups(given, balanced)]
    assert subset.indices.tolist() == list(itertools.chain(*expected))


@pytest.mark.parametrize(
    ("kept", "epochs", "window"), [(0.7, 90, 10), (0.5, 70, 10), (0.3, 60, 20), (0.2, 20, 10), (0.1, 10, 5)]
)
def test_tdds_takes_the_epochs_and_window_of_its_paper(kept: float, epochs: int, window: int) -> None:
    """By how much is removed."""
    given = signals(100)
    subset = select(given, "TDDS", fraction=kept, balanced=False)
    scores = {i: tdds(given, i, epochs, window) for i in range(len(given))}
    assert subset.indices.tolist() == best(list(range(len(given))), scores, len(subset))


def test_dual_draws_by_its_scores_and_a_beta_distribution() -> None:
    """How often each ordered pair comes is what successive draws by the weights make it: a chi-squared test."""
    given, draws = signals(12, (5,), seed=3), 1500
    p = np.exp(-given.dynamics["loss"].numpy())
    scores = [dual(given, i, 10, 30) for i in range(5)]
    removed, centre = 1 - 2 / 5, p.mean(0)
    b = 15 * (1 - centre.mean()) * (1 - removed**4)  # five samples: all are among the ten highest
    weights = np.array(scores) * stats.beta.pdf(centre, 16 - b, b)
    weights /= weights.sum()
    pairs = list(itertools.permutations(range(5), 2))
    expected = np.array([weights[i] * weights[j] / (1 - weights[i]) for i, j in pairs])
    seen = Counter(tuple(select(given, "DUAL", budget=2, seed=seed).indices.tolist()) for seed in range(draws))
    found = np.array([seen[pair] for pair in pairs])
    often = expected * draws >= 5
    assert often.sum() > 3
    rest = [] if often.all() else [(found[~often].sum(), draws * expected[~often].sum())]
    table = [*zip(found[often], draws * expected[often], strict=True), *rest]
    result = stats.chisquare([seen for seen, _ in table], [wanted for _, wanted in table])
    assert result.pvalue > 1e-3
    wrong = np.full(len(pairs), draws / len(pairs))
    assert stats.chisquare(found, wrong).pvalue < 1e-6  # the test sees a difference


def test_dual_prefers_the_easy_when_much_is_removed() -> None:
    """The more is removed, the higher the mean p_y of what is drawn."""
    given = signals(12, (400,), seed=1)
    p = torch.exp(-given.dynamics["loss"]).mean(0).numpy()
    means = []
    for fraction in (0.02, 0.5):
        picked = [p[select(given, "DUAL", fraction=fraction, seed=seed).indices].mean() for seed in range(10)]
        means.append(statistics.fmean(picked))
    assert means[0] > means[1] + 0.05


def hardness(given: Signals, score: str) -> list[float]:
    """High is hard."""
    n = len(given)
    if score == "AUM":
        return [-statistics.fmean(of_sample(given, "probability_margin", i)) for i in range(n)]
    if score == "DUAL":
        return [dual(given, i, 10, 30) for i in range(n)]
    if score == "EL2N":
        norms = []
        for one in given.initialisations:
            z = one.logits.numpy()
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            norms.append(np.linalg.norm(p - np.eye(3)[one.labels.numpy()], axis=1))
        return np.mean(norms, axis=0).tolist()
    counts = []
    for i in range(n):
        right = of_sample(given, "correctness", i)
        forgotten = sum(a and not b for a, b in itertools.pairwise(right))
        counts.append(float(forgotten if any(right) else len(right)))
    return counts


def check_ccs(given: Signals, subset: Subset, score: str) -> None:
    """Assert that the hardest 30% are left out, and that bins of equal width of the rest give equally many."""
    hard = np.array(hardness(given, score))
    order = sorted(range(len(given)), key=lambda i: (-hard[i], i))
    kept = np.array(order[int(0.3 * len(given)) :])
    assert set(subset.indices.tolist()) <= set(kept.tolist())
    low, high = hard[kept].min(), hard[kept].max()
    # Bins run from easy to hard here: an edge belongs to the easier one.
    bins = {int(i): min(3, int((high - hard[i]) / (high - low) * 4)) for i in kept}
    sizes, taken = Counter(bins.values()), Counter(bins[i] for i in subset.indices.tolist())
    left, wanted = len(subset), {}
    for number, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: (item[1], -item[0]))):
        wanted[name] = min(size, left // (len(sizes) - number))
        left -= wanted[name]
    assert sorted(taken.values()) == sorted(filter(None, wanted.values()))


@pytest.mark.parametrize("score", ["AUM", "EL2N", "Forgetting", "DUAL"])
def test_ccs_over_any_score(score: str) -> None:
    """Evenly over the range of difficulty, without the hardest."""
    given = signals(12)
    subset = select(given, "CCS", fraction=0.2, balanced=False, score=score, bins=4)
    check_ccs(given, subset, score)


def test_ccs_and_d2_need_what_their_score_is_computed_from() -> None:
    """And nothing else."""
    needs = {"AUM": "dynamics.probability_margin", "DUAL": "dynamics.loss", "EL2N": "initialisations.logits"}
    for score, need in needs.items():
        assert get("CCS").under({"score": score}).needs == (need,)
        assert get("D2").under({"score": score}).needs == ("features", need)
    assert get("CCS").under({"score": "forgetting"}).needs == ("dynamics.correctness",)


def test_configurations_of_ccs_are_those_from_before_there_were_other_scores() -> None:
    """The margin is part of them only where it is read."""
    assert get("CCS").recorded(3, 5, {}) == {"beta": 0.3, "bins": 50, "margin": "probability"}
    assert get("CCS").recorded(3, 5, {"margin": "logit"}) == {"beta": 0.3, "bins": 50}
    assert get("CCS").recorded(3, 5, {"score": "el2n"}) == {"beta": 0.3, "bins": 50, "score": "EL2N"}


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("Dyn-Unc", {"window": 0}, "window"),
        ("DUAL", {"epochs": 0}, "epochs"),
        ("DUAL", {"power": 0.0}, "power"),
        ("TDDS", {"window": 1}, "window"),
        ("TDDS", {"newest": 0.0}, "newest"),
        ("EVA", {"window": 0}, "window"),
        ("CCS", {"score": "AUMM"}, "did you mean AUM"),
        ("D2", {"score": "x"}, "score"),
    ],
)
def test_impossible_options_are_refused(method: str, options: dict[str, object], match: str) -> None:
    """By a line that names them."""
    with pytest.raises(UserError, match=match):
        select(signals(12), method, fraction=0.3, **options)


def test_what_is_no_cross_entropy_is_refused() -> None:
    """A negative loss would be a probability above 1."""
    given = signals(12)
    given.dynamics["loss"][2, 3] = -0.1
    with pytest.raises(UserError, match="cross-entropies"):
        select(given, "DUAL", fraction=0.3)
