"""Trainings of so many steps, in place of epochs; and the accuracy of each class that a training leaves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lcmat.data import Dataset, TensorSplit
from lcmat.errors import UserError
from lcmat.training import Checkpoint, Compute, Recipe, Watch, train
from lcmat.training.recipe import optimizer_of, scheduler_of
from tests import oracles
from tests.harness import call, cli, places, records

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
RECIPE = Recipe(batch=32, lr=0.05, total_steps=7)


class Counted(nn.Module):
    """One linear layer that notes the size of each batch it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(64, 10)
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        if self.training:
            self.sizes.append(len(x))
        return self.layer(x.flatten(1))


@pytest.fixture
def part(digits: Dataset) -> TensorSplit:
    """A hundred digits: four batches of at most 32."""
    return digits.train.take(torch.arange(100))


def test_as_many_steps_as_asked_for(part: TensorSplit, compute: Compute) -> None:
    """The last epoch ends where they do."""
    for steps in (1, 4, 7, 9):
        network = Counted()
        history = train(network, part, replace(RECIPE, total_steps=steps), compute, seed=1, watch=Watch(part))
        assert len(network.sizes) == steps
        assert network.sizes[:4] == [32, 32, 32, 4][:steps]
        assert history.images == [sum(network.sizes[i : i + 4]) for i in range(0, steps, 4)]
        assert history.tests[-1][0] == len(history.images)


def test_steps_that_make_whole_epochs_are_these_epochs(part: TensorSplit, compute: Compute) -> None:
    """To the last bit."""
    by_steps, by_epochs = Counted(), Counted()
    train(by_steps, part, replace(RECIPE, total_steps=8), compute, seed=1)
    train(by_epochs, part, Recipe(batch=32, lr=0.05, epochs=2), compute, seed=1)
    assert torch.equal(by_steps.layer.weight, by_epochs.layer.weight)


def rates(recipe: Recipe, epoch_steps: int) -> Iterator[float]:
    """The learning rate of each step."""
    optimizer = optimizer_of(nn.Linear(1, 1), recipe)
    scheduler = scheduler_of(optimizer, recipe, epoch_steps)
    for _ in range(recipe.total_steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def test_schedules_are_stretched_over_the_steps() -> None:
    """Whatever the steps of an epoch: halves, and thirds, of all of them."""
    halves = Recipe(epochs=10, scheduler="StepLR", step_size=5, gamma=0.1, total_steps=6)
    thirds = Recipe(scheduler="MultiStepLR", gamma=0.1, total_steps=6)
    for epoch_steps in (1, 4, 100):
        assert list(rates(halves, epoch_steps)) == pytest.approx([0.1] * 3 + [0.01] * 3)
        assert list(rates(thirds, epoch_steps)) == pytest.approx([0.1] * 4 + [0.01] + [0.001])
    cosine = list(rates(Recipe(total_steps=6, min_lr=0.0), 4))
    assert cosine[3] == pytest.approx(0.05)
    assert cosine[0] == 0.1


def test_a_training_by_steps_resumes_bit_for_bit(part: TensorSplit, compute: Compute, tmp_path: Path) -> None:
    """Also into the epoch that is cut short."""
    whole, broken = Counted(), Counted()
    train(whole, part, RECIPE, compute, seed=2, watch=Watch(part))
    path = tmp_path / "run.pt"
    train(broken, part, RECIPE, compute, seed=2, watch=Watch(part), checkpoint=Checkpoint(path, seconds=0))
    assert path.exists()
    resumed = Counted()
    history = train(resumed, part, RECIPE, compute, seed=2, watch=Watch(part), checkpoint=Checkpoint(path, resume=True))
    assert len(resumed.sizes) == 3
    assert history.images == [100, 96]
    assert torch.equal(whole.layer.weight, resumed.layer.weight)


def test_steps_are_part_of_a_recipe_only_where_they_are_given() -> None:
    """Records from before there were any stay found; epochs count where a schedule is measured in them."""
    assert "total_steps" not in Recipe().described
    assert Recipe(epochs=3, total_steps=5).described == {**Recipe().described, "total_steps": 5}
    assert Recipe(epochs=3, scheduler="StepLR", total_steps=5).described["epochs"] == 3
    with pytest.raises(UserError, match="total_steps"):
        Recipe(total_steps=0)


def test_accuracy_of_each_class_is_that_of_its_images_alone(digits: Dataset, compute: Compute) -> None:
    """A class without test images has none."""
    test = digits.test.take((digits.test.labels != 3).nonzero()[:, 0])
    network = Counted()
    history = train(network, digits.train, replace(RECIPE, total_steps=30), compute, seed=0, watch=Watch(test))
    network.eval()
    for label, found in enumerate(history.class_accuracy):
        index = (test.labels == label).nonzero()[:, 0]
        if label == 3:
            assert found is None
            continue
        predicted = network(compute.inputs(test.images[index])).argmax(1)
        assert found == pytest.approx(100 * float((predicted == label).float().mean()), abs=1e-3)
    counts = torch.bincount(test.labels, minlength=10)
    total = sum(int(n) * (a or 0) for n, a in zip(counts, history.class_accuracy, strict=True))
    assert history.tests[-1][1] == pytest.approx(total / len(test))


def test_records_and_tables_say_steps_and_the_worst_class(tmp_path: Path) -> None:
    """And several networks the mean of their worst classes."""
    run = cli(tmp_path)
    record, *_ = run("--selection", "Uniform", "--total_steps", "11")
    assert record["config"]["training"]["total_steps"] == 11
    assert record["worst_class_accuracy"] == pytest.approx(min(record["class_accuracy"]), abs=1e-3)
    run("--selection", "Herding", "--total_steps", "11")
    text = (tmp_path / "result" / "tables" / "accuracy.md").read_text()
    assert "Trained 11 steps" in text or "trained 11 steps" in text
    assert "Worst class" in text
    assert "worst_class_mean" in (tmp_path / "result" / "tables" / "accuracy.csv").read_text()
    both = run("--selection", "Herding", "--total_steps", "11", "--evaluations", "2")
    several = next(one for one in both if "evaluations" in one)
    worst = [one["worst_class_accuracy"] for one in several["evaluations"]]
    assert several["worst_class_accuracy"] == pytest.approx(sum(worst) / 2)
    pairs = zip(*(one["class_accuracy"] for one in several["evaluations"]), strict=True)
    assert several["class_accuracy"] == pytest.approx([sum(pair) / 2 for pair in pairs], abs=2e-3)


def test_continual_learning_records_the_classes_after_each_step(tmp_path: Path) -> None:
    """Those seen so far; of the others there are no test images."""
    network = ("--dataset", "digits", "--model", "MLP", "--selection_epochs", "1", "--epochs", "1")
    protocol = ("--protocol", "continual", "--steps", "2", "--memory_per_class", "2", "--selection", "Uniform")
    how = ("--evaluations", "1", "--test_interval", "0", "--device", "cpu", "--threads", "1")
    assert call(*network, *protocol, *how, *places(tmp_path)) == 0
    (record,) = records(tmp_path / "result", "*/*/continual*.json")
    first, last = (step["class_accuracy"] for step in record["steps"])
    assert {label for label, value in enumerate(first) if value is not None} == set(record["class_order"][0])
    assert None not in last
    assert record["class_accuracy"] == last
    assert record["worst_class_accuracy"] == pytest.approx(min(last), abs=1e-3)
