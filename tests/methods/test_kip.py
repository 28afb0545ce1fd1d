"""KIP: its kernel against finite-width networks and the closed formula, its loss against plain regression."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from lcmat import UserError, seeds
from lcmat.block_sizes import sized
from lcmat.condensation.condenser import Task
from lcmat.data.splits import Dataset
from lcmat.training import Compute, DivergedError
from methods import kip
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def points(count: int, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def empirical_ntk(x: Tensor, z: Tensor, depth: int, width: int, seed: int) -> np.ndarray:
    """⟨∂f(x)/∂θ, ∂f(z)/∂θ⟩ of one random network in NTK parametrisation, f its single output; by hand, in NumPy.

    f = √(2/n) v·φ_L + 0.1 b, φ_l = relu(√(2/n) W φ_{l−1} + 0.1 b).
    """
    rng = np.random.default_rng(seed)
    sides = []
    weights = []
    inputs = x.shape[1]
    for _ in range(depth):
        weights.append((rng.normal(size=(width, inputs)), rng.normal(size=width)))
        inputs = width
    last = rng.normal(size=width)
    for points_ in (x.numpy(), z.numpy()):
        active, values, masks = points_, [points_], []
        for w, b in weights:
            pre = active @ w.T * math.sqrt(2 / w.shape[1]) + 0.1 * b
            masks.append(pre > 0)
            active = np.maximum(pre, 0)
            values.append(active)
        # backward: δ of each layer's pre-activation
        delta = last * math.sqrt(2 / width) * masks[-1]
        deltas = [delta]
        for (w, _), mask in zip(reversed(weights[1:]), reversed(masks[:-1]), strict=True):
            deltas.append(deltas[-1] @ w * math.sqrt(2 / w.shape[1]) * mask)
        sides.append((values, deltas[::-1]))
    (a_values, a_deltas), (b_values, b_deltas) = sides
    total = 2 / width * a_values[-1] @ b_values[-1].T + 0.01  # the last layer's weights and bias
    for a, b, da, db in zip(a_values, b_values, a_deltas, b_deltas, strict=False):
        total = total + (da @ db.T) * (2 / a.shape[1] * a @ b.T + 0.01)
    return total


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_kernel_against_finite_networks(depth: int) -> None:
    x, z = points(4), points(3, seed=1)
    several = np.stack([empirical_ntk(x, z, depth, 1000, seed) for seed in range(40)])
    mean, error = several.mean(0), several.std(0, ddof=1) / math.sqrt(len(several))
    found = kip.ntk(x, z, depth).numpy()
    # Each entry within 4 standard errors and what a width of 1000 leaves (1/width), which is 1% in all
    assert (np.abs(found - mean) < 4 * error + depth * np.abs(found) / 1000).all()
    assert (error < 0.02 * np.abs(found).max()).all()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_kernel_against_the_arc_cosine_formula(depth: int) -> None:
    """Cho & Saul 2009, entry by entry, in their terms of the angle and the norms."""
    x, z = points(4), points(3, seed=1)

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        return 2 * float(a @ b) / len(a) + 0.01

    def entry(a: np.ndarray, b: np.ndarray) -> float:
        aa, ab, bb = covariance(a, a), covariance(a, b), covariance(b, b)
        kernel = ab
        for _ in range(depth):
            angle = math.acos(max(-1.0, min(1.0, ab / math.sqrt(aa * bb))))
            j0 = math.pi - angle
            j1 = math.sin(angle) + (math.pi - angle) * math.cos(angle)
            ab = 2 * math.sqrt(aa * bb) * j1 / (2 * math.pi) + 0.01
            kernel = ab + 2 * kernel * j0 / (2 * math.pi)
            aa, bb = aa + 0.01, bb + 0.01
        return kernel

    expected = [[entry(a, b) for b in z.numpy()] for a in x.numpy()]
    np.testing.assert_allclose(kip.ntk(x, z, depth).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("c", [-0.9, -0.2, 0.0, 0.5, 0.99])
def test_arc_cosine_functions_are_expectations(c: float) -> None:
    """E[relu(u) relu(v)] and P(u > 0, v > 0) by integration over normal u, v of correlation c."""

    def density(v: float, u: float) -> float:
        return math.exp(-(u * u - 2 * c * u * v + v * v) / (2 * (1 - c * c))) / (2 * math.pi * math.sqrt(1 - c * c))

    first, _ = integrate.dblquad(lambda v, u: u * v * density(v, u), 0, 8, 0, 8)
    zeroth, _ = integrate.dblquad(density, 0, 8, 0, 8)
    value = torch.tensor(c, dtype=torch.float64)
    assert float(kip.FirstArcCosine.apply(value)) == pytest.approx(first, abs=1e-6)
    assert float(kip.ZerothArcCosine.apply(value)) == pytest.approx(zeroth, abs=1e-6)


@pytest.mark.parametrize("depth", [1, 3])
def test_gradients_of_the_kernel(depth: int) -> None:
    x, z = points(3).requires_grad_(), points(2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, z: kip.ntk(x, z, depth), (x, z))


def test_gradient_of_the_loss_is_finite_and_right() -> None:
    """Also where every image meets itself, at correlation 1; against finite differences."""
    support, targets = points(6), points(9, seed=1)
    y_support, y = (kip.centred(torch.arange(n) % 3, 3) for n in (6, 9))
    _, gradient = kip.loss_and_gradient(support, y_support, targets, y, 1, 1e-6)
    direction = points(6, seed=2)
    high, low = (
        float(kip.loss_and_gradient(support + t * direction, y_support, targets, y, 1, 1e-6)[0]) for t in (1e-6, -1e-6)
    )
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("piece", [1, 12, 30])
def test_targets_in_pieces_give_the_same(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, two by two and five and four; of kernels between targets and images none is larger."""
    support, targets = points(6), points(9, seed=1)
    y_support, y = (kip.centred(torch.arange(n) % 3, 3) for n in (6, 9))
    whole = kip.loss_and_gradient(support, y_support, targets, y, 2, 1e-3)
    shapes, ntk = [], kip.ntk
    monkeypatch.setattr(kip, "ntk", lambda x, z, depth: shapes.append((len(x), len(z))) or ntk(x, z, depth))
    with sized(elements=piece):
        parts = kip.loss_and_gradient(support, y_support, targets, y, 2, 1e-3)
    assert shapes[0] == (6, 6)
    assert [n for n, _ in shapes[1:]] == {1: [1] * 9, 12: [2, 2, 2, 2, 1], 30: [5, 4]}[piece]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_loss_is_that_of_kernel_ridge_regression() -> None:
    """½ of the mean over samples and classes, with the inverse written out in NumPy."""
    support, targets = points(6), points(9, seed=1)
    labels = torch.arange(6) % 3, torch.arange(9) % 3
    k_ss, k_ts = kip.ntk(support, support, 1).numpy(), kip.ntk(targets, support, 1).numpy()
    ridge = 1e-2 * np.trace(k_ss) / 6
    y_s, y_t = (np.eye(3)[label.numpy()] - 1 / 3 for label in labels)
    prediction = k_ts @ np.linalg.inv(k_ss + ridge * np.eye(6)) @ y_s
    expected = 0.5 * ((prediction - y_t) ** 2).mean()
    found, _ = kip.loss_and_gradient(support, kip.centred(labels[0], 3), targets, kip.centred(labels[1], 3), 1, 1e-2)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def task(digits: Dataset, compute: Compute, **more: object) -> Task:
    return Task(digits.train, [1] * 10, compute, dataset="digits", **more)


