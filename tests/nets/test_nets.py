"""Every network: its parameters, the images it takes, and its last layer's signals against autograd."""

import itertools
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import inception

import nets
from lcmat.data.splits import TensorSplit
from lcmat.last_layer import gradient_factors
from lcmat.signals.networks import linear_head, take_signals
from lcmat.training import Compute, Recipe, train

every_network = pytest.mark.parametrize("name", nets.names())


def build(name: str, classes: int = 10, channels: int = 3, size: int | tuple[int, int] = 32) -> nn.Module:
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
        ("InceptionV3", 22_133_738),  # as in DeepCore, which LCMat's code is built on
    ],
)
def test_parameter_counts_for_cifar10(name: str, expected: int) -> None:
    assert size_of(build(name)) == expected


def test_parameter_counts_for_other_data() -> None:
    assert size_of(build("LeNet", 10, 1, 28)) == 61_706  # LeNet-5
    assert size_of(build("ConvNet3", 10, 1, 28)) == 317_706  # the condensation literature's
    # The stems differ in strides alone, so that the count for ImageNet holds.
    assert size_of(build("MobileNetV3", 1000)) == size_of(torchvision.models.mobilenet_v3_large())


@pytest.mark.parametrize("name", ["ConvNet3", "InceptionV3", "WRN-16-8"])
def test_grey_images_of_28_pixels_are_padded_to_32(name: str) -> None:
    """By two pixels at each side, beside the one that any image gets; those of other sizes are not."""
    network = build(name, 10, 1, 28).eval()
    x = torch.randn(2, 1, 28, 28)
    wide = F.pad(x, (2, 2, 2, 2))
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    torch.testing.assert_close(first(x), F.conv2d(wide, first.weight, first.bias, padding=1))
    for size in (8, 16, 32):
        first = next(m for m in build(name, 10, 1, size).modules() if isinstance(m, nn.Conv2d))
        assert first(torch.zeros(1, 1, size, size)).shape[-1] == size


def copied(network: nn.Module, source: nn.Module) -> nn.Module:
    """The network with the parameters and statistics of another, in order."""
    network.load_state_dict(dict(zip(network.state_dict(), source.state_dict().values(), strict=True)))
    return network


def randomised(block: nn.Module) -> nn.Module:
    """A block of torchvision's in evaluation mode with statistics that differ, and the ε of ours."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return block.eval()


@pytest.mark.parametrize(
    ("place", "theirs"),
    [
        (2, lambda: inception.InceptionA(192, 32)),
        (5, lambda: inception.InceptionB(288)),
        (6, lambda: inception.InceptionC(768, 128)),
        (10, lambda: inception.InceptionD(768)),
        (12, lambda: inception.InceptionE(2048)),
    ],
    ids="ABCDE",
)
def test_blocks_of_inception_against_torchvision(place: int, theirs: Callable[[], nn.Module]) -> None:
    """With the released code's deviations applied to torchvision's: pool branches, and 7×7 first down, then across."""
    block, ours = theirs(), build("InceptionV3").body[place].eval()
    if isinstance(block, inception.InceptionA):
        block.branch_pool = inception.BasicConv2d(192, 32, kernel_size=3, padding=1)
    if isinstance(block, inception.InceptionC):
        block.branch7x7_2 = inception.BasicConv2d(128, 128, kernel_size=(7, 1), padding=(3, 0))
        block.branch7x7_3 = inception.BasicConv2d(128, 192, kernel_size=(1, 7), padding=(0, 3))
    x = torch.randn(2, next(m for m in block.modules() if isinstance(m, nn.Conv2d)).in_channels, 9, 9)
    with torch.no_grad():
        expected, got = randomised(block)(x), copied(ours, block)(x)
    if isinstance(block, inception.InceptionD):
        assert not torch.allclose(got[:, 512:], expected[:, 512:]), "the maximum, as torchvision takes it"
        expected[:, 512:] = F.avg_pool2d(x, 3, 2)
    torch.testing.assert_close(got, expected)


def test_wrn_begins_with_variances_by_fan_out() -> None:
    """2 / (9 · maps out) for a 3×3 convolution, which torch's usual initialisation is far from; five deviations."""
    network = build("WRN-16-8")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 16
    for module in convolutions:
        expected = 2 / (module.weight[0, 0].numel() * module.out_channels)
        tolerance = 5 * (2 / module.weight.numel()) ** 0.5
        assert float(module.weight.detach().square().mean()) == pytest.approx(expected, rel=tolerance)
    assert not network.head.bias.any()


def test_revisions_tell_networks_of_one_name_apart() -> None:
    """What changed since records were first kept counts 2, and nothing else does: their hashes depend on it."""
    shapes = [(1, 8), (1, 16), (1, 28), (1, 32), (3, 28), (3, 32)]
    found = {(name, *shape) for name in nets.names() for shape in shapes if nets.revision(name, *shape) == 2}
    changed = {("ConvNet3", 1, 28)} | {(name, *shape) for name in ("InceptionV3", "WRN-16-8") for shape in shapes}
    assert found == changed


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


SIZES = [(1, 8), (3, 8), (1, 28), (3, 32), (3, 64), (3, (12, 20)), (1, (28, 30)), (3, (33, 9)), (1, (1, 24))]


@pytest.mark.parametrize(("channels", "size"), SIZES, ids=str)
@every_network
def test_features_head_and_output(name: str, channels: int, size: int | tuple[int, int]) -> None:
    network = build(name, 7, channels, size).eval()
    x = torch.randn(2, channels, *(size if isinstance(size, tuple) else (size, size)))
    with torch.no_grad():
        features, logits = network.embed(x), network(x)
    assert logits.shape == (2, 7)
    assert isinstance(network.head, nn.Linear)
    assert network.head is linear_head(network)
    assert features.shape == (2, network.head.in_features)
    torch.testing.assert_close(network.head(features), logits)
    assert not torch.equal(features[0], features[1]), "the images have been shrunk to nothing"


@pytest.mark.parametrize("size", [8, 28, 32])
@every_network
def test_height_and_width_of_a_square_are_its_side(name: str, size: int) -> None:
    first, second = build(name, 5, 1, size).state_dict(), build(name, 5, 1, (size, size)).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert nets.revision(name, 1, size) == nets.revision(name, 1, (size, size))


@pytest.mark.parametrize(
    ("name", "channels", "size", "expected"),
    [
        ("ConvNet3", 3, (16, 40), 128 * 2 * 5),
        ("ConvNet3", 1, (28, 32), 128 * 3 * 4),
        ("SVHN-CNN", 3, (8, 24), 512),
        ("AlexNet", 3, (16, 24), 192 * 2 * 3),
    ],
)
def test_features_of_images_that_are_not_square(name: str, channels: int, size: tuple[int, int], expected: int) -> None:
    assert build(name, 10, channels, size).head.in_features == expected


def test_inputs_of_the_perceptron() -> None:
    first = next(m for m in build("MLP", 10, 3, (5, 7)).modules() if isinstance(m, nn.Linear))
    assert first.in_features == 3 * 5 * 7


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
    with pytest.warns(UserWarning, match=f"{name} enlarges images of 8×100 pixels to {least}×100"):
        nets.build(name, 10, 1, (8, 100))
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
