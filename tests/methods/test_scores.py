"""Methods that rank by one score, and CCS, against their definitions in plain NumPy, SciPy, scikit-learn, autograd.

Uncertainty (LeastConfidence, Entropy, Margin), dynamics (Forgetting, CCS), early scores (GraNd, EL2N), CAL, Moderate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from lcmat import Signals, Subset, UserError
from methods import get, select
from tests import oracles
from tests.problems import Problem

# Small fractions of small classes round to nothing, which the library says.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
SEEDS = pytest.mark.parametrize("seed", range(4))
# What two ways to round a sum of a few dozen terms of size one may differ by; scores of random data lie further apart.
ROUNDING = 1e-12


def random_problem(seed: int, n: int = 90, d: int = 5, C: int = 4, scale: float = 2.0) -> Problem:
    """Random signals in classes of unequal sizes, none empty, in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.concatenate([np.arange(C), rng.choice(C, n - C, p=rng.dirichlet(np.full(C, 2.0)))]))
    return Problem(rng.normal(size=(n, d)), scale * rng.normal(size=(n, C)), labels)


@pytest.fixture(scope="module")
def real() -> Problem:
    """Scikit-learn's digits: pixels as features, a last layer after a few steps of fitting."""
    pixels, labels = load_digits(return_X_y=True)
    features = pixels / 16
    weight = np.zeros((64, 10))
    for _ in range(50):
        weight -= features.T @ (softmax(features @ weight, axis=1) - np.eye(10)[labels]) / len(labels)
    assert 0.85 < np.mean((features @ weight).argmax(axis=1) == labels) < 1
    return Problem(features, features @ weight, labels)


def groups(labels: np.ndarray, balanced: bool) -> list[np.ndarray]:
    """The samples of each class that has any, or all."""
    return [np.flatnonzero(labels == c) for c in np.unique(labels)] if balanced else [np.arange(len(labels))]


def by_group(subset: Subset, labels: np.ndarray, fraction: float, balanced: bool) -> list[tuple[np.ndarray, list[int]]]:
    """Each group's members and the picks from it, as many as the fraction asks for, each once."""
    found, start = [], 0
    for members in groups(labels, balanced):
        size = oracles.class_budget(len(members), fraction)
        picks = subset.indices[start : start + size].tolist()
        assert len(set(picks)) == size
        assert set(picks) <= set(members.tolist())
        found.append((members, picks))
        start += size
    assert start == len(subset)
    return found


def check_descending(
    picks: Sequence[int], members: np.ndarray, high: np.ndarray, low: np.ndarray | None = None, tie: float = ROUNDING
) -> None:
    """Assert that picks among members go by score, highest first, but for ties.

    A score that depends on which of several tied neighbours is taken lies anywhere between `low` and `high`.
    """
    low = high if low is None else low
    left = np.zeros(len(high), dtype=bool)
    left[members] = True
    for j in picks:
        best = low[left].max()
        assert high[j] >= best - tie * max(1.0, abs(best)), f"{j} scores {high[j]}, but one left out {best}"
        left[j] = False