def test_it_learns_digits(digits: Dataset, compute: Compute) -> None:
    """Regression on one learned image of each class: on all test images, better than on the real ones it began with."""
    how = kip.KIP.resolved([1] * 10, {"iterations": 40, "targets": 500})
    synthetic = kip.kip(task(digits, compute), **how)
    begun = kip.kip(task(digits, compute), **{**how, "iterations": 1, "image_lr": 1e-12})

    def accuracy(images: Tensor) -> float:
        mean, std = (value.double() for value in compute.statistics)
        x = (images.double() - mean[:, None, None]) / std[:, None, None]
        z = (digits.test.images.double() / 255 - mean[:, None, None]) / std[:, None, None]
        x, z = x.flatten(1), z.flatten(1)
        kernel = kip.ntk(x, x, 1)
        kernel += 1e-6 * kernel.trace() / len(kernel) * torch.eye(len(kernel))
        predicted = kip.ntk(z, x, 1) @ torch.linalg.solve(kernel, kip.centred(synthetic.labels, 10))
        return float((predicted.argmax(1) == digits.test.labels).double().mean())

    assert accuracy(synthetic.images) > accuracy(begun.images) + 0.15
    assert synthetic.curve[-1][1] < 0.6 * synthetic.curve[0][1]
    assert synthetic.labels.tolist() == list(range(10))
    assert synthetic.images.dtype == torch.float32


