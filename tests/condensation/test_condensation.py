"""The condensation loop, synthetic images and their files, evaluation recipes, and all of it from the command line."""

import json
import math
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import methods
import nets
from lcmat import UserError, data, seeds
from lcmat.augmentation import siamese
from lcmat.augmentation.siamese import IDC_NETWORK, NONE, Mix, Strategy
from lcmat.command_line import options
from lcmat.command_line.method_flags import check_options, options_for, options_of
from lcmat.command_line.released_flags import methods_of
from lcmat.command_line.settings import settings_of
from lcmat.condensation.condenser import Task
from lcmat.condensation.loop import Learning, condense
from lcmat.condensation.matching import curvature_matching, feature_matching, gradient_matching
from lcmat.condensation.networks import Networks, Schedule
from lcmat.condensation.space import Space
from lcmat.condensation.synthetic import Synthetic, class_positions, decoded, drawn_from_classes, initial
from lcmat.data.splits import Dataset, TensorSplit
from lcmat.files import save_tensors
from lcmat.reports import tables
from lcmat.runs import evaluation
from lcmat.runs.evaluation import EVALUATIONS, evaluation_recipe
from lcmat.selection.budgets import class_budgets
from lcmat.training import (
    Compute,
    DivergedError,
    Recipe,
    chunks,
    mixed_cross_entropy,
    optimizer_of,
    scheduler_of,
    train,
    weighted_cross_entropy,
)
from tests import oracles
from tests.condensing import CHEAP, NAMES, Narrow, every_method, made, narrow, task
from tests.harness import ROOT, call, places, records_in

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")
STEPS = {"RandomReal": 0, "DM": 1, "KIP": 1}  # places to stop in an iteration, where there are fewer than two
learning_methods = pytest.mark.parametrize("name", [name for name in NAMES if name != "RandomReal"])


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


class StoppedError(Exception):
    """Stands for a kill."""


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
    how = {"image_lr": 0.3, "image_momentum": 0.5, "batch": 10_000, "init": "real"}
    found = condense(job, feature_matching(), Schedule(2), **how)

    mean, std = compute.statistics
    begun = condense(job, feature_matching(), Schedule(1), **{**how, "image_lr": 1e-30}).images
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

        condense(task(digits, compute, fresh_network=fresh), feature_matching(), plan, image_lr=0.1, batch=4)
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
    condense(task(digits, compute, fresh_network=fresh), feature_matching(), plan, image_lr=0.1, batch=4)
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
    synthetic = condense(job, gradient_matching(), Schedule(1, 2), image_lr=0.01, batch=4)
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
    learning = Learning(task(digits, compute), room, torch.arange(10), images, optimizer, 250, 2)
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
            condense(task(digits, compute, fresh_network=fresh), matching, Schedule(3, 2), image_lr=0.01, batch=4)


def test_a_network_that_diverges_stops_the_run(digits: Dataset, compute: Compute) -> None:
    with pytest.raises(DivergedError, match=r"the matching loss is (nan|inf) at iteration 1, step [23]"):
        made("LCMat-C", task(digits, compute), network_lr=1e20)


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
    plain = condense(
        job, gradient_matching("squared", "convolutions"), plan, space="pixels", init="noise", strategy=shared,
        batch=4, image_lr=how["image_lr"],
    )  # fmt: skip
    assert torch.equal(found.images, plain.images)
    assert not torch.equal(found.images, made("LCMat-C", job, rho=5.0).images)