def check_exact(
    subset: Subset, labels: np.ndarray, fraction: float, balanced: bool, score: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Assert that the picks are exactly those of highest score, in order; score(members) scores a group."""
    for members, picks in by_group(subset, labels, fraction, balanced):
        values = score(members)
        gaps = np.diff(np.sort(values))
        assert len(gaps) == 0 or gaps.min() > ROUNDING, "the data has ties"
        assert picks == members[np.argsort(-values)][: len(picks)].tolist()


# ---- uncertainty ----------------------------------------------------------------------------------------------------


def uncertainty(name: str, logits: np.ndarray) -> np.ndarray:
    """The score of Coleman et al. 2020, by its formula."""
    p = softmax(logits, axis=1)
    if name == "LeastConfidence":
        return 1 - p.max(axis=1)
    if name == "Entropy":
        return stats.entropy(p, axis=1)
    ordered = np.sort(p, axis=1)
    return 1 - (ordered[:, -1] - ordered[:, -2])


UNCERTAINTY = pytest.mark.parametrize("name", ["LeastConfidence", "Entropy", "Margin"])


@BALANCED
@SEEDS
@UNCERTAINTY
def test_uncertainty_of_random_problems(name: str, seed: int, balanced: bool) -> None:
    problem = random_problem(seed)
    # Logits alone: nothing else may be read.
    subset = select(Signals(logits=problem.logits, labels=problem.labels), name, fraction=0.5, balanced=balanced)
    check_exact(subset, problem.labels, 0.5, balanced, lambda m: uncertainty(name, problem.logits[m]))


@BALANCED
@UNCERTAINTY
def test_uncertainty_of_digits(real: Problem, name: str, balanced: bool) -> None:
    subset = select(real.signals, name, fraction=0.3, balanced=balanced)
    score = uncertainty(name, real.logits)
    for members, picks in by_group(subset, real.labels, 0.3, balanced):
        check_descending(picks, members, score)


def exact_uncertainty(name: str, row: np.ndarray) -> mpmath.mpf:
    """The same of one row, to 60 digits."""
    p, rest = oracles.exact_softmax(row)
    order = sorted(range(len(p)), key=lambda c: p[c])
    if name == "LeastConfidence":
        return rest[order[-1]]
    if name == "Margin":
        return rest[order[-1]] + p[order[-2]]
    with mpmath.workdps(60):
        return -mpmath.fsum(x * mpmath.log(x) for x in p)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@UNCERTAINTY
def test_uncertainty_of_very_confident_predictions(name: str, dtype: type) -> None:
    """1 − p from 1e-9 to 1e-130: beside one, most of these p are the same float64.

    The gaps are so dense that the third class, of a probability up to the second's, changes the order.
    """
    rng = np.random.default_rng(5)
    gap = rng.permutation(np.concatenate([np.linspace(20, 50, 150), np.linspace(51, 300, 10)]))
    n = len(gap)
    logits = np.stack([np.zeros(n), -gap, -gap - rng.exponential(1, n)], axis=1)
    for row in logits:
        rng.shuffle(row)
    logits = logits.astype(dtype)
    exact = [exact_uncertainty(name, row) for row in logits]
    expected = sorted(range(n), key=lambda i: -exact[i])
    assert expected != np.argsort(gap).tolist()
    subset = select(Signals(logits=logits, labels=np.zeros(n, dtype=np.int64)), name, fraction=1.0, balanced=False)
    assert subset.indices.tolist() == expected


@UNCERTAINTY
def test_uncertainty_of_predictions_that_are_exactly_one(name: str) -> None:
    """p of exactly 0 and 1 scores lowest, not NaN: NaN would be ranked first."""
    logits = np.array([[5e3, 0, -5e3], [1.0, 0.9, 0.8], [-5e3, 5e3, 0], [2.0, 0.0, -1.0]])
    subset = select(Signals(logits=logits, labels=np.zeros(4, dtype=np.int64)), name, fraction=0.5)
    assert subset.indices.tolist() == [1, 3]


def test_uncertainty_does_not_rank_by_logits() -> None:
    """The released code takes the largest logit for the confidence; a shift of all logits must change nothing."""
    problem = random_problem(9)
    shifted = problem.logits + 10 * np.random.default_rng(0).normal(size=(len(problem.labels), 1))
    for name in ("LeastConfidence", "Entropy", "Margin"):
        one, other = (select(Signals(logits=z, labels=problem.labels), name, fraction=0.4) for z in (
            problem.logits, shifted,
        ))  # fmt: skip
        assert one.indices.tolist() == other.indices.tolist()


# ---- Moderate -------------------------------------------------------------------------------------------------------


def off_median(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How far each sample's distance from the centre of its class is from the median of these distances."""
    distance = np.array(
        [
            np.linalg.norm(h - np.mean([g for g, z in zip(features, labels, strict=True) if z == y], axis=0))
            for h, y in zip(features, labels, strict=True)
        ]
    )
    return np.abs(distance - np.median(distance))


@BALANCED
@SEEDS
def test_moderate_of_random_problems(seed: int, balanced: bool) -> None:
    """In groups of even size the two middle samples are equally near to the median: not an exact comparison."""
    problem = random_problem(seed)
    subset = select(Signals(features=problem.features, labels=problem.labels), "Moderate", fraction=0.4,
                    balanced=balanced)  # fmt: skip
    for members, picks in by_group(subset, problem.labels, 0.4, balanced):
        score = np.full(len(problem.labels), -np.inf)
        score[members] = -off_median(problem.features[members], problem.labels[members])
        check_descending(picks, members, score)


def test_moderate_of_digits(real: Problem) -> None:
    subset = select(real.signals, "Moderate", fraction=0.2)
    for members, picks in by_group(subset, real.labels, 0.2, True):
        score = np.full(len(real.labels), -np.inf)
        score[members] = -off_median(real.features[members], real.labels[members])
        check_descending(picks, members, score)


def test_moderate_takes_neither_the_nearest_nor_the_farthest() -> None:
    """On a line around a centre at 0, at distances 1, 1, 2, 2, 3, 3, 9, 9: the median is 2.5."""
    line = np.array([1, -1, 2, -2, 3, -3, 9, -9], dtype=np.float64)[:, None]
    signals = Signals(features=line, labels=np.zeros(8, dtype=np.int64))
    assert sorted(select(signals, "Moderate", budget=4).indices.tolist()) == [2, 3, 4, 5]


# ---- CAL ------------------------------------------------------------------------------------------------------------


def disagreement(features: np.ndarray, logits: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """Mean KL(p_neighbour ‖ p_sample) over the nearest others (Margatina et al. 2021, Algorithm 1)."""
    count = min(neighbours, len(features) - 1)
    if count == 0:
        return np.zeros(1)
    nearest = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors(return_distance=False)
    p = softmax(logits, axis=1)
    return np.array([np.mean([stats.entropy(p[j], p[i]) for j in nearest[i]]) for i in range(len(p))])


@BALANCED
@SEEDS
def test_cal_of_random_problems(seed: int, balanced: bool) -> None:
    problem = random_problem(seed, n=200, C=3)
    assert min(map(len, groups(problem.labels, True))) > 11
    subset = select(problem.signals, "CAL", fraction=0.5, balanced=balanced)
    check_exact(subset, problem.labels, 0.5, balanced, lambda m: disagreement(problem.features[m], problem.logits[m]))


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_cal_with_other_numbers_of_neighbours(neighbours: int) -> None:
    problem = random_problem(11)
    subset = select(problem.signals, "CAL", fraction=1.0, balanced=False, neighbours=neighbours)
    check_exact(
        subset, problem.labels, 1.0, False, lambda m: disagreement(problem.features[m], problem.logits[m], neighbours)
    )


def test_cal_of_groups_smaller_than_eleven() -> None:
    """Classes of 11, 10, 5, 2 and 1 samples: as many neighbours as there are others."""
    labels = np.repeat(np.arange(5), [11, 10, 5, 2, 1])
    rng = np.random.default_rng(2)
    problem = Problem(rng.normal(size=(29, 3)), rng.normal(size=(29, 5)), labels)
    subset = select(problem.signals, "CAL", fraction=1.0)
    check_exact(subset, labels, 1.0, True, lambda m: disagreement(problem.features[m], problem.logits[m]))


def test_cal_does_not_count_a_sample_as_its_own_neighbour() -> None:
    """With equal features all others are as near as the sample itself, which would lower its score."""
    rng = np.random.default_rng(3)
    problem = Problem(np.ones((9, 2)), 3 * rng.normal(size=(9, 3)), np.zeros(9, dtype=np.int64))
    subset = select(problem.signals, "CAL", fraction=1.0)
    p = softmax(problem.logits, axis=1)
    score = [np.mean([stats.entropy(p[j], p[i]) for j in range(9) if j != i]) for i in range(9)]
    assert subset.indices.tolist() == np.argsort(score)[::-1].tolist()


def test_cal_of_digits(real: Problem) -> None:
    """Distances of pixels tie exactly: where the tenth neighbour is one of several, the score is a range."""
    subset = select(real.signals, "CAL", fraction=0.2)
    high, low = np.full((2, len(real.labels)), -np.inf)
    levels = np.rint(16 * real.features)
    p = softmax(real.logits, axis=1)
    for members in groups(real.labels, True):
        squared = ((levels[members, None] - levels[members]) ** 2).sum(axis=2)  # exact: whole numbers
        np.fill_diagonal(squared, np.inf)
        for row, i in enumerate(members):
            tenth = np.sort(squared[row])[9]
            divergence = stats.entropy(p[members].T, p[i][:, None])
            surely = divergence[squared[row] < tenth]
            tied = np.sort(divergence[squared[row] == tenth])
            more = 10 - len(surely)
            low[i] = (surely.sum() + tied[:more].sum()) / 10
            high[i] = (surely.sum() + tied[len(tied) - more :].sum()) / 10
    for members, picks in by_group(subset, real.labels, 0.2, True):
        check_descending(picks, members, high, low)


def test_cal_of_very_confident_predictions() -> None:
    """Pairs of neighbours with 1 − p from 1e-9 to 1e-40, in the order that exact arithmetic gives.

    The largest class's share p log(p / p') counts: for 1 − p = q much smaller than q' the divergence is about q'.
    """
    rng = np.random.default_rng(4)
    gap = rng.permutation(np.linspace(20, 90, 20))
    logits = np.stack([gap, np.zeros(20)], axis=1)
    line = 10.0 * np.repeat(np.arange(10), 2)[:, None] + np.tile([0.0, 1.0], 10)[:, None]
    problem = Problem(line, logits, np.zeros(20, dtype=np.int64))
    with mpmath.workdps(60):
        p = [oracles.exact_softmax(row)[0] for row in logits]
        exact = [mpmath.fsum(p[i ^ 1][c] * mpmath.log(p[i ^ 1][c] / p[i][c]) for c in range(2)) for i in range(20)]
    expected = sorted(range(20), key=lambda i: -exact[i])
    assert select(problem.signals, "CAL", fraction=1.0, neighbours=1).indices.tolist() == expected


# ---- Forgetting -----------------------------------------------------------------------------------------------------


def forgotten(correctness: np.ndarray) -> np.ndarray:
    """How often each sample was right in one epoch and wrong in the next; infinite if it was never right."""
    counts = []
    for history in correctness.T.tolist():
        count, learned = 0.0, history[0]
        for before, after in pairwise(history):
            learned = learned or after
            if before and not after:
                count += 1
        counts.append(count if learned else np.inf)
    return np.array(counts)


def random_history(seed: int, n: int = 90, epochs: int = 7) -> np.ndarray:
    """Whether each sample was right, (epochs, n): some always, some never, some first or last only."""
    rng = np.random.default_rng(seed)
    history = rng.random((epochs, n)) < rng.random(n)
    history[:, :6] = False
    history[0, 2] = history[-1, 3] = history[2, 4] = True
    history[:, 6:9] = True
    return history[:, rng.permutation(n)]


@BALANCED
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@SEEDS
def test_forgetting_of_random_histories(seed: int, dtype: type, balanced: bool) -> None:
    labels = random_problem(seed).labels
    history = random_history(seed)
    signals = Signals(labels=labels, dynamics={"correctness": history.astype(dtype)})
    counts = forgotten(history)
    assert np.isinf(counts).any()
    assert counts.min() == 0
    for fraction in (0.2, 1.0):
        subset = select(signals, "Forgetting", fraction=fraction, balanced=balanced, seed=seed)
        for members, picks in by_group(subset, labels, fraction, balanced):
            assert counts[picks].tolist() == np.sort(counts[members])[::-1][: len(picks)].tolist()


def test_forgetting_counts_what_was_never_learned_as_most_forgotten() -> None:
    """Sample 1 is forgotten three times, sample 3 never learned, sample 4 learned in the last epoch alone."""
    history = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0],
                        [1, 0, 0, 0, 1]], dtype=bool)  # fmt: skip
    signals = Signals(labels=np.zeros(5, dtype=np.int64), dynamics={"correctness": history})
    assert select(signals, "Forgetting", fraction=0.6).indices.tolist() == [3, 1, 2]


