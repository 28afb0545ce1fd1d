"""Mean gradients and features of classes, and variances, against a loop over samples."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
from lcmat import UserError
from lcmat.condensation.class_statistics import (
    ClassBatch,
    Statistics,
    backpack_moments,
    closed_form_moments,
    features_and_logits,
    matched_weights,
    mean_features,
    mean_gradients,
)
from lcmat.condensation.matching import variance
from tests import oracles
from tests.matching import CLASSES, Tiny, batch, layers_of, per_sample_gradients, seeded

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


class Odd(nn.Module):
    """A weight that belongs to no known layer, and no `embed`."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(32, 5) / 4)
        self.last = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.last((x.flatten(1) @ self.mixing).tanh())


NETWORKS = {
    "tiny": Tiny,
    "overwritten outputs": partial(Tiny, inplace=True),
    "a layer called twice": partial(Tiny, twice=True),
    "padding by name": partial(Tiny, padding="same"),
    "no bias": partial(Tiny, bias=False),
    "a weight of its own": Odd,
    "MLP": partial(nets.build, "MLP", CLASSES, 2, 4),
    "ConvNet3": partial(nets.build, "ConvNet3", CLASSES, 2, 8),
    "ResNet10": partial(nets.build, "ResNet10", CLASSES, 2, 8),
}
SMALL = ["tiny", "overwritten outputs", "a layer called twice", "padding by name", "no bias", "a weight of its own"]
every_network = pytest.mark.parametrize("name", NETWORKS)
small_networks = pytest.mark.parametrize("name", SMALL)


def size_for(name: str) -> int:
    return 8 if name in ("ConvNet3", "ResNet10") else 4


@layers_of
@every_network
def test_mean_gradients_against_a_loop_over_samples(name: str, layers: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [3, 1, 4]
    images, labels, weights = batch(sizes, size_for(name))
    if layers == "convolutions" and not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        with pytest.raises(UserError, match="take layers=all"):
            mean_gradients(network, ClassBatch(images, labels, weights, sizes), graph=False, layers=layers)
        return
    names = list(matched_weights(network, layers))
    assert all(dict(network.named_parameters())[n].ndim > 1 for n in names)
    found = mean_gradients(network, ClassBatch(images, labels, weights, sizes), graph=False, layers=layers)
    slow = per_sample_gradients(network, images, labels, names)
    assert list(found) == names
    for key in names:
        expected = torch.stack([part.mean(0) for part in slow[key].split(sizes)])
        torch.testing.assert_close(found[key], expected)
        assert not found[key].requires_grad


@small_networks
def test_mean_gradients_of_all_classes_are_those_of_each(name: str) -> None:
    """And so are their gradients in the images, whatever way they were computed."""
    network, sizes = seeded(NETWORKS[name]), [3, 1, 4]
    images, labels, weights = batch(sizes)
    together = images.clone().requires_grad_()
    found = mean_gradients(
        network, ClassBatch(together, labels, weights, sizes), graph=True, moments=closed_form_moments
    )
    pull = {key: torch.randn_like(value) for key, value in found.items()}
    sum((found[key] * pull[key]).sum() for key in found).backward()
    apart = images.clone().requires_grad_()
    parts = zip(apart.split(sizes), labels.split(sizes), weights.split(sizes), strict=True)
    alone = [
        mean_gradients(network, ClassBatch(x, y, w, [len(y)]), graph=True, moments=closed_form_moments)
        for x, y, w in parts
    ]
    for key, value in found.items():
        torch.testing.assert_close(value, torch.cat([one[key] for one in alone]))
    sum((torch.cat([one[key] for one in alone]) * pull[key]).sum() for key in found).backward()
    torch.testing.assert_close(together.grad, apart.grad)


@every_network
def test_mean_features(name: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [2, 5, 1]
    images, labels, weights = batch(sizes, size_for(name))
    found = mean_features(network, ClassBatch(images, labels, weights, sizes), graph=False)["features"]
    with torch.no_grad():
        features, logits = features_and_logits(network, images)
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(found, torch.stack([part.mean(0) for part in features.split(sizes)]))


HEAD = {
    "tiny": ("head.weight", "head.bias"),
    "no bias": ("head.weight",),
    "a weight of its own": ("last.weight", "last.bias"),
}


@pytest.mark.parametrize("moments", [closed_form_moments, backpack_moments], ids=["closed form", "BackPACK"])
@pytest.mark.parametrize("name", HEAD)
def test_variance_against_a_loop_over_samples(name: str, moments: Callable[..., Statistics]) -> None:
    """NumPy's unbiased variance of the last layer's gradients, taken image by image."""
    network, sizes = seeded(NETWORKS[name]), [4, 2, 7]
    images, labels, weights = batch(sizes)
    found = mean_gradients(network, ClassBatch(images, labels, weights, sizes), graph=False, moments=moments)
    slow = per_sample_gradients(network, images, labels, HEAD[name])
    g = torch.cat([value.reshape(len(images), CLASSES, -1) for value in slow.values()], 2)
    expected = np.stack([np.var(part.numpy(), axis=0, ddof=1) for part in g.split(sizes)])
    np.testing.assert_allclose(variance(found, torch.tensor(sizes)).numpy(), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", HEAD)
def test_closed_form_variance_has_the_gradient_of_backpacks(name: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [4, 3]
    images, labels, weights = batch(sizes)
    pull, gradients = None, []
    for moments in (closed_form_moments, backpack_moments):
        x = images.clone().requires_grad_()
        found = mean_gradients(network, ClassBatch(x, labels, weights, sizes), graph=True, moments=moments)
        value = variance(found, torch.tensor(sizes))
        pull = torch.randn_like(value) if pull is None else pull
        gradients.append(torch.autograd.grad((value * pull).sum(), x)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 1e-6


def test_variance_survives_sure_predictions_in_float32() -> None:
    """Probabilities that round to one: what is left of g must not be lost, nor E[g²] − ḡ² fall below zero by much."""
    network, sizes = seeded(Tiny), [6, 6]
    with torch.no_grad():
        network.head.weight.mul_(60)
    images, labels, weights = batch(sizes)
    exact = variance(
        mean_gradients(network, ClassBatch(images, labels, weights, sizes), False, moments=closed_form_moments),
        torch.tensor(sizes),
    )
    network, images, weights = network.float(), images.float(), weights.float()
    single = variance(
        mean_gradients(network, ClassBatch(images, labels, weights, sizes), False, moments=closed_form_moments),
        torch.tensor(sizes),
    )
    torch.testing.assert_close(single, exact, rtol=1e-3, atol=1e-4 * float(exact.max()))