def test_backpack_gives_the_same_images(digits: Dataset, compute: Compute) -> None:
    first, second = (made("LCMat-C", task(digits, compute, ipc=2), backpack=b, rho=5.0) for b in (False, True))
    torch.testing.assert_close(first.images, second.images, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("init", ["noise", "real", "mixed"])
@pytest.mark.parametrize("name", ["DM", "DSA", "LCMat-C"])
def test_several_images_in_one(name: str, init: str, digits: Dataset, compute: Compute) -> None:
    synthetic = made(name, task(digits, compute), factor=2, init=init)
    assert synthetic.factor == 2
    assert len(synthetic) == 10
    split = synthetic.split()
    assert split.images.shape == (40, 1, 8, 8)
    assert torch.bincount(split.labels).tolist() == [4] * 10
    for label in range(10):
        torch.testing.assert_close(
            split.images[split.labels == label], decoded(synthetic.images[synthetic.labels == label], 2)
        )


@pytest.mark.parametrize("size", [(8, 8), (7, 9)], ids=str)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_decoding_against_interpolate(factor: int, size: tuple[int, int]) -> None:
    images = torch.rand(3, 2, *size, dtype=torch.float64)
    height, width = size
    tall, wide = math.ceil(height / factor), math.ceil(width / factor)
    padded = torch.full((3, 2, tall * factor, wide * factor), 0.5, dtype=torch.float64)
    padded[:, :, :height, :width] = images
    expected = []
    for r in range(factor):
        for c in range(factor):
            patch = padded[:, :, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide]
            expected.append(F.interpolate(patch, size=size, mode="bilinear", align_corners=False))
    torch.testing.assert_close(decoded(images, factor), torch.cat(expected))


def test_mixed_images_hold_real_ones(digits: Dataset, compute: Compute) -> None:
    """Four constant images of each class in one: decoded, they are there again."""
    labels = torch.arange(10).repeat_interleave(4)
    levels = torch.arange(40, dtype=torch.uint8)
    split = TensorSplit(levels[:, None, None, None].expand(40, 1, 8, 8), labels)
    draw = torch.Generator().manual_seed(0)
    images, labels = initial(split, [1] * 10, "mixed", 2, draw, *compute.statistics)
    found = decoded(images, 2)
    for label in range(10):
        own = found[torch.arange(40) % 10 == label]
        assert sorted(round(255 * float(image.mean())) for image in own) == list(range(4 * label, 4 * label + 4))
        assert all(float(image.std()) < 1e-6 for image in own)


def test_real_images_are_of_their_class_and_no_two_the_same(digits: Dataset, compute: Compute) -> None:
    synthetic = made("RandomReal", task(digits, compute, ipc=20))
    pixels = (synthetic.images * 255).round().byte()
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(digits.train.images, digits.train.labels, strict=True)
    }
    found = [image.numpy().tobytes() for image in pixels]
    assert len(set(found)) == 200
    assert [known[image] for image in found] == synthetic.labels.tolist()


def test_too_few_real_images() -> None:
    positions = class_positions(torch.tensor([0, 0, 1]), 2)
    draw = torch.Generator().manual_seed(0)
    assert [len(part) for part in drawn_from_classes(positions, [2, 1], draw)] == [2, 1]
    with pytest.raises(UserError, match="class 1 has 1 images, of which 2 are needed"):
        drawn_from_classes(positions, [2, 2], draw)