def test_forgetting_breaks_ties_by_the_seed() -> None:
    signals = Signals(labels=np.repeat([0, 1], 50), dynamics={"correctness": np.ones((4, 100), dtype=bool)})
    picks = [select(signals, "Forgetting", fraction=0.2, seed=seed).indices.tolist() for seed in (0, 1, 2)]
    assert picks[0] == select(signals, "Forgetting", fraction=0.2, seed=0).indices.tolist()
    assert picks[0] != picks[1] != picks[2] != picks[0]
    # Within one selection the classes draw apart, and not in the order of the file.
    assert picks[0][:10] != [index - 50 for index in picks[0][10:]]
    # Every sample has the same chance of 1 in 5; 5 standard deviations are 40 of 400 draws.
    often = np.bincount(
        np.concatenate([select(signals, "Forgetting", fraction=0.2, seed=seed).indices for seed in range(400)]),
        minlength=100,
    )
    assert (abs(often - 80) < 40).all()


# ---- CCS ------------------------------------------------------------------------------------------------------------


def check_ccs(area: np.ndarray, picks: Sequence[int], members: np.ndarray, beta: Fraction, bins: int) -> None:
    """Assert that picks are an even sample over the bins of what is left without the hardest (Zheng 2023, Alg. 1).

    Even: each bin gives min(its size, level) up to one unit, that is, no bin gives two more than one that has more.
    """
    easiest_first = members[np.argsort(-area[members])]
    kept = easiest_first[: max(len(picks), len(members) - int(beta * len(members)))]
    assert set(picks) <= set(kept.tolist()), "one of the hardest was picked"
    edges = np.linspace(area[kept].min(), area[kept].max(), bins + 1)
    sizes, given = (np.histogram(area[list(part)], edges)[0] for part in (kept, picks))
    assert sizes.sum() == len(kept)
    unfinished = given < sizes
    if unfinished.any():
        assert given.max() <= given[unfinished].min() + 1, f"bins of {sizes} gave {given}"


