"""Signals as the released code takes them, against plain loops over its batches: training mode, division by batch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
from lcmat import Signals, UserError
from lcmat.data import Dataset
from lcmat.data.splits import TensorSplit
from lcmat.last_layer import gradient_factors, hessian_factors
from lcmat.signals import Taking, take_signals
from lcmat.signals.released import batch_scale, class_batches, take_in_training_mode
from lcmat.training import Compute
from methods import select
from tests import oracles
from tests.problems import Problem, random_problem


@pytest.fixture(scope="module")
def split(digits: Dataset) -> TensorSplit:
    """Images of classes 0 to 3, in the order of the data."""
    return digits.train.take((digits.train.labels < 4).nonzero()[:150, 0])


@pytest.fixture(scope="module")
def network(split: TensorSplit, compute: Compute) -> nn.Module:
    """A ResNet-10 whose running statistics are those of other images."""
    torch.manual_seed(0)
    made = nets.build("ResNet10", 10, 1, 8).train()
    made(compute.inputs(255 - split.images[:64]))
    return made


def in_batches(network: nn.Module, split: TensorSplit, compute: Compute, size: int) -> tuple[Tensor, Tensor]:
    """Features and logits as a network in training mode gives them for one batch of one class after the other."""
    network = copy.deepcopy(network).train()
    features, logits = [None] * len(split), [None] * len(split)
    for label in range(10):
        positions = [i for i, y in enumerate(split.labels.tolist()) if y == label]
        for start in range(0, len(positions), size):
            of_batch = positions[start : start + size]
            assert len(of_batch) > 1
            with torch.no_grad():
                h = network.embed(compute.inputs(split.images[of_batch]))
                z = network.head(h)
            for i, own_h, own_z in zip(of_batch, h, z, strict=True):
                features[i], logits[i] = own_h, own_z
    return torch.stack(features), torch.stack(logits)


@pytest.mark.parametrize("size", [16, 1000])
@pytest.mark.parametrize("training", [True, False], ids=["given in training mode", "given in evaluation mode"])
def test_training_mode_is_that_of_a_loop_over_batches_of_one_class(
    network: nn.Module, split: TensorSplit, compute: Compute, size: int, training: bool
) -> None:
    expected = in_batches(network, split, compute, size)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.train(training)
    taken = take_in_training_mode(network, split, compute, size)
    assert torch.allclose(taken.features, expected[0], rtol=1e-4, atol=1e-4)
    assert torch.allclose(taken.logits, expected[1], rtol=1e-4, atol=1e-4)
    assert torch.equal(taken.labels, split.labels)
    # Running statistics are as they were, and the mode.
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(module.training == training for module in network.modules())
    usual = take_signals(network, split, compute)
    assert not torch.allclose(taken.logits, usual.logits, atol=0.1)


def test_without_batch_norm_the_mode_does_not_matter(split: TensorSplit, compute: Compute) -> None:
    """Dropout stays off: what it would draw is no part of what is studied."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))
    usual, taken = take_signals(body, split, compute), take_in_training_mode(body, split, compute, 16)
    assert torch.allclose(usual.logits, taken.logits, atol=1e-6)
    assert torch.allclose(usual.features, taken.features, atol=1e-6)


def test_a_batch_without_statistics_is_refused(network: nn.Module, split: TensorSplit, compute: Compute) -> None:
    """A class of one image of 1×1 features has no variance; the statistics are there again afterwards."""
    few = split.take(torch.cat([(split.labels == 2).nonzero()[:5, 0], (split.labels == 3).nonzero()[:1, 0]]))
    with pytest.raises(UserError, match=r"class of 1 image.*--signals_mode"):
        take_in_training_mode(network, few, compute, 4)
    assert all(m.running_mean is not None for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_batches_are_of_one_class_in_order_and_the_last_is_partial() -> None:
    """But not of one sample."""
    labels = torch.tensor([1, 0, 1, 1, 0, 1, 1, 3, 1, 1])
    assert [part.tolist() for part in class_batches(labels, 2)] == [[1, 4], [0, 2], [3, 5], [6, 8, 9], [7]]
    assert [part.tolist() for part in class_batches(labels, 4)] == [[1, 4], [0, 2, 3, 5], [6, 8, 9], [7]]
    third = 1 / 3
    assert batch_scale(labels, 2).tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, third, 1.0, third, third]
    assert batch_scale(labels, 4, by_class=False).tolist() == [0.25] * 8 + [0.5] * 2


