"""The learning of Probabilistic: projection, probabilities, checkpoints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

import methods.probabilistic
from lcmat import UserError
from lcmat.files import load_tensors, save_tensors
from lcmat.selection.context import Context
from tests import oracles
from tests.every_method import PIXELS, RECIPE, FullProblem, LinearNet, both, chosen, make
from tests.problems import check_form, same

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says and test_lcmat_s.py checks; and LBCS finds
# few other sets of few samples to try, which test_lbcs.py checks.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rounds to no sample"),
    pytest.mark.filterwarnings("ignore:.*moves in a row made no other set"),
]


def on_capped_simplex(s: np.ndarray, k: int) -> np.ndarray:
    """The nearest point of {0 ≤ x ≤ 1, Σ x = k}: clip(s − t, 0, 1), whose sum is linear between the bends of t."""
    bends = np.sort(np.concatenate([s, s - 1]))
    sums = np.array([np.clip(s - t, 0, 1).sum() for t in bends])  # falls from n to 0
    return np.clip(s - np.interp(-k, -sums, bends), 0, 1)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(s=st.lists(st.floats(-3, 3) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=12), data=st.data())
def test_projection_onto_the_budget(s: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(s)), label="budget")
    x = methods.probabilistic.projected(torch.tensor(s, dtype=torch.float64), k)
    assert float(x.min()) >= 0
    assert float(x.max()) <= 1
    assert float(x.sum()) == pytest.approx(k, abs=1e-9)
    assert x.numpy() == pytest.approx(on_capped_simplex(np.array(s), k), abs=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_projection_is_what_an_optimiser_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 12))
    s, k = rng.normal(0.4, 1, n), int(rng.integers(1, n))
    found = minimize(
        lambda x: 0.5 * ((x - s) ** 2).sum(), np.full(n, k / n), jac=lambda x: x - s, method="SLSQP",
        bounds=[(0, 1)] * n, constraints={"type": "eq", "fun": lambda x: x.sum() - k, "jac": lambda x: np.ones(n)},
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert found.success
    assert methods.probabilistic.projected(torch.tensor(s), k).numpy() == pytest.approx(found.x, abs=1e-5)


def test_projection_of_many() -> None:
    s = torch.from_numpy(np.random.default_rng(0).normal(size=50_000))
    x = methods.probabilistic.projected(s, 500)
    assert float(x.sum()) == pytest.approx(500, abs=1e-6)
    order = s.argsort()
    assert (x[order].diff() >= 0).all()
    inside = torch.tensor([0.25, 0.75, 0.5, 0.5])
    assert torch.allclose(methods.probabilistic.projected(inside, 2), inside)


CLEAN, HARMFUL = 30, 10


def toy(seed: int = 0) -> FullProblem:
    """Two classes; the last samples of each are those that a synthetic loss punishes."""
    return make([CLEAN // 2 + HARMFUL // 2] * 2, seed).take(np.argsort(make([20, 20], seed).labels, kind="stable"))


def is_harmful(problem: FullProblem) -> np.ndarray:
    """The last few of each class of `toy`."""
    return np.arange(len(problem)) % 20 >= CLEAN // 2


@both
@pytest.mark.parametrize("seed", range(2))
def test_probabilities_of_harmful_samples_fall(
    balanced: bool, seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    problem = toy()
    harmful = is_harmful(problem)

    def loss(context: Context, mask: Tensor, epochs: int, seed: int) -> float:
        return 1 + 3 * float(mask[torch.from_numpy(harmful)].sum() / mask.sum())

    monkeypatch.setattr(methods.probabilistic, "loss_after_training", loss)
    context = replace(problem.context, checkpoint=tmp_path / "state.pt")
    subset = chosen("Probabilistic", problem, budget=20, balanced=balanced, outer_steps=200, context=context, seed=seed)
    s = load_tensors(tmp_path / "state.pt")["s"].numpy()
    assert s.sum() == pytest.approx(20, abs=1e-6)
    if balanced:
        assert s[:20].sum() == pytest.approx(10, abs=1e-6)
    assert s.min() >= 0
    assert s.max() <= 1
    assert s[harmful].mean() < 0.5 * s[~harmful].mean()
    assert harmful[subset.indices].sum() <= 2  # chance takes 5


def test_wrong_labels_are_learned_to_be_harmful(tmp_path: Path) -> None:
    """The same without a synthetic loss: bright and dark images, some of which are labelled the other way round."""
    rng = np.random.default_rng(0)
    problem = make([30, 30])
    wrong = np.zeros(60, dtype=bool)
    for label in (0, 1):
        wrong[np.flatnonzero(problem.labels == label)[:6]] = True
    bright = problem.labels ^ wrong
    images = (bright[:, None, None, None] * 100 + 50 + rng.integers(0, 50, (60, *PIXELS))).astype(np.uint8)
    problem = replace(problem, images=images)
    context = replace(problem.context, checkpoint=tmp_path / "state.pt", recipe=replace(RECIPE, lr=0.05))
    options = {"budget": 10, "outer_steps": 150, "inner_epochs": 2, "step": 0.2}
    subset = chosen("Probabilistic", problem, context=context, **options)
    s = load_tensors(tmp_path / "state.pt")["s"].numpy()
    assert s[wrong].mean() < s[~wrong].mean()
    assert wrong[subset.indices].mean() <= wrong.mean()


class Killed(BaseException):
    """Stands for a signal that ends the process."""


@both
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_selection_goes_on(balanced: bool, stop: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = make([7, 6])
    options = {"fraction": 0.5, "balanced": balanced, "outer_steps": 6, "seed": 2}
    undisturbed = replace(problem.context, checkpoint=tmp_path / "one.pt")
    expected = chosen("Probabilistic", problem, context=undisturbed, **options)
    real, calls = methods.probabilistic.loss_after_training, []

    def dying(*arguments: object) -> float:
        if len(calls) == stop and not context.resume:
            raise Killed
        calls.append(1)
        return real(*arguments)

    took = []
    context = replace(problem.context, checkpoint=tmp_path / "two.pt", took=took.append)
    monkeypatch.setattr(methods.probabilistic, "loss_after_training", dying)
    with pytest.raises(Killed):
        chosen("Probabilistic", problem, context=context, **options)
    state = load_tensors(tmp_path / "two.pt")
    assert 0 < state["seconds"] < 1000
    save_tensors(tmp_path / "two.pt", state | {"seconds": 1000.0})
    context = replace(context, resume=True)
    resumed = chosen("Probabilistic", problem, context=context, **options)
    assert took == [0, 1000]
    assert len(calls) == 6, "steps were made twice, or left out"
    assert same(expected, resumed)
    one, two = load_tensors(tmp_path / "one.pt"), load_tensors(tmp_path / "two.pt")
    assert torch.equal(one["s"], two["s"])
    assert one["seconds"] < 1000 <= two["seconds"], "earlier steps count"
    assert one["losses"] == two["losses"]


def test_a_checkpoint_is_not_read_unless_asked_for(tmp_path: Path) -> None:
    problem = make([7, 6])
    context = replace(problem.context, checkpoint=tmp_path / "state.pt")
    chosen("Probabilistic", problem, context=context, fraction=0.5, seed=1)
    again = chosen("Probabilistic", problem, context=context, fraction=0.5, seed=2)
    assert same(again, chosen("Probabilistic", problem, fraction=0.5, seed=2))


OTHERS = {
    "seed": {"seed": 3},
    "fraction": {"fraction": 0.3},
    "unbalanced": {"balanced": False},
    "inner epochs": {"inner_epochs": 3},
    "step": {"step": 0.5},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_selection_is_refused(changed: dict[str, object], tmp_path: Path) -> None:
    problem = make([7, 6])
    context = replace(problem.context, checkpoint=tmp_path / "state.pt")
    options = {"fraction": 0.5, "seed": 2, "outer_steps": 4}
    chosen("Probabilistic", problem, context=context, **options)
    with pytest.raises(UserError, match=r"state\.pt"):
        chosen("Probabilistic", problem, context=replace(context, resume=True), **options | changed)


@pytest.mark.parametrize("what", ["number of samples", "images", "labels"])
def test_a_checkpoint_of_other_samples_is_refused(what: str, tmp_path: Path) -> None:
    problem = make([7, 6])
    other = {
        "number of samples": make([8, 6]),
        "images": replace(problem, images=255 - problem.images),
        "labels": replace(problem, labels=np.roll(problem.labels, 1)),
    }[what]
    options = {"fraction": 0.5, "seed": 2, "outer_steps": 4}
    path = tmp_path / "state.pt"
    chosen("Probabilistic", problem, context=replace(problem.context, checkpoint=path), **options)
    with pytest.raises(UserError, match=r"state\.pt"):
        chosen("Probabilistic", other, context=replace(other.context, checkpoint=path, resume=True), **options)


def test_a_checkpoint_of_more_steps_is_refused_or_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fewer steps are asked for than were made: the picks are not those after all of them."""
    problem = toy()
    harmful = torch.from_numpy(is_harmful(problem))
    monkeypatch.setattr(
        methods.probabilistic, "loss_after_training", lambda context, mask, *_: float(mask[harmful].sum() / mask.sum())
    )
    context = replace(problem.context, checkpoint=tmp_path / "state.pt")
    options = {"budget": 20, "seed": 2}
    chosen("Probabilistic", problem, context=context, outer_steps=100, **options)
    expected = chosen("Probabilistic", problem, outer_steps=5, **options)
    try:
        subset = chosen("Probabilistic", problem, context=replace(context, resume=True), outer_steps=5, **options)
    except UserError:
        return
    assert same(expected, subset)


