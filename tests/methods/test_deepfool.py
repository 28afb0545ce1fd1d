"""DeepFool: closed form for linear networks, a slow search one image at a time for others, and what it must not touch.

Moosavi-Dezfooli et al. 2016 (Algorithm 2) for the perturbation, Ducoffe & Precioso 2018 for choosing by its norm.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from lcmat import Signals, Subset, UserError, data
from lcmat.block_sizes import sized
from lcmat.data.splits import TensorSplit
from lcmat.selection.context import Context
from lcmat.training import Compute
from methods import boundary, get, select
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)

BALANCED = pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
# The library runs the network in float32, the oracles in float64: logits of size ten, from sums of 64 terms, are good
# to about 1e-5, and their differences, of size one, to as much. Norms of random images lie further apart, mostly.
FLOAT32 = 1e-4


@dataclass(frozen=True)
class Problem:
    """A network and labelled images."""

    network: nn.Module
    split: TensorSplit
    compute: Compute

    @property
    def inputs(self) -> torch.Tensor:
        """Pixels as the network takes them, (n, channels, height, width) in float64."""
        mean, std = (torch.tensor(value, dtype=torch.float64)[:, None, None] for value in self.statistics)
        return (self.split.images.double() / 255 - mean) / std

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the channels."""
        return self.compute.mean, self.compute.std

    def select(self, fraction: float = 1.0, balanced: bool = False, seed: int = 0, **options: object) -> Subset:
        """The library's choice. Of the signals, labels alone: nothing else may be read."""
        context = Context(self.split, self.compute, network=self.network)
        return select(
            Signals(labels=self.split.labels), "DeepFool", fraction=fraction, balanced=balanced, seed=seed,
            context=context, **options,
        )  # fmt: skip

    def norms(self, overshoot: float = 0.02, iterations: int = 50, classes: int = 10) -> np.ndarray:
        """The library's norms."""
        inputs = self.compute.inputs(self.split.images)
        return boundary.perturbation(self.network, inputs, overshoot, iterations, classes).numpy()

    def expected(self, overshoot: float = 0.02, iterations: int = 50, classes: int = 10) -> list["Perturbation"]:
        """The oracle's perturbations."""
        network = copy.deepcopy(self.network).double().eval()
        return [slow_deep_fool(network, x, overshoot, iterations, classes) for x in self.inputs]


def random_images(seed: int, n: int, shape: tuple[int, ...], C: int) -> TensorSplit:
    """Noise, with labels that have nothing to do with it."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=draw)
    return TensorSplit(images, torch.cat([torch.arange(C), torch.randint(0, C, (n - C,), generator=draw)]))


def linear_problem(seed: int, n: int = 60, channels: int = 1, C: int = 4) -> Problem:
    """A linear network on noise; with three channels their statistics differ."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(channels * 16, C))
    mean, std = ((0.4, 0.5, 0.6), (0.1, 0.3, 0.9)) if channels == 3 else ((0.5,), (0.3,))
    compute = Compute(torch.device("cpu"), torch.float32, mean, std)
    return Problem(network, random_images(seed, n, (channels, 4, 4), C), compute)