@BALANCED
@pytest.mark.parametrize(("beta", "bins"), [(None, None), (Fraction(0), 50), (Fraction(1, 2), 7), (Fraction(1, 10), 1)])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.35, 0.6, 0.9, 1.0])
@SEEDS
def test_ccs_of_random_margins(
    seed: int, fraction: float, beta: Fraction | None, bins: int | None, balanced: bool
) -> None:
    rng = np.random.default_rng(seed)
    labels = random_problem(seed, n=400).labels
    # Skewed, so that bins of equal width are far from equally full, and of both signs.
    margin = rng.lognormal(0, 0.7, size=400) - 1.5 + 0.2 * rng.normal(size=(5, 400))
    signals = Signals(labels=labels, dynamics={"probability_margin": margin})
    options = {} if beta is None else {"beta": float(beta), "bins": bins}
    subset = select(signals, "CCS", fraction=fraction, balanced=balanced, seed=seed, **options)
    assert not subset.nested
    for members, picks in by_group(subset, labels, fraction, balanced):
        check_ccs(
            margin.mean(axis=0), picks, members, Fraction(3, 10) if beta is None else beta, 50 if bins is None else bins
        )


def test_ccs_by_hand() -> None:
    """Ten samples, the three of lowest mean margin dropped; of the rest, five lie in one of two bins, two in the other.

    Six wanted: both of the small bin and four of the large one.
    """
    margin = np.array([[-9, 0.1, 8.0, 0.2, -8, 0.3, 10.0, 0.4, -7, 0.0]])
    signals = Signals(labels=np.zeros(10, dtype=np.int64), dynamics={"probability_margin": margin})
    for seed in range(10):
        assert (
            {2, 6} < set(select(signals, "CCS", budget=6, bins=2, seed=seed).indices.tolist()) < {1, 2, 3, 5, 6, 7, 9}
        )
        assert set(select(signals, "CCS", budget=7, bins=2, seed=seed).indices.tolist()) == {1, 2, 3, 5, 6, 7, 9}
        # Eight: now the least hard of the dropped is needed.
        assert set(select(signals, "CCS", budget=8, bins=2, seed=seed).indices.tolist()) == {1, 2, 3, 5, 6, 7, 8, 9}


