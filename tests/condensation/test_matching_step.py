"""One step over all classes against a loop over them."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import nets
from lcmat.augmentation.siamese import DSA, IDC_MATCHING, NONE, applied
from lcmat.condensation.class_statistics import ClassBatch
from lcmat.condensation.matching_step import Limits, Pair, Stored, limits, matching_gradient, unit_map
from lcmat.condensation.synthetic import decoded
from tests import oracles
from tests.matching import CLASSES, MATCHINGS, Tiny, problem, seeded

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
STRATEGIES = {"none": NONE, "dsa": DSA, "idc": IDC_MATCHING}
every_matching = pytest.mark.parametrize("matching", MATCHINGS.values(), ids=MATCHINGS)


def plain_loss(network, matching, images: Tensor, pairs: list[Pair], factor: int = 1) -> Tensor:
    """The loss as it is defined, class by class in one graph."""
    total = 0
    for pair in pairs:
        x, s = applied(pair.real, pair.draw), applied(decoded(images[pair.rows], factor), pair.draw)
        found = []
        for inputs in (x, s):
            n = len(inputs)
            weights = torch.full((n,), 1 / n, dtype=inputs.dtype)
            labels = torch.full((n,), pair.label)
            found.append(matching.statistics(network, ClassBatch(inputs, labels, weights, [n]), True))
        total = total + matching.loss(*found, torch.tensor([len(x)]), torch.tensor([len(s)])).sum()
    return total


WAYS = {
    "class by class": Limits(100, 100, together=False),
    "all at once": Limits(100, 100, together=True),
    "two at once": Limits(11, 100, together=True),
    "in pieces": Limits(2, 100, together=False),
    "synthetic in pieces": Limits(4, 2, together=True),
    "one by one": Limits(1, 1, together=False),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@every_matching
def test_a_step_is_that_of_the_plain_loop(matching, way: Limits) -> None:
    network = seeded(Tiny)
    for strategy in STRATEGIES.values():
        images, pairs = problem(strategy)
        x = images.clone().requires_grad_()
        expected = plain_loss(network, matching, x, pairs)
        loss, gradient = matching_gradient(network, matching, Stored(images, lambda x: x), pairs, limit=way)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])


@pytest.mark.parametrize("way", ["all at once", "one by one"])
@every_matching
def test_a_step_with_several_images_stored_in_one(matching, way: str) -> None:
    network = seeded(Tiny)
    images, pairs = problem(IDC_MATCHING)
    x = images.clone().requires_grad_()
    expected = plain_loss(network, matching, x, pairs, factor=2)
    decode = partial(decoded, factor=2)
    loss, gradient = matching_gradient(network, matching, Stored(images, decode, 2), pairs, limit=WAYS[way])
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])


@every_matching
def test_a_step_against_finite_differences(matching) -> None:
    """Without the library's gradients: the loss alone, moved a little along a random direction."""
    network = seeded(partial(Tiny))
    network.act = nn.Softplus()  # smooth, where ReLU has corners
    images, pairs = problem(IDC_MATCHING)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, gradient = matching_gradient(network, matching, Stored(images, lambda x: x), pairs)
    step = 1e-5
    high, low = (plain_loss(network, matching, images + t * direction, pairs).item() for t in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / (2 * step), rel=1e-5)


def test_threads_give_the_same_step_bit_for_bit() -> None:
    network = seeded(partial(nets.build, "ConvNet3", CLASSES, 2, 8)).float()
    images, pairs = problem(DSA, size=8)
    images, pairs = images.float(), [Pair(p.label, p.real.float(), p.rows, p.draw) for p in pairs]
    for matching in (MATCHINGS["features"], MATCHINGS["curvature"]):
        alone = matching_gradient(network, matching, Stored(images, lambda x: x), pairs)
        torch.set_num_threads(2)
        try:
            with unit_map(torch.device("cpu"), 3) as map_units:
                threads = matching_gradient(network, matching, Stored(images, lambda x: x), pairs, map_units=map_units)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)
        assert torch.equal(alone[0], threads[0])
        assert torch.equal(alone[1], threads[1])


def test_the_graph_does_not_grow_with_the_images() -> None:
    """No pass holds more images than the limit, however many a class has, and none more in the graph than its limit."""
    seen, in_graph = [], []

    class Counting(Tiny):
        def embed(self, x: Tensor) -> Tensor:
            (in_graph if x.requires_grad else seen).append(len(x))
            return super().embed(x)

    network = seeded(Counting)
    images, pairs = problem(stored=(40, 1, 30), real=(70, 4, 6))
    matching_gradient(
        network, MATCHINGS["curvature"], Stored(images, lambda x: x), pairs, limit=Limits(16, 8, together=True)
    )
    assert max(seen) <= 16
    assert sum(seen) == 70 + 4 + 6 + 40 + 30  # the statistics of synthetic classes that do not fit, before the gradient
    assert max(in_graph) <= 8
    assert sum(in_graph) == 40 + 1 + 30
    assert limits(torch.device("cpu"), (3, 32, 32)) == Limits(16, 128, together=False)
    assert limits(torch.device("cpu"), (1, 8, 8)).images == 256
    assert limits(torch.device("cuda"), (3, 32, 32)) == Limits(1024, 1024, together=True)
