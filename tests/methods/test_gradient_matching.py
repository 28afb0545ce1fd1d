"""GradMatch and Glister, both with and without validation, against slow oracles of full per-sample gradients."""

import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from lcmat import Signals, UserError
from lcmat.selection.matching_pursuit import NonNegativeFit, matching_pursuit, products
from methods import get, select
from methods.glister import target_gradient
from tests import oracles
from tests.problems import BALANCED, HEAD, Problem, digits, groups_of, random_problem, sure

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")

# How far a pick's inner product may fall short of the best, as a share of the largest |⟨g, target⟩| or of the largest
# possible: sums of some hundred terms, through weights of a regularised (well conditioned) system.
TIE = 1e-12


def with_validation(problem: Problem, validation: Problem) -> Signals:
    """Signals of both."""
    h, z, y = problem.arrays
    return Signals(features=h, logits=z, labels=y, validation=validation.signals)


def pairs_of(problem: Problem, validation: Problem, balanced: bool) -> list[tuple[np.ndarray, Problem, Problem]]:
    """Each group's members, samples, and the samples whose gradient is aimed at: of the same class, or all."""
    groups = groups_of(problem.labels, balanced)
    labels = [problem.labels[members[0]] for members in groups]
    aims = [validation.take(validation.labels == label) if balanced else validation for label in labels]
    return [(members, problem.take(members), aim) for members, aim in zip(groups, aims, strict=True)]


# ---- orthogonal matching pursuit ------------------------------------------------------------------------------------