@pytest.mark.parametrize("size", [3, 8])
def test_gradients_and_hessians_are_those_of_the_mean_loss_of_a_batch(size: int) -> None:
    """Each sample's share of it, by automatic differentiation, batch by batch."""
    problem = random_problem(0, n=20, d=3)
    scale = batch_scale(torch.from_numpy(problem.labels), size)
    signals = replace(problem.signals, scale=scale)
    h, y = torch.from_numpy(oracles.extended(problem.features)), torch.from_numpy(problem.labels)
    # Any weights that give these logits: the loss depends on z = W h̃ alone, moved by W.
    z = torch.from_numpy(problem.logits)
    (a, k), (b, u) = gradient_factors(signals), hessian_factors(signals)
    for label in y.unique():
        for part in class_batches(y, size):
            if y[part[0]] != label:
                continue

            def share(move: Tensor, i: int, part: Tensor = part) -> Tensor:
                losses = nn.functional.cross_entropy(z[part] + h[part] @ move.T, y[part], reduction="none")
                return losses[i] / len(part)

            for i, sample in enumerate(part.tolist()):
                zero = torch.zeros(3, 4, dtype=torch.float64)
                gradient = torch.autograd.functional.jacobian(lambda m, i=i, f=share: f(m, i), zero)
                hessian = torch.autograd.functional.hessian(lambda m, i=i, f=share: f(m, i), zero)
                diagonal = hessian.reshape(12, 12).diagonal().reshape(3, 4)
                assert torch.allclose(a[sample][:, None] * k[sample], gradient, atol=1e-12)
                assert torch.allclose(b[sample][:, None] * u[sample], diagonal, atol=1e-12)


READ_GRADIENTS = ["Craig", "AdaCore", "LCMat-S", "GradMatch", "Glister", "GradMatch-Val", "Glister-Val", "GraNd"]


def with_everything(problem: Problem, **changed: object) -> Signals:
    """Signals with validation and initialisations of the same arrays, which have the same scale."""
    one = replace(problem.signals, **changed)
    return replace(one, validation=one, initialisations=[one])


@pytest.mark.parametrize("method", READ_GRADIENTS)
def test_a_scale_of_all_samples_alike_does_not_matter_but_for_glisters_step(method: str) -> None:
    problem = random_problem(2, n=60)
    options = {"eta": 1e-9} if "Glister" in method else {"rho": 0.1} if method == "LCMat-S" else {}
    usual, scaled = (
        select(with_everything(problem, scale=scale), method, fraction=0.3, **options)
        for scale in (None, np.full(60, 1 / 128))
    )
    assert usual.indices.tolist() == scaled.indices.tolist()


@pytest.mark.parametrize("method", READ_GRADIENTS)
def test_methods_that_form_gradients_read_the_scale(method: str) -> None:
    problem = random_problem(3, n=60)
    scale = np.random.default_rng(0).choice([1 / 16, 1.0], 60)
    usual, scaled = (select(with_everything(problem, scale=s), method, fraction=0.2) for s in (None, scale))
    assert usual.indices.tolist() != scaled.indices.tolist()


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_lcmat_picks_by_scaled_distances(rho: float) -> None:
    """Greedy facility location over distances that are formed from scaled gradients and Hessians, all dimensions."""
    problem = random_problem(4, n=60, d=3)
    scale = batch_scale(torch.from_numpy(problem.labels), 7).numpy()
    subset = select(replace(problem.signals, scale=scale), "LCMat-S", fraction=0.3, rho=rho)
    start = 0
    for label in range(3):
        own = np.flatnonzero(problem.labels == label)
        g = scale[own, None] * oracles.gradients(problem.features[own], problem.logits[own], problem.labels[own])
        hessian = scale[own, None] * oracles.hessians(problem.features[own], problem.logits[own])
        D = np.linalg.norm(g[:, None] - g, axis=2) + rho / 2 * np.abs(hessian[:, None] - hessian).sum(2)
        count = oracles.class_budget(len(own), 0.3)
        picks = np.searchsorted(own, subset.indices[start : start + count])
        assert oracles.greedy_fault(D, picks, oracles.twins(g), oracles.TIE_SIGNALS) is None
        start += count


def test_equal_samples_of_unequal_scale_are_not_one() -> None:
    """They have gradients of their own."""
    problem = random_problem(5, n=12)
    twice = problem.take(np.repeat(np.arange(12), 2))
    scale = np.tile([1.0, 0.1], 12)
    subset = select(replace(twice.signals, scale=scale), "Craig", budget=24, balanced=False)
    assert subset.costs[11] > 1e-6  # twelve picks would cover twelve pairs


@pytest.mark.parametrize("bad", [np.zeros(60), np.full(60, np.nan), np.ones(59), np.ones(60, dtype=np.int64)])
def test_a_scale_that_cannot_be_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(UserError, match="scale"):
        replace(random_problem(0).signals, scale=bad)


def test_nothing_is_said_of_what_is_usual_and_unknown_words_are_named() -> None:
    assert Taking().described == {}
    assert Taking("train", "sample", 50).described == {"signals_mode": "train", "signals_batch": 50}
    assert Taking("EVAL", "batch", 50).described == {"gradient_scale": "batch", "signals_batch": 50}
    with pytest.raises(UserError, match="signals mode 'training'"):
        Taking("training")
