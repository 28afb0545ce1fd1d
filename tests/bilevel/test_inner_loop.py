"""The inner loop: full-batch training on a mask, and the loss on all images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nets
from lcmat import memory_limit
from lcmat.bilevel import inner_loop
from lcmat.bilevel.inner_loop import mean_loss, prepared, train_full_batch
from lcmat.block_sizes import sized
from lcmat.data.splits import FileSplit, TensorSplit
from lcmat.errors import UserError
from lcmat.selection.context import Context
from lcmat.training import Compute, Recipe, predictions, train
from tests import oracles
from tests.networks import TinyNet
from tests.searches import first_digits, lbcs, tiny_networks_on

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
split = pytest.fixture(first_digits, scope="module", name="split")
context = pytest.fixture(tiny_networks_on, scope="module", name="context")


def slowly(network: nn.Module, split: TensorSplit, compute: Compute, index: Tensor, steps: int, lr: float) -> float:
    """The same trial by the usual training loop and a pass over all samples."""
    recipe = Recipe(epochs=steps, batch=len(index), optimizer="Adam", lr=lr, weight_decay=0, scheduler="constant")
    train(network, split.take(index), recipe, compute, seed=0)
    with torch.no_grad():
        parts = [F.cross_entropy(z, y, reduction="none") for z, y, _ in predictions(network, split, compute, batch=70)]
    return float(torch.cat(parts).double().mean())


@pytest.mark.parametrize("name", ["LeNet", "SVHN-CNN-small", "ResNet10"])
@pytest.mark.filterwarnings("ignore:LeNet enlarges")
def test_a_trial_is_that_of_the_usual_training_loop(name: str, split: TensorSplit, compute: Compute) -> None:
    """Which takes the samples in another order, so that sums round otherwise."""

    def network() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return nets.build(name, 10, 1, 8)

    index = torch.arange(0, 300, 9)
    own, images = network(), prepared(split, compute)
    before = mean_loss(own.to(memory_format=torch.channels_last), images)
    train_full_batch(own, *images.take(index), compute, steps=4, lr=1e-3, seed=0)
    loss = mean_loss(own, images)
    assert own.training
    assert abs(loss - before) > 1e-3
    assert loss == pytest.approx(slowly(network(), split, compute, index, 4, 1e-3), rel=1e-4)


def test_images_are_normalised_once_or_whenever_they_are_needed(
    split: TensorSplit, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    counted = Compute.inputs
    monkeypatch.setattr(Compute, "inputs", lambda self, images: (calls.append(len(images)), counted(self, images))[1])
    held = prepared(split, compute)
    assert sum(calls) == 300
    with sized(images=128):
        found = [(mean_loss(TinyNet(0), held), *held.take(torch.tensor([5, 2])))]
    assert sum(calls) == 300, "images were normalised again"
    assert torch.equal(held.inputs, counted(compute, split.images))
    with memory_limit.limited(1):
        anew = prepared(split, compute)
    assert anew.inputs is None
    with sized(images=128):
        found.append((mean_loss(TinyNet(0), anew), *anew.take(torch.tensor([5, 2]))))
    assert calls[-4:] == [128, 128, 44, 2]
    assert sum(calls) == 602
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1:], found[1][1:], strict=True))


def test_images_in_files_will_do(split: TensorSplit, compute: Compute, tmp_path: Path) -> None:
    """As an image folder too large for memory has them."""
    paths = [Path(str(i)) for i in range(len(split))]
    files = FileSplit(paths, split.labels, lambda path: split.images[int(path.name)], (1, 8, 8), tmp_path, workers=0)
    one, other = prepared(split, compute), prepared(files, compute)
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("name", ["LeNet", "ResNet10"])
@pytest.mark.filterwarnings("ignore:LeNet enlarges")
def test_pieces_of_a_full_batch_give_its_gradient(
    name: str, split: TensorSplit, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With BatchNorm, where a sample's gradient depends on the others, there is one piece."""
    found, sizes = [], []
    for size in (300, 7):
        torch.manual_seed(0)
        network = nets.build(name, 10, 1, 8)
        network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        with sized(images=size):
            inputs, labels = prepared(split, compute).take(torch.arange(30))
            train_full_batch(network, inputs, labels, compute, steps=3, lr=1e-3, seed=0)
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
    assert (7 in sizes) == (name == "LeNet")


def test_a_full_batch_that_does_not_fit_is_told(
    split: TensorSplit, compute: Compute, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gradient needs is measured on two images: within a tenth of what PyTorch holds for all."""
    network, images = nets.build("ResNet10", 10, 1, 8), prepared(split, compute)
    held = 0

    def count(value: Tensor) -> Tensor:
        nonlocal held
        held += 0 if isinstance(value, nn.Parameter) else value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        network(images.take(torch.arange(100))[0])
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(1.1 * held))
    inner_loop.check_memory(network, images, 100)
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(0.9 * held))
    inner_loop.check_memory(nets.build("MLP", 10, 1, 8), images, 100)
    with pytest.raises(UserError, match=r"100 samples at once need .* GB with BatchNorm.*--inner_model"):
        inner_loop.check_memory(network, images, 100)
    resnet = replace(context, fresh_network=lambda number: network)
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(0.3 * held))
    with pytest.raises(UserError, match="40 samples at once"):
        lbcs(resnet)