def best_weights(chosen: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """min over w ≥ 0 of ‖Σ w_i g_i − target‖² + penalty ‖w‖²: plain NNLS with a row √penalty for each weight."""
    m = len(chosen)
    system = np.concatenate([chosen.T, np.sqrt(penalty) * np.eye(m)])
    return nnls(system, np.concatenate([target, np.zeros(m)]), maxiter=100 * (m + 1))[0]


def objective(chosen: np.ndarray, target: np.ndarray, w: np.ndarray, penalty: float) -> float:
    """What the weights minimise."""
    return float(np.sum((w @ chosen - target) ** 2) + penalty * np.sum(w**2))


def replay(
    g: np.ndarray, target: np.ndarray, picks: Sequence[int], penalty: float, tie: float = TIE
) -> tuple[np.ndarray, int]:
    """Assert that each pick has the largest inner product with the residual of the best weights of those before it.

    Returns the best weights of all, and how many picks tied with another sample.
    """
    scale = np.linalg.norm(g, axis=1).max() * np.linalg.norm(target)
    left, residual, tied = np.ones(len(g), dtype=bool), target, 0
    for step, j in enumerate(picks):
        inner = np.where(left, g @ residual, -np.inf)
        best = inner.max()
        assert inner[j] >= best - tie * scale, f"pick {step} is {j} with {inner[j]}, not {inner.argmax()} with {best}"
        tied += (inner >= best - tie * scale).sum() > 1
        left[j] = False
        weights = best_weights(g[picks[: step + 1]], target, penalty)
        residual = target - weights @ g[picks[: step + 1]]
    return weights, tied


def check_grad_match(problem: Problem, validation: Problem | None, balanced: bool, **options: float) -> int:
    """Assert that a selection is what the definition gives; how many weights had to be filled in."""
    regularisation = options.pop("regularisation", None)
    given = {} if regularisation is None else {"regularisation": regularisation}
    signals = problem.signals if validation is None else with_validation(problem, validation)
    method = "GradMatch" if validation is None else "GradMatch-Val"
    subset = select(signals, method, balanced=balanced, **given, **options)
    filled, done = 0, 0
    for members, own, aim in pairs_of(problem, problem if validation is None else validation, balanced):
        place = np.isin(subset.indices, members)
        picks = np.searchsorted(members, subset.indices[place])
        assert len(picks) == oracles.class_budget(len(members), options["fraction"])
        g, target = oracles.gradients(*own.arrays), oracles.gradients(*aim.arrays).sum(axis=0)
        penalty = (0.5 if regularisation is None else regularisation) * np.mean(np.sum(g**2, axis=1))
        weights, tied = replay(g, target, picks, penalty)
        assert tied <= (len(picks) == len(members)), "random numbers do not tie, but the last sample is alone"
        filled += (weights == 0).sum()
        weights[weights == 0] = weights[weights > 0].min()
        assert subset.weights.dtype == np.float32
        np.testing.assert_allclose(subset.weights[place], weights, rtol=1e-6)  # float32
        done += len(picks)
    assert done == len(subset)
    return filled


@BALANCED
@pytest.mark.parametrize("fraction", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_grad_match(seed: int, fraction: float, balanced: bool) -> None:
    check_grad_match(random_problem(seed, 60, 4, 3), None, balanced, fraction=fraction)


@BALANCED
@pytest.mark.parametrize("fraction", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_grad_match_val(seed: int, fraction: float, balanced: bool) -> None:
    check_grad_match(random_problem(seed, 60, 4, 3), random_problem(seed + 50, 25, 4, 3), balanced, fraction=fraction)


@BALANCED
@HEAD
def test_grad_match_of_digits(trained: bool, balanced: bool) -> None:
    problem = digits(trained, 500)
    train, validation = problem.take(np.arange(300)), problem.take(np.arange(300, 500))
    check_grad_match(train, None, balanced, fraction=0.1)
    check_grad_match(train, validation, balanced, fraction=0.1)


@BALANCED
@pytest.mark.parametrize("regularisation", [0.01, 0.5])
def test_what_nnls_leaves_at_zero_has_the_smallest_positive_weight(regularisation: float, balanced: bool) -> None:
    """More samples than point the target's way."""
    problem, validation = random_problem(1, 60, 3, 3), random_problem(51, 9, 3, 3)
    options = {"fraction": 0.8, "regularisation": regularisation}
    filled = check_grad_match(problem, validation, balanced, **options)
    assert filled > 5, "NNLS used all: choose another problem"


@pytest.mark.parametrize("regularisation", [0.05, 5.0])
def test_the_regularisation_is_an_option(regularisation: float) -> None:
    check_grad_match(random_problem(1, 60, 4, 3), None, True, fraction=0.3, regularisation=regularisation)


def test_the_regularisation_defaults_to_a_half() -> None:
    signals = random_problem(1, 60, 4, 3).signals
    chosen = [select(signals, "GradMatch", fraction=0.3, regularisation=r) for r in (0.5, 0.4)]
    by_default = select(signals, "GradMatch", fraction=0.3)
    assert by_default.weights.tolist() == chosen[0].weights.tolist()
    assert by_default.weights.tolist() != chosen[1].weights.tolist()


def test_no_regularisation() -> None:
    """Then weights need not be unique, but what they reach is; and once the target is met, all picks tie."""
    problem = random_problem(1, 40, 3, 3)
    g = oracles.gradients(*problem.arrays)
    target = g.sum(axis=0)
    for budget in (3, 6, 20, 40):
        subset = select(problem.signals, "GradMatch", budget=budget, balanced=False, regularisation=0)
        assert len(np.unique(subset.indices)) == budget
        assert (subset.weights > 0).all()
        # A regularisation of 1e-12 stands in for none, and its square root shows in the residuals.
        weights, _ = replay(g, target, subset.indices, 0.0, tie=1e-6)
        assert (weights > 0).any()
    weights, _ = replay(g, target, (few := select(problem.signals, "GradMatch", budget=6, balanced=False,
                                                  regularisation=0)).indices, 0.0, tie=1e-9)  # fmt: skip
    np.testing.assert_allclose(few.weights, weights, rtol=1e-6)


def test_a_validation_set_equal_to_the_training_set_changes_nothing() -> None:
    problem = random_problem(1, 60, 4, 3)
    for balanced in (True, False):
        one = select(with_validation(problem, problem), "GradMatch-Val", fraction=0.3, balanced=balanced)
        other = select(problem.signals, "GradMatch", fraction=0.3, balanced=balanced)
        assert one.indices.tolist() == other.indices.tolist()
        assert one.weights.tolist() == other.weights.tolist()


def test_the_size_of_the_target_scales_the_weights_alone() -> None:
    """The validation samples three times over."""
    problem, validation = random_problem(1, 60, 4, 3), random_problem(2, 20, 4, 3)
    thrice = validation.take(np.tile(np.arange(20), 3))
    one, other = (
        select(with_validation(problem, v), "GradMatch-Val", fraction=0.3, balanced=False) for v in (validation, thrice)
    )
    assert one.indices.tolist() == other.indices.tolist()
    np.testing.assert_allclose(3 * one.weights, other.weights, rtol=1e-6)


@pytest.mark.parametrize("method", ["GradMatch", "GradMatch-Val", "Glister", "Glister-Val"])
def test_zero_gradients(method: str) -> None:
    """All right and sure to the last digit: everything ties, so the first come first."""
    problem = sure(900, 1000, False)
    assert (oracles.gradients(*problem.arrays) == 0).all()
    subset = select(with_validation(problem, problem), method, fraction=0.5)
    assert subset.indices.tolist() == [*range(8), *range(15, 23)]
    if method.startswith("GradMatch"):
        assert subset.weights.tolist() == [1.0] * 16


def test_grad_match_takes_zero_gradients_last_but_does_take_them() -> None:
    """They neither help nor harm, while a sample that points away from what is left would be taken after them."""
    problem = random_problem(3, 30, 3, 2)
    problem.logits[::3] = np.where(np.arange(2) == problem.labels[::3, None], 1000, 0)
    g = oracles.gradients(*problem.arrays)
    assert (g[::3] == 0).all()
    subset = select(problem.signals, "GradMatch", fraction=1.0, balanced=False)
    weights, _ = replay(g, g.sum(axis=0), subset.indices, 0.5 * np.mean(np.sum(g**2, axis=1)))
    assert (weights[subset.indices % 3 == 0] == 0).all()
    weights[weights == 0] = weights[weights > 0].min()
    np.testing.assert_allclose(subset.weights, weights, rtol=1e-6)


@pytest.mark.parametrize("regularisation", [0.0, 0.5])
def test_grad_match_of_duplicates(regularisation: float) -> None:
    """The first of equals first, and all of those taken weigh the same."""
    problem = random_problem(4, 45, 3, 2, duplicates=True)
    g = oracles.gradients(*problem.arrays)
    same = oracles.twins(g)
    for fraction in (0.3, 1.0):
        options = {"balanced": False, "regularisation": regularisation}
        subset = select(problem.signals, "GradMatch", fraction=fraction, **options)
        picks = subset.indices
        replay(
            g, g.sum(axis=0), picks, regularisation * np.mean(np.sum(g**2, axis=1)), 1e-12 if regularisation else 1e-6
        )
        for step, j in enumerate(picks):
            assert j == np.setdiff1d(np.flatnonzero(same == same[j]), picks[:step])[0]
        if regularisation:
            for number in np.unique(same[picks]):
                np.testing.assert_allclose(np.ptp(subset.weights[same[picks] == number]), 0, atol=1e-6)
    alone = select(problem.take(np.full(9, 3)).signals, "GradMatch", budget=4, regularisation=regularisation)
    assert alone.indices.tolist() == [0, 1, 2, 3]
    if regularisation:
        np.testing.assert_allclose(alone.weights, 9 / (4 + regularisation), rtol=1e-6)  # 4w + r·w = 9, by hand


# ---- the engine, on vectors of any kind -----------------------------------------------------------------------------


def pursuit(g: np.ndarray, target: np.ndarray, budget: int, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """`matching_pursuit` over vectors that are no products: a = 1."""
    ones = torch.ones(len(g), 1, dtype=torch.float64)
    picks, weights = matching_pursuit(ones, torch.from_numpy(g), torch.from_numpy(target)[None], budget, penalty)
    return picks.numpy(), weights.numpy()


def alike(seed: int, n: int = 30, D: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Vectors in one orthant, of very different lengths: what is taken early is given up later."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)) ** 2 * rng.exponential(size=(n, 1)), 20 * np.abs(rng.normal(size=D))


SHARES = pytest.mark.parametrize("share", [1e-4, 1e-2, 0.5])


@SHARES
def test_samples_are_given_up_and_come_back(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that fall to zero, and rise again when others are added, end where NNLS from scratch does."""
    active: list[set[int]] = []
    solve = NonNegativeFit.solve

    def spied(fit: NonNegativeFit) -> None:
        solve(fit)
        active.append(set(fit.active))

    monkeypatch.setattr(NonNegativeFit, "solve", spied)
    given_up = back = 0
    for seed in range(30):
        g, target = alike(seed)
        penalty = share * np.mean(np.sum(g**2, axis=1))
        active.clear()
        picks, weights = pursuit(g, target, 20, penalty)
        expected, _ = replay(g, target, picks, penalty, tie=1e-10)
        # The Gram matrix has the square of the system's condition number: 1/share and more.
        np.testing.assert_allclose(weights, expected, rtol=1e-8, atol=1e-10 * expected.max())
        assert np.array_equal(weights > 0, expected > 0)
        gone: set[int] = set()
        for before, after in zip([set(), *active], active, strict=False):
            given_up += len(before - after)
            back += len(after & gone)
            gone = (gone | (before - after)) - after
    assert given_up > 5, "no sample was ever given up"
    assert back > 0, "no sample ever came back"


@SHARES
@pytest.mark.parametrize("seed", range(3))
def test_weights_are_optimal(seed: int, share: float) -> None:
    """Karush-Kuhn-Tucker: no weight is negative; slopes are zero where weights are not, and not negative elsewhere."""
    g, target = alike(seed)
    penalty = share * np.mean(np.sum(g**2, axis=1))
    for budget in (1, 2, 5, 12, 30):
        picks, w = pursuit(g, target, budget, penalty)
        slope = g[picks] @ (w @ g[picks] - target) + penalty * w
        scale = np.abs(g @ target).max()
        assert (w >= 0).all()
        assert (slope >= -1e-11 * scale).all()
        assert (np.abs(slope[w > 0]) <= 1e-11 * scale).all()


@SHARES
@pytest.mark.parametrize("seed", range(3))
def test_the_objective_never_grows(seed: int, share: float) -> None:
    g, target = alike(seed)
    penalty = share * np.mean(np.sum(g**2, axis=1))
    all_picks, _ = pursuit(g, target, 30, penalty)
    reached = [float(target @ target)]
    for budget in range(1, 31):
        picks, w = pursuit(g, target, budget, penalty)
        assert picks.tolist() == all_picks[:budget].tolist()
        reached.append(objective(g[picks], target, w, penalty))
    assert (np.diff(reached) <= 1e-13 * reached[0]).all()
    assert reached[1] < reached[0]


def test_scaling_everything_changes_no_pick() -> None:
    """By powers of two, so that rounding is the same; λ, a share of mean ‖g‖², scales along."""
    g, target = alike(0)
    picks, weights = pursuit(g, target, 25, 0.1 * np.mean(np.sum(g**2, axis=1)))
    for factor in (2.0**-60, 2.0**40):
        scaled, w = pursuit(factor * g, factor * target, 25, 0.1 * np.mean(np.sum((factor * g) ** 2, axis=1)))
        assert scaled.tolist() == picks.tolist()
        np.testing.assert_allclose(w, weights, rtol=1e-12, atol=0)


def test_factors_are_as_good_as_products() -> None:
    rng = np.random.default_rng(0)
    a, h, target = rng.normal(size=(20, 3)), rng.normal(size=(20, 4)), rng.normal(size=(3, 4))
    g = np.stack([np.outer(x, y).ravel() for x, y in zip(a, h, strict=True)])
    inner = products(*map(torch.from_numpy, (a, h, target)))
    np.testing.assert_allclose(inner.numpy(), g @ target.ravel(), rtol=1e-13, atol=1e-14)
    picks, weights = matching_pursuit(*map(torch.from_numpy, (a, h, target)), 15, 0.3)
    expected, tied = replay(g, target.ravel(), picks.numpy(), 0.3)
    assert tied == 0
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-11, atol=1e-13)


def test_several_weights_fall_to_zero_at_once() -> None:
    """By hand, in numbers that round nowhere: on the way to the fourth vector the first and the third reach zero.

    The second and the fourth stay, so that the factor is made anew from between them.
    """
    g = np.array([[2, 0, 0, 0], [0, 0, 0, 2], [0, 2, 0, 0], [2, 2, 1, 0]], dtype=np.float64)
    target = np.array([2, 2, 2, 4], dtype=np.float64)
    fit = NonNegativeFit(5, 0.0, torch.zeros(1, dtype=torch.float64))
    left_at_once = []
    leave = fit.leave
    fit.leave = lambda positions: (left_at_once.append(list(positions)), leave(positions))
    for t in range(4):
        fit.add(torch.from_numpy(g[: t + 1] @ g[t]), torch.tensor(g[t] @ target))
        fit.solve()
        np.testing.assert_allclose(fit.weights[: t + 1], best_weights(g[: t + 1], target, 0.0), atol=1e-15)
    assert left_at_once == [[0, 2]]
    assert fit.active == [1, 3]
    np.testing.assert_allclose(fit.weights, [0, 2, 0, 10 / 9, 0], rtol=1e-15)
    # And the factor that is left serves the next vector.
    g = np.concatenate([g, [[1.0, 0, 0, 1]]])
    fit.add(torch.from_numpy(g @ g[4]), torch.tensor(g[4] @ target))
    fit.solve()
    np.testing.assert_allclose(fit.weights, best_weights(g, target, 0.0), atol=1e-14)


# ---- Glister --------------------------------------------------------------------------------------------------------


def mean_loss_gradient(problem: Problem, head: torch.nn.Linear) -> np.ndarray:
    """∇L of the mean cross-entropy in [W, b], (C, d+1), by autograd."""
    h, y = torch.from_numpy(problem.features), torch.from_numpy(problem.labels)
    loss = torch.nn.functional.cross_entropy(head(h), y)
    of_weight, of_bias = torch.autograd.grad(loss, [head.weight, head.bias])
    return torch.cat([of_weight, of_bias[:, None]], dim=1).numpy()


def linear(weight: np.ndarray, bias: np.ndarray) -> torch.nn.Linear:
    """A layer of these parameters."""
    head = torch.nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return head


@pytest.mark.parametrize("size", [0.0, 0.1, 10.0])
def test_target_gradient_is_that_of_the_moved_layer(size: float) -> None:
    rng = np.random.default_rng(0)
    weight, bias, h = rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(20, 4))
    step = size * rng.normal(size=(3, 5))
    problem = Problem(h, h @ weight.T + bias, rng.integers(0, 3, 20))
    expected = mean_loss_gradient(problem, linear(weight + step[:, :-1], bias + step[:, -1]))
    got = target_gradient(problem.signals, torch.from_numpy(step)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def moved_gradient(aim: Problem, step: np.ndarray) -> np.ndarray:
    """The same from the definition: logits moved by step·h̃, per-sample gradients formed, their mean."""
    logits = aim.logits + oracles.extended(aim.features) @ step.T
    return oracles.gradients(aim.features, logits, aim.labels).mean(axis=0)


def replay_glister(own: Problem, aim: Problem, picks: np.ndarray, eta: float, blocks: int, mean: bool) -> int:
    """Assert that the picks come in blocks of the highest gains, highest first; how many ties there were."""
    g = oracles.gradients(*own.arrays)
    shape, left, tied = (own.logits.shape[1], own.features.shape[1] + 1), np.ones(len(g), dtype=bool), 0
    for block in np.array_split(picks, blocks):
        if not len(block):
            continue  # more blocks than picks
        before = g[~left]
        along = before.sum(axis=0) / (max(1, len(before)) if mean else 1)
        gain = g @ moved_gradient(aim, -eta * along.reshape(shape))
        tie = TIE * np.abs(gain).max()
        assert (np.diff(gain[block]) <= tie).all(), "a block is not in the order of its gains"
        left[block] = False
        assert not left.any() or gain[block].min() >= gain[left].max() - tie, "a higher gain was left out"
        ordered = np.sort(gain[left | np.isin(np.arange(len(g)), block)])[::-1][: len(block) + 1]
        tied += (-np.diff(ordered) <= tie).sum()
    return tied


def check_glister(
    problem: Problem, validation: Problem | None, balanced: bool, fraction: float, **options: object
) -> None:
    signals = problem.signals if validation is None else with_validation(problem, validation)
    method = "Glister" if validation is None else "Glister-Val"
    subset = select(signals, method, fraction=fraction, balanced=balanced, **options)
    assert subset.weights is None
    how = {"eta": options.get("eta", 0.1), "blocks": options.get("blocks", 20), "mean": options.get("step") != "sum"}
    done = 0
    for members, own, aim in pairs_of(problem, problem if validation is None else validation, balanced):
        picks = np.searchsorted(members, subset.indices[np.isin(subset.indices, members)])
        assert len(picks) == oracles.class_budget(len(members), fraction)
        assert replay_glister(own, aim, picks, **how) == 0, "random numbers do not tie: all of the order is decided"
        done += len(picks)
    assert done == len(subset)


@BALANCED
@pytest.mark.parametrize("fraction", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_glister(seed: int, fraction: float, balanced: bool) -> None:
    check_glister(random_problem(seed, 150, 4, 3), None, balanced, fraction)


@BALANCED
@pytest.mark.parametrize(
    "options",
    [
        {"eta": 0.01}, {"eta": 1.0}, {"blocks": 1}, {"blocks": 7}, {"blocks": 1000},
        {"step": "sum"}, {"step": "sum", "eta": 0.01}, {"step": "mean", "blocks": 3},
    ],
    ids=str,
)  # fmt: skip
def test_glister_with_other_options(options: dict[str, float], balanced: bool) -> None:
    check_glister(random_problem(1, 150, 4, 3), None, balanced, 0.4, **options)


@BALANCED
@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_glister_val(fraction: float, balanced: bool) -> None:
    for step in ("mean", "sum"):
        check_glister(random_problem(1, 150, 4, 3), random_problem(2, 40, 4, 3), balanced, fraction, step=step)


@BALANCED
@HEAD
def test_glister_of_digits(trained: bool, balanced: bool) -> None:
    problem = digits(trained, 1000)
    train, validation = problem.take(np.arange(700)), problem.take(np.arange(700, 1000))
    check_glister(train, None, balanced, 0.3)
    check_glister(train, validation, balanced, 0.3)


def test_the_target_gradient_is_taken_anew() -> None:
    """In the released code it was not; here it decides picks."""
    signals = random_problem(1, 150, 4, 3).signals
    by_default = select(signals, "Glister", fraction=0.4)
    same = select(signals, "Glister", fraction=0.4, eta=0.1, blocks=20)
    assert by_default.indices.tolist() == same.indices.tolist()
    for options in ({"blocks": 1}, {"blocks": 7}, {"eta": 1.0}, {"step": "sum"}):
        other = select(signals, "Glister", fraction=0.4, **options)
        assert by_default.indices.tolist() != other.indices.tolist()


def test_glister_takes_the_first_of_equals() -> None:
    problem = random_problem(4, 90, 3, 2, duplicates=True)
    same = oracles.twins(oracles.gradients(*problem.arrays))
    picks = select(problem.signals, "Glister", fraction=0.6, balanced=False).indices
    for step, j in enumerate(picks):
        assert j == np.setdiff1d(np.flatnonzero(same == same[j]), picks[:step])[0]


@pytest.mark.parametrize("balanced", [True, False])
def test_glister_where_all_predictions_are_sure(balanced: bool) -> None:
    """p of the label rounds to one, but 1 − p does not round to zero, and ranks the samples."""
    check_glister(sure(40, 60, False), None, balanced, 0.5)


def doubtful_class() -> Problem:
    """One class of 400 under a network that is often wrong about it: the sum of few gradients outweighs the layer."""
    problem = random_problem(5, 400, 8, 4)
    return Problem(problem.features, problem.logits, np.zeros(400, dtype=np.int64))


def test_sum_drives_the_target_to_nothing_and_says_so() -> None:
    """By the definition: at the last of twenty blocks the class's own gradient is below a millionth of what it was."""
    problem = doubtful_class()
    with pytest.warns(UserWarning, match=r"Glister: the target's gradient has vanished.*step=mean"):
        picks = select(problem.signals, "Glister", fraction=0.5, step="sum").indices
    g = oracles.gradients(*problem.arrays)
    along = g[picks[: 19 * len(picks) // 20]].sum(axis=0).reshape(4, -1)
    at_first, later = (np.linalg.norm(moved_gradient(problem, step)) for step in (0 * along, -0.1 * along))
    assert later < 1e-6 * at_first


@pytest.mark.parametrize("options", [{}, {"step": "sum", "blocks": 1}], ids=str)
def test_mean_leaves_the_target_and_says_nothing(options: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        select(doubtful_class().signals, "Glister", fraction=0.5, **options)


def test_sum_is_what_records_without_the_option_are_of() -> None:
    """So the configuration of a run with step=sum is theirs, and that of one with the mean says so."""
    for name in ("Glister", "Glister-Val"):
        method = get(name)
        assert method.recorded(4, 8, {"step": "sum"}) == {"eta": 0.1, "blocks": 20}
        assert method.recorded(4, 8, {}) == {"eta": 0.1, "blocks": 20, "step": "mean"}
        assert method.resolved(4, 8, {"step": "sum"})["step"] == "sum"


# ---- errors ---------------------------------------------------------------------------------------------------------

VALIDATED = pytest.mark.parametrize("method", ["GradMatch-Val", "Glister-Val"])


@VALIDATED
def test_a_validation_split_is_needed(method: str) -> None:
    with pytest.raises(UserError, match=f"{method} needs validation"):
        select(random_problem(0).signals, method, fraction=0.5)


@VALIDATED
def test_a_validation_split_without_a_class_serves_unbalanced_selection_only(method: str) -> None:
    problem, validation = random_problem(0), random_problem(1)
    validation = validation.take(validation.labels != 1)
    signals = with_validation(problem, validation)
    with pytest.raises(UserError, match="no sample of class 1"):
        select(signals, method, fraction=0.5)
    assert len(select(signals, method, budget=20, balanced=False)) == 20


@pytest.mark.parametrize("method", ["GradMatch", "GradMatch-Val", "Glister", "Glister-Val"])
def test_picks_for_smaller_fractions_are_selected_anew(method: str) -> None:
    """Weights, and the blocks of Glister, belong to the whole set."""
    subset = select(with_validation(random_problem(0), random_problem(1)), method, fraction=0.5)
    with pytest.raises(UserError, match="not nested"):
        subset.prefix(0.2)


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [
        *(("GradMatch", "regularisation", value) for value in (-1e-9, -1, float("nan"), float("inf"))),
        *(("Glister", "eta", value) for value in (0, -0.1, float("nan"), float("inf"))),
        *(("Glister", "blocks", value) for value in (0, -1, 2.5)),
        *(("Glister", "step", value) for value in ("median", 1)),
        ("GradMatch", "eta", 1),
        ("Glister", "regularisation", 1),
    ],
)
def test_bad_options_are_refused(method: str, option: str, value: float) -> None:
    signals = with_validation(random_problem(0), random_problem(1))
    for name in (method, f"{method}-Val"):
        with pytest.raises(UserError, match=option):
            select(signals, name, fraction=0.5, **{option: value})


def test_blocks_may_be_a_numpy_integer() -> None:
    """As a budget may."""
    problem = random_problem(0)
    picks = select(problem.signals, "Glister", fraction=0.5, blocks=np.int64(5)).indices.tolist()
    assert picks == select(problem.signals, "Glister", fraction=0.5, blocks=5).indices.tolist()