def test_targets_are_balanced_and_drawn_anew(
    digits: Dataset, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def note(positions: list[Tensor], sizes: list[int], draw: torch.Generator) -> list[Tensor]:
        drawn.append(kip_drawn(positions, sizes, draw))
        return drawn[-1]

    kip_drawn = kip.drawn_from_classes
    monkeypatch.setattr(kip, "drawn_from_classes", note)
    kip.kip(task(digits, compute), iterations=2, targets=200)
    assert [len(part) for part in drawn[0]] == [20] * 10
    for label, part in enumerate(drawn[0]):
        assert (digits.train.labels[part] == label).all()
    assert not torch.equal(torch.cat(drawn[0]), torch.cat(drawn[1]))


def test_resumed_equals_undisturbed(digits: Dataset, compute: Compute, tmp_path: Path) -> None:
    """Adam's state included."""
    whole = kip.kip(task(digits, compute), iterations=6, targets=100)

    class StoppedError(Exception):
        pass

    def stop(iteration: int, _: object) -> None:
        if iteration == 3:
            raise StoppedError

    checkpoint = tmp_path / "state.pt"
    keep = {"checkpoint": checkpoint, "checkpoint_seconds": 0.0, "snapshots": 6}
    with pytest.raises(StoppedError):
        kip.kip(task(digits, compute, snapshot=stop, **keep), iterations=6, targets=100)
    resumed = kip.kip(task(digits, compute, resume=True, **keep), iterations=6, targets=100)
    assert torch.equal(whole.images, resumed.images)
    assert torch.equal(whole.curve, resumed.curve)


def test_a_singular_kernel_or_wild_rate_stops_the_run(digits: Dataset, compute: Compute) -> None:
    with pytest.raises(DivergedError, match=r"explode|the matching loss is nan"):
        kip.kip(task(digits, compute), iterations=10, targets=100, image_lr=1e6)
    zero = torch.zeros(3, 4, dtype=torch.float64)
    y = kip.centred(torch.arange(3), 3)
    loss, _ = kip.loss_and_gradient(zero, y, points(5, 4), kip.centred(torch.arange(5) % 3, 3), 1, 1e-30)
    assert math.isnan(float(loss))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be a whole number of at least 1"),
        ({"targets": 0}, "targets must be a whole number of at least 1"),
        ({"depth": 1.5}, "depth must be a whole number"),
        ({"image_lr": 0.0}, "image_lr must be above 0"),
        ({"regularisation": -1.0}, "regularisation must be above 0"),
        ({"init": "reel"}, "did you mean real"),
        ({"iteration": 3}, "did you mean iterations"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kip.KIP.resolved([1] * 10, options)


def test_seeds_differ(digits: Dataset, compute: Compute) -> None:
    first, second = (kip.kip(task(digits, compute, seed=seed), iterations=1, targets=100) for seed in (0, 1))
    assert not torch.equal(first.images, second.images)
    assert seeds.derive(0, "targets", 0) != seeds.derive(0, "targets", 1)
