"""The condensation loop: steps, networks, checkpoints, snapshots, and what stops it."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import methods
from lcmat import UserError, seeds
from lcmat.augmentation import siamese
from lcmat.augmentation.siamese import IDC_NETWORK, NONE, Strategy
from lcmat.condensation.loop import ImageRecipe, Learned, Learning, condense
from lcmat.condensation.matching import curvature_matching, feature_matching, gradient_matching
from lcmat.condensation.networks import Networks, Schedule
from lcmat.condensation.space import Space
from lcmat.condensation.synthetic import decoded
from lcmat.data.splits import Dataset
from lcmat.files import save_tensors
from lcmat.training import Compute, DivergedError
from lcmat.training.recipe import chunks
from tests import oracles
from tests.condensing import CHEAP, NAMES, Narrow, StoppedError, every_method, made, narrow, task

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")
STEPS = {"RandomReal": 0, "DM": 1, "KIP": 1}  # places to stop in an iteration, where there are fewer than two


@every_method
def test_every_method_makes_so_many_images_of_each_class(name: str, digits: Dataset, compute: Compute) -> None:
    sizes = [2, 1, 3, 1, 1, 2, 1, 1, 1, 1]
    synthetic = made(name, replace(task(digits, compute), sizes=sizes))
    assert synthetic.images.shape == (14, 1, 8, 8)
    assert synthetic.images.dtype == torch.float32
    assert torch.isfinite(synthetic.images).all()
    assert synthetic.labels.tolist() == [label for label, size in enumerate(sizes) for _ in range(size)]


@every_method
def test_equal_seeds_give_equal_images(name: str, digits: Dataset, compute: Compute) -> None:
    first, again, other = (made(name, task(digits, compute, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize(
    ("name", "step"),
    [(name, step) for name in NAMES for step in (0, 1)[: STEPS.get(name, 2)]],  # between iterations, and within one
)
def test_resumed_equals_undisturbed(
    name: str, step: int, digits: Dataset, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the second iteration's first steps, images, losses and further steps are the same bit for bit."""
    whole = made(name, task(digits, compute))
    keep = {"checkpoint": tmp_path / "state.pt", "checkpoint_seconds": 0.0}
    store = Learning.store

    def stopping(self: Learning) -> None:
        store(self)
        if (self.iteration, self.step) == (1, step):
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Learning, "store", stopping)
        with pytest.raises(StoppedError):
            made(name, task(digits, compute, **keep))
    resumed = made(name, task(digits, compute, resume=True, **keep))
    assert torch.equal(whole.images, resumed.images)
    assert torch.equal(whole.curve, resumed.curve)
    fresh = made(name, task(digits, compute, seed=1))
    assert not torch.equal(whole.images, fresh.images)


