"""Every network: its parameters, the images it takes, and its last layer's signals against autograd."""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import nets
from lcmat.data.splits import TensorSplit
from lcmat.last_layer import gradient_factors
from lcmat.signals.networks import linear_head, take_signals
from lcmat.training import Compute, Recipe, train

every_network = pytest.mark.parametrize("name", nets.names())


def build(name: str, classes: int = 10, channels: int = 3, size: int = 32) -> nn.Module:
    """A network under a fixed seed; that it enlarges images is tested elsewhere."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return nets.build(name, classes, channels, size)


def size_of(network: nn.Module) -> int:
    """How many parameters it has."""
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ResNet18", 11_173_962),  # these three, and DenseNet121, as widely used CIFAR code counts them
        ("ResNet50", 23_520_842),
        ("VGG16", 14_728_266),
        ("DenseNet121", 1_000_618),
        ("WRN-16-8", 10_961_370),  # the paper says 11.0 million
        ("ConvNet3", 320_010),  # as published with dataset condensation
    ],
)
def test_parameter_counts_for_cifar10(name: str, expected: int) -> None:
    assert size_of(build(name)) == expected


def test_parameter_counts_for_other_data() -> None:
    assert size_of(build("LeNet", 10, 1, 28)) == 61_706  # LeNet-5
    # The stems differ in strides alone, so that the counts for ImageNet hold (Inception without its auxiliary head).
    assert size_of(build("MobileNetV3", 1000)) == size_of(torchvision.models.mobilenet_v3_large())
    auxiliary = torchvision.models.inception_v3(init_weights=False)
    assert size_of(build("InceptionV3", 1000)) == size_of(auxiliary) - size_of(auxiliary.AuxLogits)


def by_hand(convolutions: list[tuple[int, int, int]], widths: list[int]) -> int:
    """Parameters of convolutions (side, maps in, maps out) and of fully connected layers of these widths."""
    convolutional = sum(side * side * a * b + b for side, a, b in convolutions)
    return convolutional + sum(a * b + b for a, b in itertools.pairwise(widths))


@pytest.mark.parametrize(
    ("name", "channels", "size", "convolutions", "widths"),
    [
        ("LeNet", 1, 28, [(5, 1, 6), (5, 6, 16)], [400, 120, 84, 10]),
        ("SVHN-CNN-small", 3, 32, [(3, 3, 32), (3, 32, 64), (3, 64, 128)], [8192, 1024, 256, 10]),
        (
            "SVHN-CNN", 3, 32,
            [(3, 3, 32), (3, 32, 64), (3, 64, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256)],
            [4096, 1024, 512, 10],
        ),
        ("CIFAR-CNN-small", 3, 32, [(5, 3, 32), (3, 32, 64), (3, 64, 128)], [512, 64, 10]),
    ],
)  # fmt: skip
def test_networks_of_lbcs_by_hand(
    name: str, channels: int, size: int, convolutions: list[tuple[int, int, int]], widths: list[int]
) -> None:
    """As the paper's appendix lists their layers."""
    network = build(name, 10, channels, size)
    assert size_of(network) == by_hand(convolutions, widths)
    found = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.in_channels, m.out_channels) for m in found] == convolutions
    assert [m.in_features for m in network.modules() if isinstance(m, nn.Linear)] == widths[:-1]


def test_lenet_averages() -> None:
    """What a map holds is averaged over 2×2 pixels, and not the largest of them taken, which is ReLU's output too."""
    network = build("LeNet", 10, 1, 28).eval()
    x = torch.randn(3, 1, 28, 28)
    c1, c2 = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    f1, f2, head = (m for m in network.modules() if isinstance(m, nn.Linear))

    def pooled(maps: torch.Tensor) -> torch.Tensor:
        return (maps[..., ::2, ::2] + maps[..., 1::2, ::2] + maps[..., ::2, 1::2] + maps[..., 1::2, 1::2]) / 4

    h = pooled(F.relu(F.conv2d(F.pad(x, (2, 2, 2, 2)), c1.weight, c1.bias)))
    h = pooled(F.relu(F.conv2d(h, c2.weight, c2.bias))).flatten(1)
    h = F.relu(F.linear(F.relu(F.linear(h, f1.weight, f1.bias)), f2.weight, f2.bias))
    torch.testing.assert_close(network(x), F.linear(h, head.weight, head.bias))


def test_resnet10_by_hand() -> None:
    """Widths 32 to 256, one block a stage: convolutions, batch norms, shortcuts and head added up."""
    widths = (32, 32, 64, 128, 256)
    expected = 27 * 32 + 2 * 32 + 256 * 10 + 10
    for a, b in itertools.pairwise(widths):
        expected += 9 * a * b + 9 * b * b + 4 * b + (a * b + 2 * b) * (a != b)
    assert size_of(build("ResNet10")) == expected


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 28), (3, 32), (3, 64)])
@every_network
def test_features_head_and_output(name: str, channels: int, size: int) -> None:
    network = build(name, 7, channels, size).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        features, logits = network.embed(x), network(x)
    assert logits.shape == (2, 7)
    assert isinstance(network.head, nn.Linear)
    assert network.head is linear_head(network)
    assert features.shape == (2, network.head.in_features)
    torch.testing.assert_close(network.head(features), logits)
    assert not torch.equal(features[0], features[1]), "the images have been shrunk to nothing"


@every_network
def test_equal_seeds_give_equal_networks(name: str) -> None:
    first, second = build(name, size=16).state_dict(), build(name, size=16).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "least"),
    [("VGG16", 32), ("MobileNetV3", 32), ("InceptionV3", 16), ("LeNet", 16), ("CIFAR-CNN-small", 24)],
)
def test_small_images_are_enlarged_and_it_is_said(name: str, least: int) -> None:
    with pytest.warns(UserWarning, match=f"{name} enlarges images of 8 pixels to {least}"):
        nets.build(name, 10, 1, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nets.build(name, 10, 1, least)


@every_network
def test_gradients_of_the_head_against_autograd(name: str) -> None:
    """g = (p − onehot(y)) ⊗ [h, 1], from the signals of a pass in evaluation mode."""
    network = build(name, 5, 1, 8)
    images = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    split = TensorSplit(images, torch.tensor([0, 1, 2, 3, 4, 0]))
    compute = Compute(torch.device("cpu"), torch.float32, (0.5,), (0.25,))
    a, h = gradient_factors(take_signals(network, split, compute))
    network.eval()
    for i, label in enumerate(split.labels):
        loss = F.cross_entropy(network(compute.inputs(images[i : i + 1])), label[None])
        weight, bias = torch.autograd.grad(loss, [network.head.weight, network.head.bias])
        expected = torch.cat([weight, bias[:, None]], 1).double()
        torch.testing.assert_close(
            torch.outer(a[i], h[i]), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


@every_network
def test_it_trains(name: str) -> None:
    """Two epochs on a few grey 8×8 images: losses are finite and every parameter moves."""
    network = build(name, 3, 1, 8)
    before = {key: value.clone() for key, value in network.named_parameters()}
    split = TensorSplit(torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8), torch.arange(12) % 3)
    compute = Compute(torch.device("cpu"), torch.float32, (0.5,), (0.25,))
    train(network, split, Recipe(epochs=2, batch=6, lr=0.01), compute, seed=0)
    still = [key for key, value in network.named_parameters() if torch.equal(value, before[key])]
    assert not still