def test_files(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 4, 4) * 2 - 0.5
    synthetic = Synthetic(images, torch.tensor([0, 0, 0, 2, 2]), 2, torch.tensor([[1.0, 2.0]]), 3.0)
    synthetic.save(tmp_path / "a.pt")
    read = Synthetic.load(tmp_path / "a.pt")
    assert torch.equal(read.images, images)
    assert torch.equal(read.labels, synthetic.labels)
    assert (read.factor, read.seconds, read.curve.tolist()) == (2, 3.0, [[1.0, 2.0]])
    synthetic.save_grid(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == (8 * (3 * 5 + 1), 8 * (2 * 5 + 1))  # a row for each class, lines between, enlarged 8 times
    assert picture.mode == "RGB"
    assert picture.getpixel((8 * 1, 8 * 1)) == tuple((images[0, :, 0, 0].clamp(0, 1) * 255).round().int().tolist())
    Synthetic(images[:, :1], synthetic.labels).save_grid(tmp_path / "grey.png")
    assert Image.open(tmp_path / "grey.png").mode == "L"
    for content in ({"images": images}, {"images": images, "labels": torch.arange(3), "factor": 1}, {"labels": 1}):
        save_tensors(tmp_path / "bad.pt", content)
        with pytest.raises(UserError, match=r"bad\.pt holds"):
            Synthetic.load(tmp_path / "bad.pt")


def test_registry_keeps_selection_and_condensation_apart() -> None:
    assert sorted(methods.condensers()) == sorted(NAMES)
    assert not set(methods.condensers()) & set(methods.names())
    assert methods.condenser("lcmat-c").name == methods.find("LCMAT-C").name == "LCMat-C"
    assert methods.find("random").name == "Uniform"
    with pytest.raises(UserError, match="did you mean RandomReal"):
        methods.condenser("RandomRael")
    with pytest.raises(UserError, match="did you mean LCMat-S"):
        methods.find("LCMat")


@pytest.mark.parametrize(
    ("name", "ipc", "expected"),
    [
        ("DC", 1, {"steps": 1, "network_epochs": 1, "image_lr": 0.1, "init": "noise", "augmentation": "none"}),
        ("DSA", 10, {"steps": 10, "network_epochs": 50, "image_lr": 0.1, "init": "real", "augmentation": "dsa"}),
        ("DSA", 50, {"steps": 50, "network_epochs": 10, "iterations": 1000, "batch": 256}),
        ("DM", 10, {"image_lr": 1.0, "iterations": 20_000, "batch": 256, "init": "real"}),
        ("DM", 100, {"image_lr": 10.0}),
        ("LCMat-C", 10, {"image_lr": 0.005, "rho": 0.1, "steps": 100, "batch": 64, "init": "noise"}),
        ("LCMat-C", 50, {"image_lr": 0.025, "iterations": 2000, "network_images": 2000, "network_momentum": 0.9}),
        ("KIP", 10, {"image_lr": 0.04, "targets": 5000, "regularisation": 1e-6}),
    ],
)
def test_published_defaults(name: str, ipc: int, expected: dict) -> None:
    found = methods.condenser(name).resolved([ipc] * 10, {})
    assert {key: found[key] for key in expected} == expected
    assert list(found) == list(methods.condenser(name).options)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("DM", {"iteration": 3}, "DM has no option 'iteration'; did you mean iterations"),
        ("DM", {"iterations": 0}, "iterations must be a whole number of at least 1"),
        ("DM", {"iterations": "many"}, "DM: iterations must be a whole number"),
        ("DM", {"image_lr": "fast"}, "image_lr must be above 0"),
        ("DM", {"image_lr": -1.0}, "image_lr must be above 0 and finite"),
        ("DM", {"image_momentum": -0.1}, "image_momentum must be 0 or more"),
        ("DM", {"augmentation": "das"}, "did you mean dsa"),
        ("DC", {"steps": 0}, "steps must be a whole number of at least 1"),
        ("DC", {"network_batch": 1}, "network_batch must be a whole number of at least 2"),
        ("DC", {"metric": "cosinus"}, "did you mean cosine"),
        ("DSA", {"init": "reel"}, "did you mean real"),
        ("LCMat-C", {"rho": -1.0}, "rho must be 0 or more"),
        ("LCMat-C", {"factor": 0}, "factor must be a whole number of at least 1"),
        ("LCMat-C", {"layers": "conv"}, "unknown layers 'conv'"),
        ("LCMat-C", {"network_lr": 0.0}, "network_lr must be above 0"),
        ("LCMat-C", {"backpack": 2}, "LCMat-C: backpack must be true or false"),
        ("RandomReal", {"init": "noise"}, "RandomReal has no option 'init'; it has no options"),
    ],
)
def test_bad_options(name: str, given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        methods.condenser(name).resolved([10] * 10, given)


def test_recipes_of_the_literature() -> None:
    zhao, idc = (evaluation_recipe(name, {}) for name in EVALUATIONS)
    assert (zhao.epochs, zhao.batch, zhao.lr, zhao.momentum, zhao.nesterov, zhao.weight_decay) == (
        1000,
        256,
        0.01,
        0.9,
        False,
        5e-4,
    )
    assert (zhao.scheduler, zhao.step_size, zhao.gamma, zhao.augmentation) == ("StepLR", 500, 0.1, "dsa")
    assert (idc.epochs, idc.batch, idc.scheduler, idc.gamma, idc.augmentation) == (1000, 64, "MultiStepLR", 0.2, "idc")
    assert evaluation_recipe("zhao", {"epochs": 300}).step_size == 150
    assert evaluation_recipe("zhao", {"epochs": 300, "step_size": 10}).step_size == 10
    assert evaluation_recipe("idc", {"epochs": 300}).epochs == 300


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (replace(EVALUATIONS["zhao"], epochs=6, step_size=3), [0.01] * 3 + [0.001] * 3),
        (replace(EVALUATIONS["zhao"], epochs=5, step_size=2.5), [0.01] * 2 + [0.001] * 2 + [0.0001]),
        (replace(EVALUATIONS["idc"], epochs=6), [0.01] * 4 + [0.002] + [0.0004]),
    ],
    ids=["zhao", "zhao, odd", "idc"],
)
def test_learning_rates(recipe: Recipe, expected: list[float]) -> None:
    """Epoch by epoch, one step each."""
    optimizer = optimizer_of(nn.Linear(1, 1), recipe)
    scheduler = scheduler_of(optimizer, recipe, 1)
    rates = []
    for _ in range(recipe.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(expected)


def test_mixed_batches_share_their_loss() -> None:
    logits, labels = torch.randn(6, 3), torch.arange(6) % 3
    mix = Mix(torch.tensor([5, 4, 3, 2, 1, 0]), 0.3)
    own, other = (F.cross_entropy(logits, y, reduction="none") for y in (labels, labels[mix.partner]))
    expected = (0.3 * own + 0.7 * other).mean()
    assert float(mixed_cross_entropy(logits, labels, None, mix)) == pytest.approx(float(expected))
    weights = torch.rand(6)
    expected = (0.3 * weights * own + 0.7 * weights[mix.partner] * other).mean()
    assert float(mixed_cross_entropy(logits, labels, weights, mix)) == pytest.approx(float(expected))
    assert mixed_cross_entropy(logits, labels, weights, None) == weighted_cross_entropy(logits, labels, weights)


@pytest.mark.parametrize("augmentation", ["dsa", "idc", "dsa_unmirrored", "idc_unmirrored"])
def test_networkstrain_on_images_of_floats(augmentation: str, digits: Dataset, compute: Compute) -> None:
    synthetic = made("RandomReal", task(digits, compute, ipc=10))
    recipe = Recipe(epochs=30, batch=32, lr=0.05, scheduler="constant", augmentation=augmentation)
    first, again = (train(narrow(0), synthetic.split(), recipe, compute, seed=0, test=digits.test) for _ in range(2))
    assert first.tests == again.tests
    assert first.tests[-1][1] > 50


def test_floats_are_normalised_as_their_pixels(digits: Dataset, compute: Compute) -> None:
    pixels = digits.train.images[:20]
    torch.testing.assert_close(compute.inputs(pixels.float() / 255), compute.inputs(pixels))


def accuracy_after(synthetic: Synthetic, dataset: Dataset, compute: Compute, build: Callable, epochs: int) -> float:
    """Mean test accuracy of three networks: the same ones for everything they are trained on."""
    recipe = replace(EVALUATIONS["zhao"], epochs=epochs, step_size=epochs / 2, lr=0.03, augmentation="dsa_unmirrored")
    values = []
    for seed in range(3):
        history = train(build(100 + seed), synthetic.split(), recipe, compute, seed=seed, test=dataset.test)
        values.append(history.tests[-1][1])
    return sum(values) / 3


LEARN = {
    "DC": {"iterations": 25, "batch": 32},
    "DSA": {"iterations": 25, "batch": 32},
    "DM": {"iterations": 30, "batch": 16},
    "LCMat-C": {"init": "real", "iterations": 8, "steps": 10, "batch": 32, "network_images": 200, "image_lr": 0.02},
    "KIP": {"iterations": 40, "targets": 300},
}


@pytest.fixture(scope="module")
def digits16() -> tuple[Dataset, Compute]:
    """Digits of 16×16: on 8×8 the last normalisation sees too few pixels for the published learning rates."""
    dataset = data.load("digits", image_size=16)
    return dataset, Compute(torch.device("cpu"), torch.float32, dataset.mean, dataset.std)


def gains_over_real_images(name: str, problem: tuple, build: Callable, seeds: int, epochs: int, ipc: int = 1) -> Tensor:
    """How much better, seed by seed, networks learn from learned images than from real ones."""
    dataset, compute = problem
    gains = []
    for seed in range(seeds):
        job = Task(dataset.train, [ipc] * 10, compute, build, seed=seed, dataset="digits")
        images = [made(method, job, **LEARN.get(method, {})) for method in (name, "RandomReal")]
        learned, real = (accuracy_after(one, dataset, compute, build, epochs) for one in images)
        gains.append(learned - real)
    return torch.tensor(gains)


slowly = [
    pytest.param(*case, marks=pytest.mark.slow) for case in (("DC", 1), ("DSA", 1), ("LCMat-C", 1), ("LCMat-C", 3))
]


@pytest.mark.parametrize(("name", "ipc"), [("DM", 1), ("KIP", 1), *slowly])
def test_learned_images_beat_real_ones(name: str, ipc: int, digits16: tuple[Dataset, Compute]) -> None:
    """Over three seeds better in the mean by more than twice its standard error, and in each.

    With three images of each class LCMat-C has the variance to match, too.
    """

    def build(number: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(number)
            return Narrow(1, 16)

    gains = gains_over_real_images(name, digits16, build, seeds=3, epochs=20, ipc=ipc)
    assert float(gains.mean()) > 2 * float(gains.std()) / math.sqrt(3) + 1
    assert float(gains.min()) > 0


@pytest.mark.slow
@learning_methods
def test_learned_images_beat_real_ones_with_convnet3(name: str, digits16: tuple[Dataset, Compute]) -> None:
    def build(number: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(number)
            return nets.build("ConvNet3", 10, 1, 16)

    assert float(gains_over_real_images(name, digits16, build, seeds=2, epochs=60).min()) > 5


QUICK = ["--dataset", "digits", "--model", "MLP", "--epochs", "8", "--lr", "0.05", "--test_interval", "4"]
DM = [*QUICK, "--selection", "DM", "--option", "DM.iterations=6", "DM.batch=8"]


def test_condense_evaluate_record_tabulate(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Two methods beside two selections, evaluated alike, two networks for each seed."""
    words = [*DM, "--ipc", "2", "--seed", "0", "1", "--evaluations", "2", "--snapshots", "2"]
    assert call(*words, "--selection", "DM", "RandomReal", "Uniform", *places(tmp_path)) == 0
    found = records_in(tmp_path / "result")
    assert len(found) == 6
    for name, record in found.items():
        path = tmp_path / "result" / name
        assert name.startswith(f"digits-MLP/{record['selection']}/fraction0.0154202-seed{record['seed']}-")
        assert record["subset_size"] == 20
        assert record["config"]["training"]["augmentation"] == "dsa_unmirrored"
        assert [epoch for epoch, _ in record["tests"]] == [4, 8]
        assert len(record["evaluations"]) == record["config"]["evaluations"] == 2
        each = [one["test_accuracy"] for one in record["evaluations"]]
        assert record["test_accuracy"] == pytest.approx(sum(each) / 2)
        assert str(tmp_path) not in path.read_text()
        if record["selection"] == "Uniform":
            continue
        synthetic = Synthetic.load(path.parent / record["synthetic"])
        assert torch.bincount(synthetic.labels).tolist() == [2] * 10
        assert Image.open(path.with_suffix(".png")).size[0] > 50
        snapshots = sorted(p.name for p in path.with_suffix("").glob("*"))
        marks = ("000000", "000003", "000006")
        expected = [f"iteration{mark}.{kind}" for mark in marks for kind in ("png", "pt")]
        assert snapshots == (expected if record["selection"] == "DM" else [])
    assert not list((tmp_path / "cache").rglob("checkpoints/*"))
    printed = capsys.readouterr().out
    assert "mean ± standard deviation of 4 trainings" in printed
    assert "2 networks for each seed" in printed
    (table,) = tables.accuracy_tables(records_with_environment(tmp_path / "result"))
    assert set(table.methods) == {"DM", "RandomReal", "Uniform"}
    assert len(table.cells["DM", 20 / 1297].final) == 4


def records_with_environment(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*/*.json"))]


def test_recorded_runs_are_skipped_and_images_reused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Another test model and another recipe take the images from the cache."""
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    (kept,) = (tmp_path / "cache" / "synthetic").glob("*.pt")
    stamp = kept.stat().st_mtime_ns
    capsys.readouterr()
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    assert "already recorded" in capsys.readouterr().out
    assert call(*DM, "--budget", "10", "--cross", "LeNet", "--evaluation", "idc", *places(tmp_path)) == 0
    assert kept.stat().st_mtime_ns == stamp
    assert list((tmp_path / "cache" / "synthetic").glob("*.pt")) == [kept]
    found = records_in(tmp_path / "result")
    assert len(found) == 3
    assert {r["test_model"] for r in found.values()} == {"MLP", "LeNet"}
    assert {r["config"]["training"]["augmentation"] for r in found.values()} == {"dsa_unmirrored", "idc_unmirrored"}
    images = [Synthetic.load(path.with_suffix(".pt")).images for path in (tmp_path / "result").glob("*/*/*.json")]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_damaged_images_are_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*DM, "--ipc", "1", *places(tmp_path)) == 0
    before = records_in(tmp_path / "result")
    (kept,) = (tmp_path / "cache" / "synthetic").glob("*.pt")
    kept.write_bytes(b"PK broken")
    assert call(*DM, "--ipc", "1", *places(tmp_path), "--overwrite") == 0
    assert "it is made anew" in capsys.readouterr().err
    assert records_in(tmp_path / "result") == before


def test_sizes(tmp_path: Path) -> None:
    """--ipc and multiples of the classes are shared out evenly, fractions and other budgets as selections are."""
    words = [*QUICK, "--selection", "RandomReal", "--epochs", "1", *places(tmp_path)]
    for size in (["--fraction", "0.043"], ["--budget", "33"], ["--budget", "30"], ["--ipc", "4"]):
        assert call(*words, *size) == 0
    counts = {}
    for path in (tmp_path / "result").glob("*/*/*.pt"):
        counts[len(Synthetic.load(path))] = torch.bincount(Synthetic.load(path).labels).tolist()
    sizes = torch.bincount(data.load("digits").train.labels).tolist()
    by_fraction = [max(1, round(0.043 * n)) for n in sizes]
    assert set(by_fraction) == {5, 6}
    assert counts == {
        30: [3] * 10,
        33: class_budgets(np.array(sizes), budget=33).tolist(),
        40: [4] * 10,
        sum(by_fraction): by_fraction,
    }


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while images are learned, and stopped once more after the first of two evaluations."""
    words = [*QUICK, "--selection", "LCMat-C", "--ipc", "2", "--checkpoint_interval", "0", "--evaluations", "2"]
    words += ["--threads", "1"]  # in a process of its own as in this one
    words += ["--option", "iterations=5", "steps=3", "batch=16", "network_images=32", "layers=all", "metric=cosine"]
    assert call(*words, *places(tmp_path / "whole")) == 0
    expected = records_in(tmp_path / "whole" / "result")

    broken = tmp_path / "broken"
    words += [*places(broken), "--resume"]
    checkpoints = broken / "cache" / "checkpoints"
    process = subprocess.Popen([sys.executable, str(ROOT / "main.py"), *words], stderr=subprocess.PIPE, text=True)
    while not list(checkpoints.glob("*.pt")):
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()}"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list((broken / "cache" / "synthetic").glob("*.pt"))

    def stopping(path: Path, value: dict) -> None:
        save_tensors(path, value)
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "save_tensors", stopping)
        with pytest.raises(StoppedError):
            call(*words)
    assert len(list(checkpoints.glob("*-evaluated.pt"))) == 1
    assert records_in(broken / "result") == {}
    trained = []
    monkeypatch.setattr(evaluation, "train", lambda *a, **k: trained.append(k["label"]) or train(*a, **k))
    assert call(*words) == 0
    assert len(trained) == 1
    assert records_in(broken / "result") == expected
    assert list(checkpoints.glob("*")) == []
    pairs = [sorted((folder / "result").glob("*/*/*.pt")) for folder in (tmp_path / "whole", broken)]
    assert torch.equal(Synthetic.load(pairs[0][0]).images, Synthetic.load(pairs[1][0]).images)


def test_one_evaluation_leaves_selections_as_they_were(tmp_path: Path) -> None:
    """The configuration, and so the name of a record, does not know of evaluations when there is one."""
    assert call(*QUICK, "--selection", "Uniform", "--fraction", "0.05", *places(tmp_path)) == 0
    ((_, record),) = records_in(tmp_path / "result").items()
    assert "evaluations" not in record
    assert "evaluations" not in record["config"]
    assert record["config"]["training"]["scheduler"] == "CosineAnnealingLR"
    assert record["config"]["training"]["augmentation"] == "none"


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        ("--evaluation zhao", replace(EVALUATIONS["zhao"])),
        ("--evaluation ZHAO --epochs 300", replace(EVALUATIONS["zhao"], epochs=300, step_size=150)),
        ("--evaluation idc --lr 0.1 --train_batch 32", replace(EVALUATIONS["idc"], lr=0.1, batch=32)),
        ("--evaluation idc --epochs 200", replace(EVALUATIONS["idc"], epochs=200)),
        ("--evaluation zhao --scheduler constant", replace(EVALUATIONS["zhao"], scheduler="constant")),
        ("", Recipe()),
    ],
)
def test_flags_win_over_the_evaluation_recipe(words: str, recipe: Recipe) -> None:
    """Also where they say what the default is, as with 200 epochs."""
    assert settings_of(options.parse(words.split())).recipe == recipe


BAD_INPUT = {
    "method": (["--selection", "DMM"], "did you mean DM"),
    "evaluation": (["--selection", "DM", "--evaluation", "zao"], "did you mean zhao"),
    "evaluations": (["--selection", "DM", "--evaluations", "0"], "--evaluations must be at least 1"),
    "ipc": (["--selection", "DM", "--ipc", "0"], "--ipc must be at least 1"),
    "ipc of too few": (["--selection", "RandomReal", "--ipc", "200"], "class 0 has 128; ask for fewer\n"),
    "mixed of too few": (
        ["--selection", "DM", "--ipc", "50", "--factor", "2", "--option", "init=mixed"], "begins with 200 real images"),
    "factor": (["--selection", "DM", "--factor", "0"], "--factor must be at least 1"),
    "factor above the size": (["--selection", "DM", "--factor", "9"], "--factor must be at most 8, the side"),
    "factor of none": (["--selection", "KIP", "Uniform", "--factor", "2"], "KIP, Uniform cannot; leave it out"),
    "convolutions of none": (["--selection", "LCMat-C"], "of convolutions, and MLP has none; take --option layers=all"),
    "ipc of too few to choose": (["--selection", "Uniform", "--ipc", "200"], "200 samples are asked for of class 0"),
    "snapshots": (["--selection", "DM", "--snapshots", "-1"], "--snapshots must be 0 or more"),
    "budget below classes": (["--selection", "DM", "--budget", "9"], "cannot hold one sample of each of 10 classes"),
    "balance": (["--selection", "DM", "--ipc", "1", "--balance", "False"], "makes images class by class"),
    "option": (["--selection", "DM", "--option", "iteration=3"], "did you mean iterations"),
    "option of wrong kind": (["--selection", "DM", "--option", "iterations=few"], "DM: iterations must be a whole"),
    "rho": (["--selection", "LCMat-C", "--rho", "-1"], "rho must be 0 or more"),
    "metric": (["--selection", "LCMat-C", "--option", "metric=l2"], "unknown metric 'l2'"),
    "signals": (["--selection", "DM", "--signals", "x.npz"], "--signals hold no images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    words, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", "digits", "--model", "MLP", *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    assert message in line + "\n"
    assert list(tmp_path.iterdir()) == []


def test_diverging_images_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert call(*DM, "--ipc", "1", "--option", "DM.image_lr=1e12", "DM.batch=8", *places(tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "standard deviations from the data's mean after iteration 1, step 1" in line
    assert records_in(tmp_path / "result") == {}


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The table has what there is, the exit code and the last line say what is missing; images are made once."""
    words = [*DM, "--ipc", "1", "2", "--selection", "RandomReal", "DM", "Uniform", "--option", "DM.image_lr=1e12"]
    assert call(*words, "DM.batch=8", *places(tmp_path)) == 2
    printed = capsys.readouterr()
    *each, last = printed.err.strip().splitlines()
    assert [line.partition(":")[0] for line in each] == [
        "no record of DM fraction 0.0077101 seed 0", "no record of DM fraction 0.0154202 seed 0"
    ]  # fmt: skip
    assert "DM fraction 0.0077101 seed 0 and 1 more of 6 runs diverged and have no record" in last
    assert {r["selection"] for r in records_in(tmp_path / "result").values()} == {"RandomReal", "Uniform"}
    assert "| RandomReal |" in printed.out


def test_selections_take_as_many_of_each_class(tmp_path: Path) -> None:
    """--ipc on a long tail, where a budget is shared in proportion to the classes; told apart in tables and names."""
    words = [*QUICK, "--selection", "Uniform", "RandomReal", "--long_tail", "10", "--epochs", "1"]
    for size in (["--ipc", "3"], ["--budget", "30"]):
        assert call(*words, *size, *places(tmp_path)) == 0
    found = records_in(tmp_path / "result")
    chosen = {}
    labels = data.load("digits", long_tail=10).train.labels
    for name, record in found.items():
        if record["selection"] == "Uniform":
            subset = np.load((tmp_path / "result" / name).with_suffix(".npz"))
            chosen[record["config"].get("per_class")] = torch.bincount(labels[subset["indices"]]).tolist()
    assert chosen[3] == [3] * 10
    assert chosen[None][0] > 5 > 2 > chosen[None][9]
    (table,) = tables.accuracy_tables(records_with_environment(tmp_path / "result"))
    assert table.methods == ["Uniform", "RandomReal", "Uniform (of each class = 3)"]


PAPERS = [path for path in sorted((ROOT / "configs").glob("table[45]_*.yaml")) if "runs:" not in path.read_text()]


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_configurations_are_understood(path: Path) -> None:
    """Every flag and every option is known; sizes are those of the paper's columns."""
    args = options.parse(["--config", str(path)])
    chosen = [methods.find(name) for name in methods_of(args)]
    check_options(chosen, list(options_of(args, flags=False)))
    for method in chosen:
        if method.name in methods.condensers():
            method.resolved([10] * 10, options_for(method, options_of(args)))
    assert args.ipc
    assert args.model == "ConvNet3"


def test_tables_4_and_5_have_configurations() -> None:
    names = {path.stem for path in (ROOT / "configs").glob("table[45]_*.yaml")}
    assert {"table4_cifar10", "table4_cifar100"} <= names
    assert any(name.startswith("table5") for name in names)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("DM", {"image_lr": 1}),
        ("DM", {"image_momentum": 0}),
        ("KIP", {"image_lr": 1}),
        ("LCMat-C", {"rho": 1, "image_lr": 1}),
    ],
)
def test_a_whole_number_and_its_float_are_one_setting(name: str, given: dict[str, int]) -> None:
    """In the record's hash and the cache's, where 1 and 1.0 are written differently."""
    found = [
        methods.condenser(name).resolved([10] * 10, {k: kind(v) for k, v in given.items()}) for kind in (int, float)
    ]
    assert json.dumps(found[0]) == json.dumps(found[1])
    assert all(type(found[0][k]) is float for k in given)


def test_one_image_is_too_few_to_train_a_network_on() -> None:
    with pytest.raises(UserError, match="network_images must be a whole number of at least 2"):
        methods.condenser("LCMat-C").resolved([10] * 10, {"network_images": 1})