def test_ccs_averages_the_margin_over_epochs() -> None:
    """Sample 0 is the hardest at the end, sample 1 on average."""
    margin = np.array([[9.0, -9, 1, 2], [9, -9, 1, 2], [-1, 0, 1, 2]])
    signals = Signals(labels=np.zeros(4, dtype=np.int64), dynamics={"probability_margin": margin})
    assert set(select(signals, "CCS", budget=3, beta=0.25).indices.tolist()) == {0, 2, 3}


def test_ccs_draws_by_the_seed() -> None:
    """In a single bin each sample has the same chance, here 1 in 4; 5 standard deviations are 44 of 400 draws."""
    margin = np.random.default_rng(0).normal(size=(1, 20))
    signals = Signals(labels=np.zeros(20, dtype=np.int64), dynamics={"probability_margin": margin})
    picks = [select(signals, "CCS", budget=5, beta=0, bins=1, seed=seed).indices for seed in range(400)]
    again = select(signals, "CCS", budget=5, beta=0, bins=1, seed=7).indices
    assert picks[7].tolist() == again.tolist()
    assert (abs(np.bincount(np.concatenate(picks), minlength=20) - 100) < 44).all()


@pytest.mark.parametrize(
    ("options", "entry"),
    [({}, "probability_margin"), ({"margin": "probability"}, "probability_margin"), ({"margin": "logit"}, "margin")],
    ids=str,
)
def test_ccs_reads_the_margin_it_is_told_and_no_other(options: dict[str, str], entry: str) -> None:
    """Of the two margins one is made so that other samples are the hardest under it."""
    rng, labels = np.random.default_rng(0), np.zeros(60, dtype=np.int64)
    margins = {name: rng.normal(size=(3, 60)) for name in ("margin", "probability_margin")}
    subset = select(Signals(labels=labels, dynamics=margins), "CCS", budget=42, **options)
    check_ccs(margins[entry].mean(axis=0), subset.indices, np.arange(60), Fraction(3, 10), 50)
    alone = select(Signals(labels=labels, dynamics={entry: margins[entry]}), "CCS", budget=42, **options)
    assert alone.indices.tolist() == subset.indices.tolist()
    hardest = set(np.argsort(margins[entry].mean(axis=0))[:18].tolist())
    assert not hardest & set(subset.indices.tolist())


