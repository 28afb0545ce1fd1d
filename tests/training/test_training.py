"""The training loop, its recipe, and what it promises: resuming, weights, finite losses, dynamics."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat import hardware, seeds
from lcmat.data import Dataset, TensorSplit
from lcmat.errors import UserError
from lcmat.training import Checkpoint, Compute, DivergedError, Recipe, Watch, accuracy, loop, train
from lcmat.training.losses import SampleWeights, weighted_cross_entropy
from lcmat.training.recipe import chunks
from tests.networks import TinyNet


def small() -> TinyNet:
    """Return a network with what can make a resumed training differ: BatchNorm and dropout."""
    return TinyNet(0, extra=True)


QUICK = Recipe(epochs=4, batch=64, lr=0.05)


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 4, [3]), (1, 4, [1]), (5, 2, [2, 3])],
)
def test_last_batch_of_one_joins_the_one_before(n: int, size: int, expected: list[int]) -> None:
    parts = chunks(torch.arange(n), size)
    assert [len(part) for part in parts] == expected
    assert torch.cat(parts).tolist() == list(range(n))


def test_training_learns_and_is_repeatable(digits: Dataset, compute: Compute) -> None:
    results = []
    for _ in range(2):
        network = small()
        history = train(network, digits.train, replace(QUICK, epochs=8), compute, seed=1, watch=Watch(digits.test))
        results.append((history.tests, network.head.weight.detach().clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0][-1][0] == 8
    assert results[0][0][-1][1] > 85


def test_other_seed_trains_otherwise(digits: Dataset, compute: Compute) -> None:
    first, second = small(), small()
    train(first, digits.train, QUICK, compute, seed=1)
    train(second, digits.train, QUICK, compute, seed=2)
    assert not torch.equal(first.head.weight, second.head.weight)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("scheduler", ["CosineAnnealingLR", "StepLR", "constant"])
def test_resumed_training_equals_an_undisturbed_one(
    digits: Dataset, compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str, scheduler: str
) -> None:
    recipe = replace(QUICK, optimizer=optimizer, scheduler=scheduler, lr=0.01, step_size=1)
    options = {"seed": 3, "watch": Watch(digits.test, interval=1, dynamics=True)}
    whole = small()
    expected = train(whole, digits.train, recipe, compute, **options)

    checkpoint = tmp_path / "run.pt"
    broken, calls = small(), []

    def stop_in_third_epoch(*arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return accuracy(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "accuracy", stop_in_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(broken, digits.train, recipe, compute, **options, checkpoint=Checkpoint(checkpoint, 0))
    resumed = small()
    found = train(resumed, digits.train, recipe, compute, **options, checkpoint=Checkpoint(checkpoint, resume=True))

    assert found.tests == expected.tests
    assert found.train_accuracy == expected.train_accuracy
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for name, value in expected.dynamics.items():
        assert torch.equal(value, found.dynamics[name]), name


def test_checkpoint_is_ignored_without_resume(digits: Dataset, compute: Compute, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    train(small(), digits.train, replace(QUICK, lr=0.5), compute, seed=9, checkpoint=Checkpoint(checkpoint, 0))
    assert checkpoint.exists()
    fresh, other = small(), small()
    train(fresh, digits.train, QUICK, compute, seed=1)
    train(other, digits.train, QUICK, compute, seed=1, checkpoint=Checkpoint(checkpoint))
    assert torch.equal(fresh.head.weight, other.head.weight)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"], ids=["empty", "text"])
def test_damaged_checkpoint_is_named(digits: Dataset, compute: Compute, tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "run.pt"
    checkpoint.write_bytes(content)
    with pytest.raises(UserError, match=r"run\.pt"):
        train(small(), digits.train, QUICK, compute, seed=1, checkpoint=Checkpoint(checkpoint, resume=True))


def test_foreign_checkpoint_is_refused(digits: Dataset, compute: Compute, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.pt"
    torch.save({"epoch": 1, "network": {"x": torch.zeros(1)}}, checkpoint)
    with pytest.raises(UserError, match="does not fit this run"):
        train(small(), digits.train, QUICK, compute, seed=1, checkpoint=Checkpoint(checkpoint, resume=True))


def test_checkpoint_without_some_of_the_dynamics_is_refused(digits: Dataset, compute: Compute, tmp_path: Path) -> None:
    """As earlier code left it: half of a margin would be as good as none."""
    checkpoint = tmp_path / "run.pt"
    recipe, how = replace(QUICK, epochs=2), {"seed": 1, "watch": Watch(dynamics=True)}
    train(small(), digits.train, recipe, compute, **how, checkpoint=Checkpoint(checkpoint, 0))
    kept = torch.load(checkpoint, weights_only=True)
    del kept["history"]["dynamics"]["probability_margin"]
    torch.save(kept, checkpoint)
    with pytest.raises(UserError, match="does not fit this run"):
        train(small(), digits.train, recipe, compute, **how, checkpoint=Checkpoint(checkpoint, resume=True))


def test_loss_is_weighted() -> None:
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    weights = torch.tensor([0.0, 2.0, 1.0, 1.0, 0.5, 1.5], dtype=torch.float64)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    expected = sum(-w * log_p[i, y] for i, (w, y) in enumerate(zip(weights, labels, strict=True))) / 6
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, weights), expected)
    torch.testing.assert_close(weighted_cross_entropy(logits, labels, torch.ones(6)), F.cross_entropy(logits, labels))


def test_weights_of_mean_one_in_each_batch(digits: Dataset, compute: Compute) -> None:
    """Each step's loss is Σ w l / Σ w over its batch: what a loop of one's own over the same batches comes to."""
    split, recipe = digits.train.take(torch.arange(96)), Recipe(epochs=1, batch=32, lr=0.1, scheduler="constant")
    weights = torch.rand(96, generator=seeds.generator(0, "weights")) ** 4 + 0.01
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    networks = [copy.deepcopy(flat) for _ in range(3)]
    for network, by in zip(networks, ("subset", "batch"), strict=False):
        train(network, split, recipe, compute, seed=1, weights=SampleWeights(weights, by))
    optimizer = torch.optim.SGD(networks[2].parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    order = torch.randperm(96, generator=seeds.generator(1, "epoch", 0))
    for part in order.split(32):
        losses = F.cross_entropy(networks[2](compute.inputs(split.images[part])), split.labels[part], reduction="none")
        optimizer.zero_grad()
        ((losses * weights[part]).sum() / weights[part].sum()).backward()
        optimizer.step()
    by_subset, by_batch, expected = (network[1].weight.detach() for network in networks)
    torch.testing.assert_close(by_batch, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(by_subset, expected, rtol=1e-3)


def test_training_uses_weights_normalised_to_mean_one(digits: Dataset, compute: Compute) -> None:
    split = digits.train.take(torch.arange(128))
    weights = torch.rand(128, generator=seeds.generator(0, "weights")) + 0.1
    networks = [small() for _ in range(4)]
    given = (None, torch.full((128,), 7.0), weights, 5 * weights)
    for network, weight in zip(networks, given, strict=True):
        train(network, split, QUICK, compute, seed=1, weights=None if weight is None else SampleWeights(weight))
    plain, constant, weighted, scaled = (network.head.weight for network in networks)
    torch.testing.assert_close(plain, constant)
    torch.testing.assert_close(weighted, scaled)
    assert (plain - weighted).abs().max() > 1e-3


def test_a_sample_of_weight_zero_has_no_influence_on_a_network_without_batch_norm(
    digits: Dataset, compute: Compute
) -> None:
    images, labels = digits.train.images[:64], digits.train.labels[:64]
    corrupted = labels.clone()
    corrupted[:8] = (labels[:8] + 1) % 10
    weights = torch.ones(64)
    weights[:8] = 0
    results = []
    for y in (labels, corrupted):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        train(network, TensorSplit(images, y), QUICK, compute, seed=1, weights=SampleWeights(weights))
        results.append(network[1].weight)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("CosineAnnealingLR", lambda t: 1e-4 + (0.1 - 1e-4) * (1 + np.cos(np.pi * t / 12)) / 2),
        ("StepLR", lambda t: 0.1 * 0.5 ** (t // 3)),
        ("constant", lambda t: 0.1),
    ],
)
def test_learning_rate_per_step(
    digits: Dataset, compute: Compute, monkeypatch: pytest.MonkeyPatch, scheduler: str, expected: Callable
) -> None:
    used: list[float] = []
    step = torch.optim.SGD.step

    def noting(self: torch.optim.SGD, *rest: object) -> object:
        used.append(self.param_groups[0]["lr"])
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    recipe = Recipe(epochs=4, batch=32, scheduler=scheduler, step_size=1, gamma=0.5)
    train(small(), digits.train.take(torch.arange(96)), recipe, compute, seed=0)
    np.testing.assert_allclose(used, [expected(t) for t in range(12)], rtol=1e-9)


def test_diverging_loss_names_epoch_step_and_rate(digits: Dataset, compute: Compute) -> None:
    class Explodes(TinyNet):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Explodes.calls += 1
            return super().forward(x) * (float("nan") if Explodes.calls == 24 else 1.0)

    recipe = replace(QUICK, scheduler="constant")  # 1,297 samples: 21 batches an epoch (the last of 17)
    with pytest.raises(DivergedError, match=r"nan at epoch 2, step 3, learning rate 0\.05; lower"):
        train(Explodes(0, extra=True), digits.train, recipe, compute, seed=0)


@pytest.mark.parametrize(("seconds", "calls"), [(3600.0, 50), (0.0, 4)], ids=["unwatched", "stored"])
def test_losses_of_short_epochs_are_looked_at_now_and_then_and_before_a_checkpoint(
    digits: Dataset, compute: Compute, tmp_path: Path, seconds: float, calls: int
) -> None:
    """Each look waits for the device. What diverged is never stored, and is named by its own epoch."""

    class Explodes(TinyNet):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Explodes.calls += 1
            return super().forward(x) * (float("nan") if Explodes.calls == 4 else 1.0)

    recipe, few = replace(QUICK, epochs=60, scheduler="constant"), digits.train.take(torch.arange(20))
    with pytest.raises(DivergedError, match=r"nan at epoch 4, step 1, learning rate 0\.05; lower"):
        train(Explodes(0, extra=True), few, recipe, compute, seed=0, checkpoint=Checkpoint(tmp_path / "c.pt", seconds))
    assert Explodes.calls == calls


def test_what_the_last_step_ruins_is_found(digits: Dataset, compute: Compute) -> None:
    class Large(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(1e4 * self.body(x))

    recipe = Recipe(epochs=1, batch=2000, lr=3e38)  # a single step: its loss is finite, what it leaves is not
    with pytest.raises(DivergedError, match="weights are not finite after the last step of epoch 1"):
        train(Large(0, extra=True), digits.train, recipe, compute, seed=0)


def test_diverging_loss_is_found_within_a_long_epoch(digits: Dataset, compute: Compute) -> None:
    """Losses are looked at every few steps of the 1,297, not after the last."""

    class Counting(TinyNet):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return super().forward(x)

    with pytest.raises(DivergedError, match=r"epoch 1, step \d+, learning rate"):
        train(Counting(0), digits.train, Recipe(epochs=1, batch=2, lr=1e30, scheduler="constant"), compute, seed=0)
    assert Counting.calls <= 100


def test_margins_where_there_is_no_other_class(digits: Dataset, compute: Compute) -> None:
    """They were infinite, and all that reads dynamics was told to retrain."""
    split = digits.train.take((digits.train.labels == 0).nonzero()[:40, 0])
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    dynamics = train(network, split, replace(QUICK, epochs=2), compute, seed=0, watch=Watch(dynamics=True)).dynamics
    for name in ("margin", "probability_margin", "error_norm", "loss", "change"):
        assert torch.equal(dynamics[name], torch.zeros(2, 40))
    assert dynamics["correctness"].all()


def test_dynamics_are_those_of_the_logits_of_each_batch(digits: Dataset, compute: Compute) -> None:
    class Noting(TinyNet):
        def __init__(self) -> None:
            super().__init__(0, extra=True)
            self.outputs: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            self.outputs.append(super().forward(x))
            return self.outputs[-1]

    network, n, recipe = Noting(), 100, replace(QUICK, epochs=3)
    split = digits.train.take(torch.arange(n))
    before: dict[tuple[int, int], Tensor] = {}
    dynamics = train(network, split, recipe, compute, seed=5, watch=Watch(dynamics=True)).dynamics
    outputs = torch.cat(network.outputs).view(3, n, 10)
    for epoch in range(3):
        order = torch.randperm(n, generator=seeds.generator(5, "epoch", epoch))
        for row, i in enumerate(order.tolist()):
            z, y = outputs[epoch, row].detach(), int(split.labels[i])
            others = torch.cat([z[:y], z[y + 1 :]])
            assert bool(dynamics["correctness"][epoch, i]) == bool(z[y] > others.max())
            torch.testing.assert_close(dynamics["margin"][epoch, i], z[y] - others.max())
            p = torch.softmax(z, 0)
            best_other = max(float(p[c]) for c in range(10) if c != y)
            assert float(dynamics["probability_margin"][epoch, i]) == pytest.approx(float(p[y]) - best_other, abs=1e-6)
            error = p - F.one_hot(torch.tensor(y), 10)
            torch.testing.assert_close(dynamics["error_norm"][epoch, i], error.square().sum().sqrt())
            exact = before[epoch, i] = torch.softmax(z.double(), 0)
            assert float(dynamics["loss"][epoch, i]) == pytest.approx(-math.log(float(exact[y])), rel=1e-4, abs=1e-6)
            old = before.get((epoch - 1, i), exact)
            change = sum(abs(float(a) * math.log(float(a) / float(b))) for a, b in zip(exact, old, strict=True))
            assert float(dynamics["change"][epoch, i]) == pytest.approx(change, rel=1e-4, abs=1e-6)
    assert dynamics["change"][1:].min() > 0


def test_tests_come_at_the_interval_and_at_the_end(digits: Dataset, compute: Compute) -> None:
    test = digits.test.take(torch.arange(50))
    for interval, epochs in ((0, [7]), (3, [3, 6, 7]), (7, [7]), (10, [7])):
        recipe = replace(QUICK, epochs=7)
        split = digits.train.take(torch.arange(64))
        history = train(small(), split, recipe, compute, seed=0, watch=Watch(test, interval=interval))
        assert [epoch for epoch, _ in history.tests] == epochs


def test_accuracy_counts_and_leaves_the_mode(digits: Dataset, compute: Compute) -> None:
    network = small().train()
    found = accuracy(network, digits.test, compute)
    assert network.training
    network.eval()
    with torch.no_grad():
        predicted = torch.cat([network(compute.inputs(digits.test.images[i : i + 1])).argmax(1) for i in range(500)])
    assert found == 100 * int((predicted == digits.test.labels).sum()) / 500


def test_bfloat16_trains_about_as_well(digits: Dataset, compute: Compute) -> None:
    network = small()
    half = replace(compute, precision=torch.bfloat16)
    tests = train(network, digits.train, replace(QUICK, epochs=8), half, seed=1, watch=Watch(digits.test)).tests
    assert tests[-1][1] > 80
    assert network.head.weight.dtype == torch.float32


def test_one_sample_is_refused(digits: Dataset, compute: Compute) -> None:
    with pytest.raises(UserError, match="cannot train on 1 sample"):
        train(small(), digits.train.take(torch.arange(1)), QUICK, compute, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "SDG"}, "did you mean SGD"),
        ({"scheduler": "CosineAnealingLR"}, "did you mean CosineAnnealingLR"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch": 1}, "batch must be at least 2"),
        ({"lr": 0.0}, "learning rate must be above 0"),
        ({"lr": float("nan")}, "learning rate must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_recipes(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**change)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer": "Adam", "momentum": 0.5}, {"optimizer": "adam", "nesterov": False}),
        ({"step_size": 3, "gamma": 0.1}, {}),
        ({"scheduler": "constant", "min_lr": 0.01}, {"scheduler": "Constant"}),
        ({"momentum": 0.0}, {"momentum": 0.0, "nesterov": False}),
    ],
    ids=["Adam", "cosine", "constant", "no momentum"],
)
def test_what_is_not_read_makes_no_difference(one: dict, other: dict) -> None:
    assert Recipe(**one) == Recipe(**other)
    assert Recipe(**one) != Recipe(lr=0.2)


def test_unknown_device_and_precision() -> None:
    with pytest.raises(UserError, match="device 'warp' cannot be used"):
        hardware.choose_device("warp")
    with pytest.raises(UserError, match="did you mean bfloat16"):
        hardware.choose_precision("bfloat", torch.device("cpu"))
    assert hardware.choose_precision("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert hardware.choose_precision("Float32", torch.device("cpu")) == torch.float32