def test_resume_needs_a_fitting_checkpoint(digits: Dataset, compute: Compute, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    keep = {"checkpoint": path, "checkpoint_seconds": 0.0, "resume": True}
    made("DM", task(digits, compute, **keep))
    with pytest.raises(UserError, match=r"state\.pt does not fit this run"):
        made("DM", task(digits, compute, ipc=2, **keep))
    save_tensors(path, {"iteration": 1})
    with pytest.raises(UserError, match="does not fit this run"):
        made("DM", task(digits, compute, **keep))
    path.write_bytes(b"PK broken")
    with pytest.raises(UserError, match="damaged"):
        made("DM", task(digits, compute, **keep))


def test_a_step_follows_the_gradient_with_momentum(digits: Dataset, compute: Compute) -> None:
    """DM on one fixed network without augmentation: two steps by hand, in normalised space."""
    network = narrow(0)
    job = task(digits, compute, fresh_network=lambda number: network)
    recipe = ImageRecipe(lr=0.3, momentum=0.5, batch=10_000, init="real")
    found = condense(job, feature_matching(), Schedule(2), recipe)

    mean, std = compute.statistics
    begun = condense(job, feature_matching(), Schedule(1), replace(recipe, lr=1e-30)).images
    x = ((begun - mean) / std).requires_grad_()
    real = (digits.train.images / 255 - mean[:, None, None]) / std[:, None, None]
    centres = torch.stack([network.embed(real[digits.train.labels == label]).mean(0) for label in range(10)]).detach()
    velocity = torch.zeros_like(x)
    for _ in range(2):
        (gradient,) = torch.autograd.grad((network.embed(x) - centres).square().sum(), x)
        velocity = 0.5 * velocity + gradient
        x = (x - 0.3 * velocity).detach().requires_grad_()
    torch.testing.assert_close(found.images, (x * std + mean).detach(), rtol=1e-4, atol=1e-5)


def test_networks_are_new_each_iteration_and_trained_between_steps(
    digits: Dataset, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 iterations of 4 steps: networks 0, 1, 2, each trained 3 times, on T or on S."""
    for plan, batches in (
        (Schedule(3, 4, "real", images=20, batch=8), 3),  # 8 + 8 + 4
        (Schedule(3, 4, "synthetic", passes=5, batch=6), 10),  # 5 · (6 + 4)
        (Schedule(3, 4), 0),
    ):
        numbers, trained = [], []
        monkeypatch.setattr(Networks, "train_on", lambda self, x, y, draw: trained.append((len(x), y)))  # noqa: B023

        def fresh(number: int) -> nn.Module:
            numbers.append(number)  # noqa: B023
            return narrow(number)

        condense(task(digits, compute, fresh_network=fresh), feature_matching(), plan, ImageRecipe(0.1, batch=4))
        assert numbers == [0, 1, 2]
        assert len(trained) == 3 * 3 * batches
        if plan.train_on == "synthetic":
            assert sorted(torch.cat([y for _, y in trained[:2]]).tolist()) == list(range(10))


def test_training_between_steps_moves_the_network(digits: Dataset, compute: Compute) -> None:
    networks = []

    def fresh(number: int) -> nn.Module:
        networks.append(narrow(number, dropout=0.5))
        return networks[-1]

    state = torch.random.get_rng_state()
    plan = Schedule(1, 2, "real", images=64, batch=16, lr=0.1, momentum=0.9, strategy=IDC_NETWORK)
    condense(task(digits, compute, fresh_network=fresh), feature_matching(), plan, ImageRecipe(0.1, batch=4))
    (network,), before = networks, narrow(0, dropout=0.5)
    assert not torch.equal(network.head.weight, before.head.weight)
    assert torch.equal(state, torch.random.get_rng_state()), "dropout has drawn from the global generator"


SETTINGS = {"SGD": NONE, "CutMix": IDC_NETWORK}


@pytest.mark.parametrize("strategy", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", ["real", "synthetic"])
def test_training_between_steps_by_hand(kind: str, strategy: Strategy, digits: Dataset, compute: Compute) -> None:
    """Two trainings of a network: which images and labels, normalised how, mixed how; momentum and decay by hand."""
    lr, momentum, decay, factor = 0.05, 0.9, 0.01, 2
    plan = Schedule(
        1, 3, kind, passes=2, images=20, batch=9, lr=lr, momentum=momentum, weight_decay=decay, strategy=strategy
    )
    room, labels = Space("pixels", *compute.statistics), torch.arange(10).repeat_interleave(2)
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    networks = Networks(task(digits, compute, ipc=2, seed=5), plan, room, labels, factor)
    networks.ready_to_match(0, 0)
    for step in (0, 1):
        networks.train(0, step, images)

    mean, std = (value[:, None, None] for value in compute.statistics)
    if kind == "real":
        x, y, count, passes = digits.train.images.float() / 255, digits.train.labels, 20, 1
    else:
        x, y, count, passes = decoded(images, factor), torch.cat([labels] * 4), 80, 2
    network = narrow(0).train()
    weights = list(network.parameters())
    velocity = [torch.zeros_like(w) for w in weights]
    for step in (0, 1):
        draw = seeds.generator(5, "network", 0, step)
        for _ in range(passes):
            for part in chunks(torch.randperm(len(y), generator=draw)[:count], 9):
                inputs, mix = siamese.varied((x[part] - mean) / std, strategy, draw)
                partner, share = (torch.arange(len(part)), 1.0) if mix is None else (mix.partner, mix.share)
                log_p = network(inputs).log_softmax(1)
                own, other = (-log_p[torch.arange(len(part)), y[part][p]].mean() for p in (slice(None), partner))
                slopes = torch.autograd.grad(share * own + (1 - share) * other, weights)
                with torch.no_grad():
                    for w, v, slope in zip(weights, velocity, slopes, strict=True):
                        v.mul_(momentum).add_(slope + decay * w)
                        w.sub_(lr * v)
    for found, expected in zip(networks.network.parameters(), weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["DM", "DSA", "LCMat-C"])
def test_networks_match_what_they_are_evaluated_on(name: str, digits: Dataset, compute: Compute) -> None:
    """Nine images in one of 8×8, which three does not divide: also the padding is read alike in either space."""
    read = []

    class Noting(Narrow):
        def embed(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                read.append(x.detach().clone())
            return super().embed(x)

    job = task(digits, compute, fresh_network=lambda number: Noting(1, 8))
    how = {"iterations": 1, "image_lr": 1e-30, "augmentation": "none", "factor": 3, "init": "mixed"}
    synthetic = made(name, job, **how, **({} if name == "DM" else {"steps": 1}))
    images, labels = synthetic.split().images, synthetic.split().labels
    for label in range(10):
        torch.testing.assert_close(read[label], compute.inputs(images[labels == label]), rtol=1e-4, atol=1e-4)


def test_batch_norm_holds_the_statistics_of_real_images(digits: Dataset, compute: Compute) -> None:
    """Matching sees them fixed, so that no image's gradient depends on another; they are those of real images."""
    network = narrow(0, norm="batch")
    job = task(digits, compute, fresh_network=lambda number: network)
    room = Space("normalised", *compute.statistics)
    networks = Networks(job, Schedule(1), room, torch.arange(10), 1)
    found = networks.ready_to_match(0, 0)
    norm = found.body[1]
    assert not any(module.training for module in found.modules())
    assert norm.momentum == 0.1
    real = room.normalised(digits.train.images / 255)
    maps = found.body[0](real)
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=0.1, atol=0.03)
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=0.2, atol=0.03)
    synthetic = condense(job, gradient_matching(), Schedule(1, 2), ImageRecipe(0.01, batch=4))
    assert torch.isfinite(synthetic.images).all()