def test_ccs_of_logits_is_what_records_without_the_option_are_of() -> None:
    """So the configuration of a run with margin=logit is theirs, and that of one with probabilities says so."""
    assert get("CCS").recorded(0, 0, {"margin": "logit"}) == {"beta": 0.3, "bins": 50}
    assert get("CCS").recorded(0, 0, {}) == {"beta": 0.3, "bins": 50, "margin": "probability"}


def test_ccs_of_equal_margins() -> None:
    """All in one bin of no width."""
    signals = Signals(labels=np.zeros(10, dtype=np.int64), dynamics={"probability_margin": np.ones((3, 10))})
    assert len(set(select(signals, "CCS", fraction=0.5).indices.tolist())) == 5


# ---- GraNd and EL2N -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Early:
    """One network early in training: features, and its last layer."""

    features: torch.Tensor
    head: torch.nn.Linear

    def signals(self, labels: np.ndarray) -> Signals:
        """What the library reads of it."""
        with torch.no_grad():
            return Signals(features=self.features, logits=self.head(self.features), labels=labels)

    def gradient_norms(self, labels: np.ndarray) -> np.ndarray:
        """‖g‖₂ of each sample in the last layer's weights and bias, by backpropagation."""
        return np.linalg.norm(oracles.autograd_gradients(self.head, self.features, torch.from_numpy(labels)), axis=1)

    def error_norms(self, labels: np.ndarray) -> np.ndarray:
        """‖p − onehot(y)‖₂ of each sample."""
        with torch.no_grad():
            p = torch.softmax(self.head(self.features), dim=1).numpy()
        return np.linalg.norm(p - np.eye(p.shape[1])[labels], axis=1)


