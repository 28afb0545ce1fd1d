"""Matching losses against definitions written out slowly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lcmat import UserError
from lcmat.condensation.class_statistics import ClassBatch, matched_weights
from lcmat.condensation.matching import EPSILON, curvature_matching, feature_matching, gradient_matching
from tests import oracles
from tests.matching import CLASSES, Tiny, batch, layers_of, per_sample_gradients, seeded

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


def slow_distance(metric: str, a: np.ndarray, b: np.ndarray) -> float:
    """Of one layer of one class, output by output."""
    total = 0.0
    for x, y in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
        if metric == "cosine":
            total += 1 - float(x @ y) / (np.sqrt(float(x @ x)) * np.sqrt(float(y @ y)) + EPSILON)
        elif metric == "squared":
            total += float(((x - y) ** 2).sum())
        else:
            total += float(np.abs(x - y).sum())
    return total


def slow_loss(network: nn.Module, real, synthetic, metric: str, layers: str, rho: float) -> list[float]:
    """Eq. 15 for each class, from gradients taken image by image."""
    names = list(matched_weights(network, layers))
    head = ["head.weight", "head.bias"]
    losses = []
    for label in range(CLASSES):
        sides = []
        for images, labels in (real, synthetic):
            own = labels == label
            g = per_sample_gradients(network, images[own], labels[own], list(dict.fromkeys(names + head)))
            sides.append({key: value.numpy() for key, value in g.items()})
        t, s = sides
        total = sum(slow_distance(metric, t[n].mean(0), s[n].mean(0)) for n in names)
        if len(t[head[0]]) > 1 and len(s[head[0]]) > 1:
            total += rho / 2 * sum(np.abs(t[n].var(0, ddof=1) - s[n].var(0, ddof=1)).sum() for n in head)
        losses.append(total)
    return losses


@pytest.mark.parametrize("rho", [0.0, 0.7])
@layers_of
@pytest.mark.parametrize("metric", ["cosine", "squared", "absolute"])
def test_gradient_and_curvature_matching_against_the_definition(metric: str, layers: str, rho: float) -> None:
    network = seeded(Tiny)
    sizes = {"real": [5, 4, 3], "synthetic": [2, 1, 3]}
    sides = {side: batch(numbers, seed=len(side)) for side, numbers in sizes.items()}
    matching = curvature_matching(rho, metric, layers)
    found = [matching.statistics(network, ClassBatch(*sides[side], sizes[side]), False) for side in sizes]
    losses = matching.loss(*found, *(torch.tensor(numbers) for numbers in sizes.values()))
    expected = slow_loss(network, sides["real"][:2], sides["synthetic"][:2], metric, layers, rho)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9)


def test_feature_matching_against_the_definition() -> None:
    network = seeded(Tiny)
    real, synthetic = batch([5, 4, 3]), batch([2, 1, 3], seed=1)
    matching = feature_matching()
    found = [
        matching.statistics(network, ClassBatch(*real, [5, 4, 3]), False),
        matching.statistics(network, ClassBatch(*synthetic, [2, 1, 3]), False),
    ]
    expected = []
    with torch.no_grad():
        for label in range(CLASSES):
            a, b = (network.embed(x[y == label]).mean(0) for x, y, _ in (real, synthetic))
            expected.append(float(((a - b) ** 2).sum()))
    np.testing.assert_allclose(matching.loss(*found).numpy(), expected, rtol=1e-12)


def test_no_radius_is_gradient_matching_exactly() -> None:
    network = seeded(Tiny).float()
    sides = [tuple(v.float() if v.is_floating_point() else v for v in batch([4, 4, 4], seed=seed)) for seed in (0, 1)]
    losses = []
    for matching in (gradient_matching("squared", "convolutions"), curvature_matching(0.0)):
        found = [matching.statistics(network, ClassBatch(*side, [4, 4, 4]), False) for side in sides]
        assert "first" not in found[0]
        losses.append(matching.loss(*found, *[torch.tensor([4, 4, 4])] * 2))
    assert torch.equal(*losses)


@pytest.mark.parametrize("counts", [([1, 4, 4], [4, 4, 4]), ([4, 4, 4], [1, 4, 4])], ids=["real", "synthetic"])
def test_a_single_image_has_no_variance(counts: tuple[list[int], list[int]]) -> None:
    """On either side: the term of that class is zero, and gives no gradient."""
    network = seeded(Tiny)
    real, synthetic = (batch(sizes, seed=seed) for seed, sizes in enumerate(counts))
    x = synthetic[0].requires_grad_()
    losses, slopes = [], []
    for rho in (0.0, 1.0):
        matching = curvature_matching(rho)
        found = [
            matching.statistics(network, ClassBatch(*side, sizes), True)
            for side, sizes in zip((real, synthetic), counts, strict=True)
        ]
        losses.append(matching.loss(*found, *map(torch.tensor, counts)))
        slopes.append(torch.autograd.grad(losses[-1].sum(), x)[0])
    first = slice(0, counts[1][0])
    assert losses[0][0] == losses[1][0]
    assert (losses[0][1:] < losses[1][1:]).all()
    torch.testing.assert_close(slopes[0][first], slopes[1][first])
    assert not torch.allclose(slopes[0][first.stop :], slopes[1][first.stop :])


def test_vanishing_gradients_give_no_nan() -> None:
    distance = gradient_matching("cosine").loss
    zero, some = torch.zeros(1, 2, 3, requires_grad=True), torch.ones(1, 2, 3)
    loss = distance({"w": some}, {"w": zero})
    assert loss.tolist() == [2.0]
    assert torch.isfinite(torch.autograd.grad(loss.sum(), zero)[0]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gradient_matching("cosin"), "did you mean cosine"),
        (lambda: gradient_matching(layers="convolution"), "did you mean convolutions"),
        (lambda: curvature_matching(-1.0), "rho must be 0 or more"),
        (lambda: curvature_matching(float("inf")), "rho must be 0 or more and finite"),
    ],
)
def test_bad_losses(make: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        make()