def test_snapshots_and_loss_curve(digits: Dataset, compute: Compute) -> None:
    taken = {}
    job = task(digits, compute, snapshot=taken.__setitem__, snapshots=4)
    synthetic = made("DM", job, iterations=12)
    assert list(taken) == [0, 3, 6, 9, 12]
    assert torch.equal(taken[12].images, synthetic.images)
    assert not torch.equal(taken[0].images, taken[3].images)
    assert synthetic.curve[:, 0].tolist() == list(range(1, 13))
    assert (synthetic.curve[:, 1] > 0).all()


def test_the_loss_curve_of_a_long_run_is_thinned(digits: Dataset, compute: Compute) -> None:
    """Up to a hundred points, each the mean since the one before: here losses are the iterations' numbers."""
    images = torch.zeros(10, 1, 8, 8, requires_grad=True)
    room = Space("normalised", *compute.statistics)
    optimizer = torch.optim.SGD([images], lr=0.1)
    learning = Learning(task(digits, compute), Learned(room, torch.arange(10), images, optimizer), 250, 2)
    curve = learning.run(lambda iteration, step: (torch.tensor(iteration + 1.0), torch.zeros_like(images))).curve
    assert curve[:, 0].tolist() == [*range(3, 250, 3), 250]
    assert curve[:2, 1].tolist() == [2, 5]
    assert curve[-1, 1] == 250


@pytest.mark.parametrize("name", ["DM", "DSA", "LCMat-C"])
def test_exploding_images_stop_the_run(name: str, digits: Dataset, compute: Compute) -> None:
    with pytest.raises(DivergedError, match=r"iteration 1, step 1, image learning rate 1e\+09: they explode"):
        made(name, task(digits, compute), image_lr=1e9)


def test_a_loss_that_is_not_finite_stops_the_run(digits: Dataset, compute: Compute) -> None:
    """The step is named: here the second iteration's network is broken."""

    def fresh(number: int) -> nn.Module:
        network = narrow(number)
        if number == 1:
            with torch.no_grad():
                network.body[0].weight.fill_(math.nan)
        return network

    for matching in (feature_matching(), gradient_matching(), curvature_matching(0.1)):
        with pytest.raises(DivergedError, match="the matching loss is nan at iteration 2, step 1"):
            condense(task(digits, compute, fresh_network=fresh), matching, Schedule(3, 2), ImageRecipe(0.01, batch=4))


def test_a_network_that_diverges_stops_the_run(digits: Dataset, compute: Compute) -> None:
    with pytest.raises(DivergedError, match=r"the matching loss is (nan|inf) at iteration 1, step [23]"):
        made("LCMat-C", task(digits, compute), network_lr=1e12)


def test_pixels_stay_in_range(digits: Dataset, compute: Compute) -> None:
    images = made("LCMat-C", task(digits, compute, ipc=2), image_lr=0.1).images
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert ((images > 0) & (images < 1)).any()


def test_a_variance_without_two_images_is_said_once(digits: Dataset, compute: Compute) -> None:
    for ipc, factor, expected in ((1, 1, 1), (1, 2, 0), (2, 1, 0)):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            made("LCMat-C", task(digits, compute, ipc=ipc), factor=factor)
        assert sum("needs two real and two synthetic images" in str(w.message) for w in said) == expected


def test_no_radius_is_gradient_matching_to_the_last_bit(digits: Dataset, compute: Compute) -> None:
    """The whole run of LCMat-C, against the same schedule with the loss of gradient matching."""
    how = methods.condenser("LCMat-C").resolved([2] * 10, {**CHEAP["LCMat-C"], "rho": 0.0})
    job = task(digits, compute, ipc=2)
    found = methods.condenser("LCMat-C").condense(job, **how)
    plan = Schedule(2, 3, "real", images=8, batch=4, lr=0.01, momentum=0.9, weight_decay=5e-4, strategy=IDC_NETWORK)
    shared = methods.condensation.strategies(job, "idc")[0]
    recipe = ImageRecipe(how["image_lr"], batch=4, space="pixels", init="noise", strategy=shared)
    plain = condense(job, gradient_matching("squared", "convolutions"), plan, recipe)
    assert torch.equal(found.images, plain.images)
    assert not torch.equal(found.images, made("LCMat-C", job, rho=5.0).images)


def test_backpack_gives_the_same_images(digits: Dataset, compute: Compute) -> None:
    first, second = (made("LCMat-C", task(digits, compute, ipc=2), backpack=b, rho=5.0) for b in (False, True))
    torch.testing.assert_close(first.images, second.images, rtol=1e-3, atol=1e-4)


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "8", "--lr", "0.05", "--test_interval", "4"]
DM = [*QUICK, "--selection", "DM", "--option", "DM.iterations=6", "DM.batch=8"]
