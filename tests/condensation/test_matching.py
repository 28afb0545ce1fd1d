"""Matching losses against definitions written out slowly, and one step over all classes against a loop over them."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nets
from lcmat import UserError
from lcmat.augmentation.siamese import DSA, IDC_MATCHING, NONE, applied, drawn
from lcmat.command_line.options import run_command_line
from lcmat.commands import benchmark
from lcmat.commands.benchmark import condensing
from lcmat.condensation.class_statistics import features_and_logits, matched_weights, mean_features, mean_gradients
from lcmat.condensation.matching import EPSILON, curvature_matching, feature_matching, gradient_matching, variance
from lcmat.condensation.matching_step import Limits, Pair, limits, matching_gradient, unit_map
from lcmat.condensation.synthetic import decoded
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

CLASSES = 3


class Tiny(nn.Module):
    """Two convolutions with a normalisation, and a linear layer: every kind of weight."""

    def __init__(self, inplace: bool = False, twice: bool = False, padding: int | str = 1, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=padding)
        self.norm = nn.GroupNorm(4, 4)
        self.second = nn.Conv2d(4, 4, 3, stride=1 if twice else 2, padding=1, groups=2)
        self.act = nn.ReLU(inplace=inplace)
        self.twice = twice
        self.head = nn.Linear(4, CLASSES, bias=bias)

    def embed(self, x: Tensor) -> Tensor:
        """The input of the head."""
        x = self.act(self.norm(self.act(self.first(x))))
        x = self.act(self.second(x))
        if self.twice:
            x = self.act(self.second(x))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.embed(x))


class Odd(nn.Module):
    """A weight that belongs to no known layer, and no `embed`."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Parameter(torch.randn(32, 5) / 4)
        self.last = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.last((x.flatten(1) @ self.mixing).tanh())


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small images are enlarged
        torch.manual_seed(0)
        return build().double().eval()


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
layers_of = pytest.mark.parametrize("layers", ["all", "convolutions"])


def batch(sizes: list[int], size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images of classes 0, 1, …, so many of each, their labels, and weights 1/n."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(sum(sizes), 2, size, size, generator=generator, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    weights = torch.cat([torch.full((n,), 1 / n, dtype=torch.float64) for n in sizes])
    return images, labels, weights


def size_for(name: str) -> int:
    return 8 if name in ("ConvNet3", "ResNet10") else 4


def per_sample_gradients(network: nn.Module, images: Tensor, labels: Tensor, names: list[str]) -> dict[str, Tensor]:
    """One backward pass for each image: (n, …) for each parameter."""
    parameters = dict(network.named_parameters())
    rows = {name: [] for name in names}
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(image[None]), label[None])
        for name, value in zip(names, torch.autograd.grad(loss, [parameters[n] for n in names]), strict=True):
            rows[name].append(value)
    return {name: torch.stack(values) for name, values in rows.items()}


# ---- statistics ------------------------------------------------------------------------------------------------------