@pytest.fixture(scope="module", params=[nn.ReLU, nn.Tanh])
def real(request: pytest.FixtureRequest, digits: data.Dataset, compute: Compute) -> Problem:
    """A small network fitted to scikit-learn's digits for a few steps, and 80 of them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), request.param(), nn.Linear(24, 10))
    inputs, labels = compute.inputs(digits.train.images), digits.train.labels
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    assert 0.9 < (network(inputs).argmax(1) == labels).double().mean() < 1
    return Problem(network, digits.train.take(torch.arange(80)), compute)


def linear_distances(problem: Problem) -> np.ndarray:
    """min over k of |f_k − f_own| / ‖w_k − w_own‖."""
    weight, bias = (p.detach().double().numpy() for p in problem.network[1].parameters())
    distances = []
    for x in problem.inputs.flatten(1).numpy():
        f = weight @ x + bias
        own = f.argmax()
        distances.append(
            min(abs(f[k] - f[own]) / np.linalg.norm(weight[k] - weight[own]) for k in range(len(f)) if k != own)
        )
    return np.array(distances)


@dataclass(frozen=True)
class Perturbation:
    """What moves one image across the boundary, how many steps it took, and the prediction before and after."""

    r: np.ndarray
    steps: int
    before: int
    after: int

    @property
    def norm(self) -> float:
        """Its length."""
        return float(np.linalg.norm(self.r))


def slow_deep_fool(
    network: nn.Module, x: torch.Tensor, overshoot: float, iterations: int, classes: int
) -> Perturbation:
    """DeepFool on one image x: Algorithm 2, among the classes that the image itself makes most likely."""

    def outputs(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        f = network(torch.from_numpy(point)[None])[0].detach().numpy()
        jacobian = torch.autograd.functional.jacobian(lambda z: network(z[None])[0], torch.from_numpy(point))
        return f, jacobian.numpy()

    start = x.numpy()
    total = np.zeros_like(start)
    f, jacobian = outputs(start)
    candidates = np.argsort(-f)[:classes]
    own = now = int(candidates[0])
    steps = 0
    while now == own and steps < iterations:
        best, step = np.inf, None
        for k in candidates[1:]:
            w, gap = jacobian[k] - jacobian[own], f[k] - f[own]
            length = np.linalg.norm(w)
            if length > 0 and abs(gap) / length < best:
                best, step = abs(gap) / length, abs(gap) / length**2 * w
        if step is None:
            return Perturbation(np.full_like(start, np.inf), steps, own, own)
        total = total + step
        steps += 1
        f, jacobian = outputs(start + (1 + overshoot) * total)
        now = int(f.argmax())
    return Perturbation((1 + overshoot) * total, steps, own, now)


def check_ascending(picks: Sequence[int], members: np.ndarray, norms: np.ndarray) -> None:
    """Assert that picks among members go by norm, smallest first, but for what float32 cannot tell apart."""
    left = np.zeros(len(norms), dtype=bool)
    left[members] = True
    for j in picks:
        assert left[j]
        assert norms[j] <= norms[left].min() + FLOAT32
        left[j] = False


def by_class(problem: Problem, subset: Subset, fraction: float, balanced: bool) -> list[tuple[np.ndarray, list[int]]]:
    """Each group's members and the picks from it, as many as the fraction asks for."""
    labels = problem.split.labels.numpy()
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)] if balanced else [np.arange(len(labels))]
    ends = np.cumsum([oracles.class_budget(len(members), fraction) for members in groups])
    assert ends[-1] == len(subset)
    return list(zip(groups, (part.tolist() for part in np.split(subset.indices, ends[:-1])), strict=True))


# ---- norms and picks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overshoot", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_norms_of_linear_networks(seed: int, channels: int, overshoot: float) -> None:
    """One step reaches the boundary exactly; pixels are normalised, each channel by its own deviation."""
    problem = linear_problem(seed, channels=channels)
    expected = (1 + overshoot) * linear_distances(problem)
    assert problem.norms(overshoot) == pytest.approx(expected, rel=FLOAT32, abs=FLOAT32)