def random_networks(seed: int, features: np.ndarray, C: int, count: int = 3, width: int = 6) -> list[Early]:
    """Networks of a random layer of tanh and a random last layer with bias, in float64."""
    torch.manual_seed(seed)
    hidden = [torch.nn.Linear(features.shape[1], width).double() for _ in range(count)]
    heads = [torch.nn.Linear(width, C).double() for _ in range(count)]
    with torch.no_grad():
        for head in heads:
            head.weight.mul_(8)  # so that confident predictions are among them
        return [
            Early(torch.tanh(layer(torch.from_numpy(features))), head)
            for layer, head in zip(hidden, heads, strict=True)
        ]


EARLY = pytest.mark.parametrize(("name", "norms"), [("GraNd", Early.gradient_norms), ("EL2N", Early.error_norms)])


@BALANCED
@SEEDS
@EARLY
def test_early_scores_of_random_networks(
    name: str, norms: Callable[[Early, np.ndarray], np.ndarray], seed: int, balanced: bool
) -> None:
    problem = random_problem(seed)
    networks = random_networks(seed, problem.features, 4)
    scores = np.array([norms(network, problem.labels) for network in networks])
    signals = Signals(labels=problem.labels, initialisations=[one.signals(problem.labels) for one in networks])
    subset = select(signals, name, fraction=0.5, balanced=balanced)
    check_exact(subset, problem.labels, 0.5, balanced, lambda m: scores.mean(axis=0)[m])
    # One network alone gives another order: the mean is what was compared.
    alone = select(
        Signals(labels=problem.labels, initialisations=signals.initialisations[:1]), name, fraction=0.5,
        balanced=balanced,
    )  # fmt: skip
    check_exact(alone, problem.labels, 0.5, balanced, lambda m: scores[0][m])
    assert alone.indices.tolist() != subset.indices.tolist()


@EARLY
def test_early_scores_of_digits(real: Problem, name: str, norms: Callable[[Early, np.ndarray], np.ndarray]) -> None:
    networks = random_networks(0, real.features, 10, count=2)
    signals = Signals(labels=real.labels, initialisations=[one.signals(real.labels) for one in networks])
    score = np.mean([norms(network, real.labels) for network in networks], axis=0)
    subset = select(signals, name, fraction=0.1)
    for members, picks in by_group(subset, real.labels, 0.1, True):
        check_descending(picks, members, score)


def test_early_scores_do_not_read_the_signals_own_network() -> None:
    problem = random_problem(1)
    networks = [one.signals(problem.labels) for one in random_networks(1, problem.features, 4)]
    for name in ("GraNd", "EL2N"):
        bare = select(Signals(labels=problem.labels, initialisations=networks), name, fraction=0.3)
        full = select(
            Signals(problem.features, problem.logits, problem.labels, initialisations=networks), name, fraction=0.3
        )
        assert bare.indices.tolist() == full.indices.tolist()