@layers_of
@every_network
def test_mean_gradients_against_a_loop_over_samples(name: str, layers: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [3, 1, 4]
    images, labels, weights = batch(sizes, size_for(name))
    if layers == "convolutions" and not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        with pytest.raises(UserError, match="take layers=all"):
            mean_gradients(network, images, labels, weights, sizes, graph=False, layers=layers)
        return
    names = list(matched_weights(network, layers))
    assert all(dict(network.named_parameters())[n].ndim > 1 for n in names)
    found = mean_gradients(network, images, labels, weights, sizes, graph=False, layers=layers)
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
    found = mean_gradients(network, together, labels, weights, sizes, graph=True, moments=True)
    pull = {key: torch.randn_like(value) for key, value in found.items()}
    sum((found[key] * pull[key]).sum() for key in found).backward()
    apart = images.clone().requires_grad_()
    parts = zip(apart.split(sizes), labels.split(sizes), weights.split(sizes), strict=True)
    alone = [mean_gradients(network, x, y, w, [len(y)], graph=True, moments=True) for x, y, w in parts]
    for key, value in found.items():
        torch.testing.assert_close(value, torch.cat([one[key] for one in alone]))
    sum((torch.cat([one[key] for one in alone]) * pull[key]).sum() for key in found).backward()
    torch.testing.assert_close(together.grad, apart.grad)


@every_network
def test_mean_features(name: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [2, 5, 1]
    images, labels, weights = batch(sizes, size_for(name))
    found = mean_features(network, images, labels, weights, sizes, graph=False)["features"]
    with torch.no_grad():
        features, logits = features_and_logits(network, images)
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(found, torch.stack([part.mean(0) for part in features.split(sizes)]))


HEAD = {
    "tiny": ("head.weight", "head.bias"),
    "no bias": ("head.weight",),
    "a weight of its own": ("last.weight", "last.bias"),
}


@pytest.mark.parametrize("use_backpack", [False, True], ids=["closed form", "BackPACK"])
@pytest.mark.parametrize("name", HEAD)
def test_variance_against_a_loop_over_samples(name: str, use_backpack: bool) -> None:
    """NumPy's unbiased variance of the last layer's gradients, taken image by image."""
    network, sizes = seeded(NETWORKS[name]), [4, 2, 7]
    images, labels, weights = batch(sizes)
    found = mean_gradients(
        network, images, labels, weights, sizes, graph=False, moments=True, use_backpack=use_backpack
    )
    slow = per_sample_gradients(network, images, labels, HEAD[name])
    g = torch.cat([value.reshape(len(images), CLASSES, -1) for value in slow.values()], 2)
    expected = np.stack([np.var(part.numpy(), axis=0, ddof=1) for part in g.split(sizes)])
    np.testing.assert_allclose(variance(found, torch.tensor(sizes)).numpy(), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", HEAD)
def test_closed_form_variance_has_the_gradient_of_backpacks(name: str) -> None:
    network, sizes = seeded(NETWORKS[name]), [4, 3]
    images, labels, weights = batch(sizes)
    pull, gradients = None, []
    for use_backpack in (False, True):
        x = images.clone().requires_grad_()
        found = mean_gradients(network, x, labels, weights, sizes, graph=True, moments=True, use_backpack=use_backpack)
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
    exact = variance(mean_gradients(network, images, labels, weights, sizes, False, moments=True), torch.tensor(sizes))
    network, images, weights = network.float(), images.float(), weights.float()
    single = variance(mean_gradients(network, images, labels, weights, sizes, False, moments=True), torch.tensor(sizes))
    torch.testing.assert_close(single, exact, rtol=1e-3, atol=1e-4 * float(exact.max()))


# ---- losses ----------------------------------------------------------------------------------------------------------


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
    found = [matching.statistics(network, *sides[side], sizes[side], False) for side in sizes]
    losses = matching.loss(*found, *(torch.tensor(numbers) for numbers in sizes.values()))
    expected = slow_loss(network, sides["real"][:2], sides["synthetic"][:2], metric, layers, rho)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-9)


def test_feature_matching_against_the_definition() -> None:
    network = seeded(Tiny)
    real, synthetic = batch([5, 4, 3]), batch([2, 1, 3], seed=1)
    matching = feature_matching()
    found = [
        matching.statistics(network, *real, [5, 4, 3], False),
        matching.statistics(network, *synthetic, [2, 1, 3], False),
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
        found = [matching.statistics(network, *side, [4, 4, 4], False) for side in sides]
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
            matching.statistics(network, *side, sizes, True)
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


# ---- one step over all classes ---------------------------------------------------------------------------------------

MATCHINGS = {
    "features": feature_matching(),
    "cosine": gradient_matching("cosine"),
    "squared": gradient_matching("squared", "convolutions"),
    "curvature": curvature_matching(2.0),
    "curvature, BackPACK": curvature_matching(2.0, use_backpack=True),
}
STRATEGIES = {"none": NONE, "dsa": DSA, "idc": IDC_MATCHING}
every_matching = pytest.mark.parametrize("matching", MATCHINGS.values(), ids=MATCHINGS)


def problem(strategy=NONE, stored=(2, 1, 3), real=(5, 4, 6), size: int = 4) -> tuple[Tensor, list[Pair]]:
    """Synthetic images (m, 2, size, size) and what they are matched with; labels 2, 0, 1."""
    images, *_ = batch(list(stored), size, seed=3)
    inputs, *_ = batch(list(real), size, seed=4)
    draw = torch.Generator().manual_seed(5)
    ends = np.cumsum(stored).tolist()
    rows = [slice(end - n, end) for end, n in zip(ends, stored, strict=True)]
    parts = zip((2, 0, 1), inputs.split(list(real)), rows, strict=True)
    return images, [Pair(label, x, where, drawn(strategy, draw)) for label, x, where in parts]


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
            found.append(matching.statistics(network, inputs, labels, weights, [n], True))
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
        loss, gradient = matching_gradient(network, matching, images, pairs, lambda x: x, limit=way)
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
    loss, gradient = matching_gradient(network, matching, images, pairs, decode, factor=2, limit=WAYS[way])
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, x)[0])


@every_matching
def test_a_step_against_finite_differences(matching) -> None:
    """Without the library's gradients: the loss alone, moved a little along a random direction."""
    network = seeded(partial(Tiny))
    network.act = nn.Softplus()  # smooth, where ReLU has corners
    images, pairs = problem(IDC_MATCHING)
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, gradient = matching_gradient(network, matching, images, pairs, lambda x: x)
    step = 1e-5
    high, low = (plain_loss(network, matching, images + t * direction, pairs).item() for t in (step, -step))
    assert float((gradient * direction).sum()) == pytest.approx((high - low) / (2 * step), rel=1e-5)


def test_threads_give_the_same_step_bit_for_bit() -> None:
    network = seeded(partial(nets.build, "ConvNet3", CLASSES, 2, 8)).float()
    images, pairs = problem(DSA, size=8)
    images, pairs = images.float(), [Pair(p.label, p.real.float(), p.rows, p.draw) for p in pairs]
    for matching in (MATCHINGS["features"], MATCHINGS["curvature"]):
        alone = matching_gradient(network, matching, images, pairs, lambda x: x)
        torch.set_num_threads(2)
        try:
            with unit_map(torch.device("cpu"), 3) as map_units:
                threads = matching_gradient(network, matching, images, pairs, lambda x: x, map_units=map_units)
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
    matching_gradient(network, MATCHINGS["curvature"], images, pairs, lambda x: x, limit=Limits(16, 8, together=True))
    assert max(seen) <= 16
    assert sum(seen) == 70 + 4 + 6 + 40 + 30  # the statistics of synthetic classes that do not fit, before the gradient
    assert max(in_graph) <= 8
    assert sum(in_graph) == 40 + 1 + 30
    assert limits(torch.device("cpu"), (3, 32, 32)) == Limits(16, 128, together=False)
    assert limits(torch.device("cpu"), (1, 8, 8)).images == 256
    assert limits(torch.device("cuda"), (3, 32, 32)) == Limits(1024, 1024, together=True)


@pytest.mark.parametrize("name", ["DM", "LCMat-C"])
def test_the_benchmarks_plain_loop_takes_the_same_step(name: str) -> None:
    network, matching, images, pairs = condensing.problem(name, classes=2, batch=5)
    _, gradient = matching_gradient(network, matching, images, pairs, lambda x: x)
    plain = condensing.plain_step(name, network, images, pairs)
    torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_benchmark_is_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two classes; measured once, then kept."""
    small = partial(condensing.problem, classes=2, batch=2)
    monkeypatch.setattr(condensing, "problem", small)
    words = ["condense", "--runs", "1", "--save_path", str(tmp_path)]
    assert run_command_line(benchmark.main, words) == 0
    text = (tmp_path / "benchmarks" / "condense.md").read_text()
    assert "| DM " in text
    assert "| LCMat-C " in text
    monkeypatch.setattr(condensing, "problem", None)
    assert run_command_line(benchmark.main, words) == 0