@pytest.mark.parametrize("content", ["damaged", "of a training", "a tensor"])
def test_a_file_that_is_no_checkpoint_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    if content == "damaged":
        path.write_bytes(b"PK\x03\x04 cut off")
    else:
        torch.save(torch.zeros(3) if content == "a tensor" else {"epoch": 3, "network": {}}, path)
    problem = make([7, 6])
    with pytest.raises(UserError, match=r"state\.pt"):
        chosen("Probabilistic", problem, fraction=0.5, context=replace(problem.context, checkpoint=path, resume=True))


@both
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_diverged_inner_trainings_teach_nothing(balanced: bool, bad: float, monkeypatch: pytest.MonkeyPatch,
                                                tmp_path: Path) -> None:  # fmt: skip
    problem = toy()
    harmful = torch.from_numpy(is_harmful(problem))
    calls: list[int] = []

    def loss(context: Context, mask: Tensor, *_: object) -> float:
        calls.append(1)
        return bad if len(calls) % 3 == 1 else float(mask[harmful].sum() / mask.sum())

    monkeypatch.setattr(methods.probabilistic, "loss_after_training", loss)
    context = replace(problem.context, checkpoint=tmp_path / "state.pt")
    subset = chosen("Probabilistic", problem, budget=20, balanced=balanced, outer_steps=60, context=context)
    check_form(subset, problem, balanced)
    s = load_tensors(tmp_path / "state.pt")["s"]
    assert torch.isfinite(s).all()
    assert float(s.sum()) == pytest.approx(20, abs=1e-6)


def test_the_loss_of_a_network_that_overflows_is_infinite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights may be finite, as the training checks, and logits not: ∞ − ∞ is no loss to learn from."""
    problem = make([7, 6])

    def ruined(network: LinearNet, *_: object, **__: object) -> None:
        with torch.no_grad():
            network.head.weight.fill_(3e38)

    monkeypatch.setattr(methods.probabilistic, "train", ruined)
    mask = torch.ones(13, dtype=torch.bool)
    assert methods.probabilistic.loss_after_training(problem.context, mask, 1, 0) == float("inf")
