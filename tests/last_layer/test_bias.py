"""A last layer without bias: gradients, Hessians, every method's picks, and where signals come from."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lcmat import Signals, UserError, signals_of_batches
from lcmat.last_layer import LastLayer, gradient_factors, hessian_factors
from lcmat.runs.signal_files import load_signals
from methods import names, select

OF_GRADIENTS = ["LCMat-S", "Craig", "AdaCore", "GradMatch", "GradMatch-Val", "Glister", "Glister-Val", "GraNd"]
OF_GRADIENTS += ["FacilityLocation", "GraphCut", "LogDeterminant", "Influential"]


def under(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor, **more: object) -> Signals:
    """The signals of samples with these features."""
    return Signals(features, head(features).detach(), labels, bias=head.bias is not None, **more)


def by_autograd(head: nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Per-sample gradients and Hessian diagonals in the weights, (n, C·d) each."""
    rows = []
    for h, y in zip(features, labels, strict=True):

        def loss(weight: torch.Tensor, h: torch.Tensor = h, y: torch.Tensor = y) -> torch.Tensor:
            return nn.functional.cross_entropy((weight.reshape(-1, len(h)) @ h)[None], y[None])

        at = head.weight.detach().flatten()
        hessian = torch.autograd.functional.hessian(loss, at)
        rows.append((torch.autograd.functional.jacobian(loss, at), hessian.diagonal()))
    gradients, diagonals = zip(*rows, strict=True)
    return torch.stack(gradients).numpy(), torch.stack(diagonals).numpy()


def problem(n: int, d: int, C: int, seed: int = 0) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    """A random head without bias, features whose length varies, and labels of all classes."""
    draw = torch.Generator().manual_seed(seed)
    head = nn.Linear(d, C, bias=False, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(C, d, generator=draw, dtype=torch.float64))
    features = 0.4 * torch.randn(n, d, generator=draw, dtype=torch.float64)
    return head, features, torch.randperm(n, generator=draw) % C


@pytest.mark.parametrize(("d", "C"), [(1, 2), (3, 4), (7, 10)])
def test_factors_without_bias_are_autograds(d: int, C: int) -> None:
    """Per-sample gradients and Hessian diagonals have C·d entries, those of the weights."""
    head, features, labels = problem(2 * C, d, C)
    signals = under(head, features, labels)
    for factors, expected in zip((gradient_factors, hessian_factors), by_autograd(head, features, labels), strict=True):
        left, right = factors(signals)
        np.testing.assert_allclose((left[:, :, None] * right[:, None]).flatten(1), expected, rtol=1e-10, atol=1e-12)


def test_the_layers_hessian_without_bias_is_autograds() -> None:
    """Products with the Hessian, its diagonal and its extreme eigenvalues, of a loss difference."""
    head, features, labels = problem(30, 3, 4)
    c = torch.linspace(-1, 1, 30, dtype=torch.float64)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return c @ nn.functional.cross_entropy(features @ weight.reshape(4, 3).T, labels, reduction="none")

    at = head.weight.detach().flatten()
    hessian = torch.autograd.functional.hessian(loss, at)
    layer = LastLayer.of(under(head, features, labels))
    assert layer.shape == (4, 3)
    move = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(layer.gradient(c).flatten(), torch.autograd.functional.jacobian(loss, at), **close)
    np.testing.assert_allclose(layer.product(c)(move).flatten(), hessian @ move.flatten(), **close)
    np.testing.assert_allclose(layer.diagonal(c).flatten(), hessian.diagonal(), **close)
    np.testing.assert_allclose(layer.extreme_eigenvalues(c), np.linalg.eigvalsh(hessian)[[0, -1]], **close)
    np.testing.assert_allclose(layer.frobenius([torch.ones_like(c), c])[1], np.linalg.norm(hessian), **close)


