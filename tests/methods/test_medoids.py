"""KMedoids against distances formed in the plainest way, and FirstInOrder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import main
from lcmat import Signals, Subset, UserError
from lcmat.data import Dataset
from lcmat.data.splits import TensorSplit
from lcmat.selection import Context
from lcmat.training import Compute
from methods import get, select
from tests import oracles
from tests.problems import BALANCED, Problem, groups_of, random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
SPACES = pytest.mark.parametrize("space", ["features", "normalised", "pixels"])


def pixels_of(problem: Problem, seed: int = 0) -> np.ndarray:
    """Images of random pixels, one for each sample."""
    return np.random.default_rng(seed).integers(0, 256, (len(problem.labels), 3, 4, 4), dtype=np.uint8)


def context_of(images: np.ndarray, labels: np.ndarray) -> Context:
    """The images, and nothing else."""
    compute = Compute(torch.device("cpu"), torch.float32, (0.5,) * 3, (0.25,) * 3)
    return Context(TensorSplit(torch.from_numpy(images), torch.from_numpy(labels)), compute)


def vectors(problem: Problem, images: np.ndarray, space: str) -> np.ndarray:
    """What distances are between, one dimension and one class at a time."""
    if space == "pixels":
        return images.reshape(len(images), -1) / 255
    h = problem.features.astype(np.float64)
    if space == "features":
        return h
    out = np.zeros_like(h)
    for c in np.unique(problem.labels):
        for k in range(h.shape[1]):
            values = h[problem.labels == c, k]
            spread = np.sqrt(np.mean((values - values.mean()) ** 2))
            out[problem.labels == c, k] = (values - values.mean()) / spread if spread > 0 else 0
    return out


@BALANCED
@SPACES
@pytest.mark.parametrize("seed", range(3))
def test_each_pick_lowers_the_cost_most_by_plain_distances(space: str, seed: int, balanced: bool) -> None:
    """Also with features that do not vary within a class, and with samples that are there twice."""
    problem = random_problem(seed, n=70, d=6)
    problem.features[:, 2] = problem.labels
    problem.features[5:9], problem.labels[5:9] = problem.features[20:24], problem.labels[20:24]
    problem.logits[5:9] = problem.logits[20:24]
    images = pixels_of(problem)
    images[5:9] = images[20:24]
    x = vectors(problem, images, space)
    subset = select(
        problem.signals, "KMedoids", fraction=0.3, space=space, balanced=balanced, weights=True,
        context=context_of(images, problem.labels),
    )  # fmt: skip
    total, start = 0.0, 0
    for group, size in zip(groups_of(problem.labels, balanced), problem.budgets(0.3, balanced), strict=True):
        D = cdist(x[group], x[group])
        picks = np.searchsorted(group, subset.indices[start : start + size])
        assert oracles.greedy_fault(D, picks, oracles.twins(x[group]), oracles.TIE_SIGNALS) is None
        assert subset.weights[start : start + size].sum() == len(group)
        total, start = total + oracles.cost(D, picks), start + size
    assert subset.cost == pytest.approx(total, rel=1e-9)
    assert subset.nested


def test_a_feature_constant_but_for_rounding_does_not_decide() -> None:
    """0.1 summed and divided again is not 0.1: normalised by its deviation, that difference would be of size one."""
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=(49, 2)), np.full(49, 0.1)])
    signals = Signals(features=features, labels=np.zeros(49, dtype=np.int64))
    without = Signals(features=features[:, :2], labels=np.zeros(49, dtype=np.int64))
    both = [select(s, "KMedoids", budget=9, space="normalised") for s in (signals, without)]
    assert both[0].indices.tolist() == both[1].indices.tolist()
    assert both[0].cost == pytest.approx(both[1].cost, rel=1e-12)


def test_images_alone_are_needed_for_pixels_and_features_alone_otherwise() -> None:
    assert get("KMedoids").needs == get("KMedoids").under({"space": "normalised"}).needs == ("features",)
    assert get("KMedoids").under({"space": "Pixels"}).needs == ("images",)
    with pytest.raises(UserError, match=r"KMedoids needs more than signals: the images"):
        select(Signals(labels=np.zeros(5, dtype=np.int64)), "KMedoids", budget=2, space="pixels")
    with pytest.raises(UserError, match=r"space.*'pixel'.*pixels"):
        select(random_problem(0).signals, "KMedoids", budget=9, space="pixel")


@BALANCED
@pytest.mark.parametrize("greedy", ["stochastic", "partition"])
def test_the_other_greedies_come_close(greedy: str, balanced: bool) -> None:
    problem = random_problem(1, n=200, d=4)
    exact, other = (
        select(problem.signals, "KMedoids", fraction=0.1, greedy=g, balanced=balanced) for g in ("exact", greedy)
    )
    assert other.cost < 1.2 * exact.cost
    assert len(other) == len(exact)


@BALANCED
def test_first_in_order_takes_the_first(balanced: bool) -> None:
    labels = np.array([2, 0, 1, 1, 0, 2, 0, 1, 0, 0])
    subset = select(Signals(labels=labels), "FirstInOrder", budget=[2, 2, 1] if balanced else 5, balanced=balanced)
    assert subset.indices.tolist() == ([1, 4, 2, 3, 0] if balanced else [0, 1, 2, 3, 4])


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "1", "--selection_epochs", "1", "--test_interval", "0"]


def test_runs_of_the_command_line(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels need no network, and are those of the images; features need one; several fractions and seeds at once."""
    monkeypatch.chdir(tmp_path)
    words = [*QUICK, "--selection", "KMedoids", "FirstInOrder", "--fraction", "0.01", "0.02", "--seed", "0", "1"]
    for space in ("pixels", "features"):
        assert main.main([*words, "--option", f"KMedoids.space={space}"]) == 0
    kept = [json.loads(path.read_text()) for path in Path("result").glob("*/*/*.json")]
    found = {(r["selection"], r["config"]["options"].get("space"), r["fraction"], r["seed"]) for r in kept}
    assert len(found) == len(kept) == 12
    for record in kept:
        assert (record["config"]["selection_network"] is None) == (
            record["config"]["options"].get("space") != "features"
        )
    x = digits.train.images.flatten(1).double().numpy() / 255
    labels = digits.train.labels.numpy()
    subset = select(
        Signals(labels=labels), "KMedoids", fraction=0.02, space="pixels",
        context=context_of(digits.train.images.numpy(), labels),
    )  # fmt: skip
    path = next(Path("result").glob("*/KMedoids/fraction0.02-seed0-*.npz"))
    chosen = {tuple(Subset.load(p).indices) for p in Path("result").glob("*/KMedoids/fraction0.02-*.npz")}
    assert tuple(subset.indices) in chosen
    assert path.exists()
    own = np.flatnonzero(labels == 0)
    assert subset.indices[0] == own[cdist(x[own], x[own]).sum(1).argmin()]


def test_selection_alone_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--dataset", "digits", "--model", "MLP", "--selection", "KMedoids", "--option", "space=pixels"]
    assert main.main([*words, "--fraction", "0.01", "--select_only"]) == 0
    assert len(list(Path("result").glob("*/KMedoids/subset0.01-*.txt"))) == 1
    assert not list(Path("cache").glob("networks/*.pt"))