def test_el2n_needs_no_features() -> None:
    """‖p − onehot(y)‖ is a matter of logits alone."""
    problem = random_problem(1)
    logits = Signals(logits=problem.logits, labels=problem.labels)
    subset = select(Signals(labels=problem.labels, initialisations=[logits]), "EL2N", fraction=0.5)
    error = np.linalg.norm(softmax(problem.logits, axis=1) - np.eye(4)[problem.labels], axis=1)
    check_exact(subset, problem.labels, 0.5, True, lambda m: error[m])


@pytest.mark.parametrize(("name", "missing"), [("GraNd", "features"), ("GraNd", "logits"), ("EL2N", "logits")])
def test_early_scores_say_what_an_initialisation_lacks(name: str, missing: str) -> None:
    problem = random_problem(1)
    fields = {"features": problem.features, "logits": problem.logits}
    del fields[missing]
    signals = Signals(labels=problem.labels, initialisations=[Signals(labels=problem.labels, **fields)])
    with pytest.raises(UserError, match=missing):
        select(signals, name, fraction=0.5)


# ---- what all share -------------------------------------------------------------------------------------------------


def complete(seed: int) -> Signals:
    """Signals that serve every method of this file."""
    problem = random_problem(seed)
    return Signals(
        features=problem.features,
        logits=problem.logits,
        labels=problem.labels,
        dynamics={
            "correctness": random_history(seed),
            "probability_margin": np.random.default_rng(seed).normal(size=(7, len(problem.labels))),
        },
        initialisations=[one.signals(problem.labels) for one in random_networks(seed, problem.features, 4)],
    )


NESTED = ["LeastConfidence", "Entropy", "Margin", "Moderate", "CAL", "Forgetting", "GraNd", "EL2N"]


def test_prefix_of_ccs_is_refused() -> None:
    with pytest.raises(UserError, match="nested"):
        select(complete(3), "CCS", fraction=0.8).prefix(0.1)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("LeastConfidence", "logits"),
        ("Entropy", "logits"),
        ("Margin", "logits"),
        ("Moderate", "features"),
        ("CAL", "features"),
        ("Forgetting", "dynamics"),
        ("CCS", "dynamics"),
        ("GraNd", "initialisations"),
        ("EL2N", "initialisations"),
    ],
)
def test_missing_signals_are_named(name: str, missing: str) -> None:
    with pytest.raises(UserError, match=missing):
        select(Signals(labels=np.repeat([0, 1], 5)), name, fraction=0.5)


@pytest.mark.parametrize(("name", "other", "missing"), [
    ("Forgetting", "margin", "correctness"), ("CCS", "margin", "probability_margin"),
])  # fmt: skip
def test_missing_entries_of_the_dynamics_are_named(name: str, other: str, missing: str) -> None:
    signals = Signals(labels=np.repeat([0, 1], 5), dynamics={other: np.ones((3, 10))})
    with pytest.raises(ValueError, match=missing):
        select(signals, name, fraction=0.5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CCS", {"beta": 1}),
        ("CCS", {"beta": -0.1}),
        ("CCS", {"beta": float("nan")}),
        ("CCS", {"bins": 0}),
        ("CCS", {"margin": "loss"}),
        ("CCS", {"bins": 2.5}),
        ("CAL", {"neighbours": 0}),
        ("CAL", {"neighbours": 1.5}),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        select(complete(3), name, fraction=0.5, **options)


def test_scores_of_equal_samples_go_by_index() -> None:
    """Exact ties, of duplicates, are settled by position, so that a selection does not depend on the machine."""
    problem = random_problem(2, n=12)
    twice = Problem(*(np.repeat(array, 2, axis=0) for array in (problem.features, problem.logits, problem.labels)))
    for name in ("LeastConfidence", "Entropy", "Margin"):
        picks = select(twice.signals, name, fraction=1.0, balanced=False).indices
        assert np.array_equal(picks[1::2], picks[::2] + 1)
        assert (picks[::2] % 2 == 0).all()


def test_names_are_canonical() -> None:
    for name in [*NESTED, "CCS"]:
        assert get(name.lower()).name == name