@pytest.mark.parametrize("rho", [0.0, 0.1, 2.0])
def test_lcmat_s_without_bias_picks_as_the_plain_greedy_of_autograds_distances(rho: float) -> None:
    """Unbalanced, and all C·d dimensions of λ: Eq. 10 with what autograd gives, and a greedy that forms every cost."""
    head, features, labels = problem(60, 3, 4)
    g, curvature = (torch.from_numpy(x) for x in by_autograd(head, features, labels))
    distance = (torch.cdist(g, g) + rho / 2 * torch.cdist(curvature, curvature, p=1)).numpy()
    nearest, expected = np.full(60, 1e9), []
    for _ in range(8):
        costs = np.minimum(nearest[:, None], distance).sum(0)
        costs[expected] = np.inf
        expected.append(int(costs.argmin()))
        nearest = np.minimum(nearest, distance[:, expected[-1]])
    signals = under(head, features, labels)
    assert select(signals, budget=8, balanced=False, rho=rho).indices.tolist() == expected
    biased = select(Signals(*(getattr(signals, f) for f in ("features", "logits", "labels"))), budget=8, balanced=False)
    assert biased.indices.tolist() != expected, "the problem does not tell a bias from none"


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("method", OF_GRADIENTS)
def test_a_bias_is_a_feature_that_is_always_one(method: str, balanced: bool) -> None:
    """A layer without bias whose last feature is 1 has the gradients of one with bias that lacks the feature."""

    def signals(n: int, seed: int, bias: bool, labels: torch.Tensor | None = None, **more: object) -> Signals:
        head, features, own = problem(n, 4, 3, seed)
        logits = head(features).detach()
        if not bias:
            features = torch.cat([features, torch.ones(n, 1, dtype=torch.float64)], 1)
        return Signals(features, logits, own if labels is None else labels, bias=bias, **more)

    def whole(bias: bool) -> Signals:
        labels = problem(60, 4, 3)[2]
        several = [signals(60, seed, bias, labels) for seed in (2, 3)]
        return signals(60, 0, bias, validation=signals(30, 1, bias), initialisations=several)

    plain, moved = (select(whole(bias), method, fraction=0.3, balanced=balanced) for bias in (True, False))
    assert plain.indices.tolist() == moved.indices.tolist()
    if plain.weights is not None:
        np.testing.assert_allclose(plain.weights, moved.weights, rtol=1e-5)
    if plain.costs is not None:
        np.testing.assert_allclose(plain.costs, moved.costs, rtol=1e-9)


@pytest.mark.parametrize("method", OF_GRADIENTS)
def test_every_method_of_gradients_asks_for_the_bias(method: str) -> None:
    """Features that differ in length alone: with a bias their gradients differ otherwise than without."""
    head, features, labels = problem(90, 2, 3)
    picks = set()
    for bias in (True, False):
        one = Signals(features, head(features).detach(), labels, bias=bias)
        whole = Signals(one.features, one.logits, labels, bias=bias, validation=one, initialisations=[one])
        picks.add(tuple(select(whole, method, budget=12, balanced=False).indices.tolist()))
    assert len(picks) == 2


def test_the_methods_of_gradients_are_all_here() -> None:
    """Whatever else reads features and logits takes them as they are: CAL, of gradients nothing."""
    from methods import get

    reading = {m for m in names() if {"features", "logits"} <= {n.rpartition(".")[2] for n in get(m).needs}}
    assert reading - set(OF_GRADIENTS) == {"CAL"}


def test_the_layer_without_bias_has_fewer_dimensions() -> None:
    """K is at most C·d, and its default too."""
    head, features, labels = problem(30, 3, 4)
    signals = under(head, features, labels)
    assert len(select(signals, budget=8, K=12)) == 8
    with pytest.raises(UserError, match="only 12 dimensions"):
        select(signals, budget=8, K=13)
    everything = select(signals, budget=8, K=12).indices.tolist()
    assert select(signals, budget=8).indices.tolist() == everything


@pytest.mark.parametrize("bias", [True, False])
def test_signals_say_whether_the_head_has_a_bias(bias: bool) -> None:
    """Those taken from a network do, and so do parts of them."""
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=bias))
    data = TensorDataset(torch.randn(12, 5), torch.arange(12) % 3)
    signals = signals_of_batches(network, DataLoader(data, 5))
    assert signals.bias is signals[torch.arange(4)].bias is bias


@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False)])
def test_signal_files_say_whether_there_is_a_bias(tmp_path: Path, value: bool | None, expected: bool) -> None:
    """A file that does not say has one, as ever; the validation split is of the same layer."""
    arrays = {"features": np.ones((4, 2)), "logits": np.eye(4), "labels": np.arange(4)}
    arrays |= {f"validation_{name}": array for name, array in arrays.items()}
    np.savez(tmp_path / "mine.npz", **arrays, **({} if value is None else {"bias": value}))
    signals = load_signals(tmp_path / "mine.npz")
    assert signals.bias is signals.validation.bias is expected


@pytest.mark.parametrize("value", [1, "no", None, np.array([True, False])], ids=repr)
def test_a_bias_that_is_no_truth_value_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="bias must be true or false"):
        Signals(labels=[0, 1], bias=value)


def test_a_validation_split_of_another_layer_is_refused() -> None:
    """Its gradients would have other dimensions."""
    arrays = {"features": np.ones((4, 2)), "logits": np.eye(4), "labels": np.arange(4)}
    with pytest.raises(UserError, match="validation signals has a bias, that of the training signals has none"):
        Signals(**arrays, bias=False, validation=Signals(**arrays))