@BALANCED
@pytest.mark.parametrize("fraction", [0.3, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_picks_of_linear_networks(channels: int, fraction: float, balanced: bool) -> None:
    problem = linear_problem(5, channels=channels)
    distances = linear_distances(problem)
    subset = problem.select(fraction, balanced)
    for members, picks in by_class(problem, subset, fraction, balanced):
        check_ascending(picks, members, distances)


def test_oracle_on_linear_networks() -> None:
    """The slow search agrees with the closed form, in one step and with another prediction."""
    problem = linear_problem(1)
    found = problem.expected()
    assert [p.norm for p in found] == pytest.approx(1.02 * linear_distances(problem), rel=1e-12)
    assert all(p.steps == 1 and p.before != p.after for p in found)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("iterations", [1, 2, 50])
def test_norms_of_digits(real: Problem, iterations: int, classes: int) -> None:
    expected = real.expected(iterations=iterations, classes=classes)
    if iterations == 50:
        assert max(p.steps for p in expected) > 1, "a linear network would do"
        assert all(p.before != p.after for p in expected)
    assert real.norms(iterations=iterations, classes=classes) == pytest.approx(
        np.array([p.norm for p in expected]), rel=FLOAT32, abs=FLOAT32
    )


def test_options_change_the_norms(real: Problem) -> None:
    """The comparisons above tell the options apart."""
    norms = [real.norms(), real.norms(overshoot=0.1), real.norms(iterations=1), real.norms(classes=2)]
    for number, one in enumerate(norms):
        for other in norms[:number]:
            assert abs(one - other).max() > 100 * FLOAT32


@BALANCED
def test_picks_of_digits(real: Problem, balanced: bool) -> None:
    norms = np.array([p.norm for p in real.expected()])
    subset = real.select(0.5, balanced)
    for members, picks in by_class(real, subset, 0.5, balanced):
        check_ascending(picks, members, norms)


def test_options_reach_the_search(real: Problem) -> None:
    norms = np.array([p.norm for p in real.expected(overshoot=0.3, iterations=2, classes=2)])
    subset = real.select(overshoot=0.3, iterations=2, classes=2)
    check_ascending(subset.indices.tolist(), np.arange(80), norms)
    assert subset.indices.tolist() != real.select().indices.tolist()


def test_the_moved_image_is_predicted_differently(real: Problem) -> None:
    """What the network last saw of a single image: as far from it as the norm says, and of another class."""
    seen: list[torch.Tensor] = []
    handle = real.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    try:
        for image in real.split.images[:20]:
            seen.clear()
            x = real.compute.inputs(image[None])
            norm = boundary.perturbation(real.network, x, 0.02, 50, 10)
            first, last = seen[0], seen[-1]
            assert torch.equal(first, x)
            assert float((last - first).norm()) == pytest.approx(float(norm), rel=1e-5)
            assert real.network(last).argmax(1) != real.network(first).argmax(1)
    finally:
        handle.remove()


@pytest.mark.parametrize("batch", [1, 7, 80])
def test_batch_size_does_not_matter(real: Problem, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    norms = np.array([p.norm for p in real.expected()])
    sizes: list[int] = []
    handle = real.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    with sized(images=batch):
        subset = real.select()
    handle.remove()
    assert max(sizes) == batch
    check_ascending(subset.indices.tolist(), np.arange(80), norms)


def test_prefix_is_the_selection_for_the_smaller_fraction(real: Problem) -> None:
    for balanced in (True, False):
        large = real.select(0.8, balanced)
        assert large.nested
        for fraction in (0.2, 0.5):
            assert large.prefix(fraction).indices.tolist() == real.select(fraction, balanced).indices.tolist()


# ---- images that cannot be moved ------------------------------------------------------------------------------------


def test_a_network_without_gradients_gives_infinite_distances() -> None:
    problem = linear_problem(0, n=12)
    nn.init.zeros_(problem.network[1].weight)
    assert np.isposinf(problem.norms()).all()
    assert sorted(problem.select().indices.tolist()) == list(range(12))


@pytest.mark.parametrize("batch", [1, 250])
def test_images_without_gradients_come_last(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """A unit that only bright images switch on: for dark ones the outputs are constant."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 3))
    with torch.no_grad():
        network[1].weight.fill_(1.0)
        network[1].bias.fill_(-2.0)
        network[3].weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
        network[3].bias.copy_(torch.tensor([-0.5, 0.0, -0.5]))
    images = torch.tensor([10, 250, 20, 200, 30, 225], dtype=torch.uint8)[:, None, None, None].expand(6, 1, 2, 2)
    problem = Problem(
        network,
        TensorSplit(images.contiguous(), torch.zeros(6, dtype=torch.int64)),
        Compute(torch.device("cpu"), torch.float32, (0.0,), (1.0,)),
    )
    norms = problem.norms()
    assert np.isposinf(norms[[0, 2, 4]]).all()
    # For class 1 to win the sum of the four pixels must fall to 2.5: by (sum − 2.5) / 2 in Euclidean length.
    assert norms[[1, 3, 5]] == pytest.approx(1.02 * (4 * np.array([250, 200, 225]) / 255 - 2.5) / 2, rel=FLOAT32)
    with sized(images=batch):
        picks = problem.select().indices.tolist()
    assert picks[:3] == [3, 5, 1]
    assert sorted(picks[3:]) == [0, 2, 4]


def test_a_network_of_one_class_gives_infinite_distances() -> None:
    problem = linear_problem(0, n=5, C=1)
    assert np.isposinf(problem.norms()).all()
    assert len(problem.select()) == 5


# ---- what it must leave alone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_network_and_images_stay_as_they_are(training: bool) -> None:
    """Dropout and batch normalisation tell a network in training mode from one that is not."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )
    network[0].weight.requires_grad_(False)
    problem = Problem(
        network, random_images(0, 30, (1, 4, 4), 3), Compute(torch.device("cpu"), torch.float32, (0.5,), (0.3,))
    )
    network.train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = problem.split.images.clone(), problem.split.labels.clone()
    random_state = torch.get_rng_state()
    picks = problem.select().indices
    assert all(module.training is training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [p.requires_grad for p in network.parameters()] == [False] + 5 * [True]
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(problem.split.images, images)
    assert torch.equal(problem.split.labels, labels)
    assert torch.equal(torch.get_rng_state(), random_state)
    check_ascending(picks.tolist(), np.arange(30), np.array([p.norm for p in problem.expected()]))


def test_modes_of_single_layers_stay_as_they_are() -> None:
    """Batch normalisation frozen in evaluation mode within a network in training mode."""
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)).train()
    network[0].eval()
    Problem(
        network, random_images(0, 6, (1, 4, 4), 3), Compute(torch.device("cpu"), torch.float32, (0.5,), (0.3,))
    ).select()
    assert [module.training for module in network] == [False, True, True]


def test_inputs_stay_as_they_are(real: Problem) -> None:
    x = real.compute.inputs(real.split.images[:10])
    before = x.clone()
    boundary.perturbation(real.network, x, 0.02, 50, 10)
    assert torch.equal(x, before)
    assert not x.requires_grad


@pytest.mark.parametrize("place", [0, 1])
def test_a_network_may_work_in_place_on_its_input(place: int) -> None:
    """The released code fails on the CPU for working in place on a leaf; here the network does, as its first layer."""
    problem = linear_problem(2)
    plain = nn.Sequential(problem.network[0], nn.ReLU(), problem.network[1])
    layers = list(problem.network)
    layers.insert(place, nn.ReLU(inplace=True))
    network = nn.Sequential(*layers)
    picks = Problem(network, problem.split, problem.compute).select().indices
    assert picks.tolist() == Problem(plain, problem.split, problem.compute).select().indices.tolist()


def test_gradients_may_be_switched_off_by_the_caller() -> None:
    problem = linear_problem(2)
    expected = problem.select().indices
    with torch.no_grad():
        picks = problem.select().indices
        assert not torch.is_grad_enabled()
    assert picks.tolist() == expected.tolist()


def test_mode_comes_back_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    problem = linear_problem(0, n=5)
    network = nn.Sequential(Failing()).train()
    with pytest.raises(RuntimeError, match="broken"):
        Problem(network, problem.split, problem.compute).select()
    assert network.training


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_missing_context_is_named() -> None:
    problem = linear_problem(0, n=5)
    signals = Signals(features=torch.ones(5, 2), logits=torch.ones(5, 4), labels=problem.split.labels)
    with pytest.raises(UserError, match="network"):
        select(signals, "DeepFool", fraction=0.5)
    with pytest.raises(UserError, match="network"):
        select(signals, "DeepFool", fraction=0.5, context=Context(problem.split, problem.compute))
    other = Context(problem.split.take(torch.arange(4)), problem.compute, network=problem.network)
    with pytest.raises(UserError, match="images"):
        select(signals, "DeepFool", fraction=0.5, context=other)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overshoot", -1),
        ("overshoot", float("nan")),
        ("overshoot", float("inf")),
        ("iterations", 0),
        ("iterations", 1.5),
        ("classes", 1),
    ],
)
def test_bad_options_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        linear_problem(0, n=5).select(**{name: value})


def test_name_is_canonical() -> None:
    assert get("deepfool").name == "DeepFool"
