"""Recipes of the literature: learning rates, mixed batches, images of floats."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lcmat.augmentation.siamese import Mix
from lcmat.data.splits import Dataset
from lcmat.runs.evaluation import EVALUATIONS, evaluation_recipe
from lcmat.training import Compute, Recipe, Watch, train
from lcmat.training.losses import mixed_cross_entropy, weighted_cross_entropy
from lcmat.training.recipe import optimizer_of, scheduler_of
from tests import oracles
from tests.condensing import made, narrow, task

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# That one image of a class has no variance is said, which a test of its own checks.
pytestmark = pytest.mark.filterwarnings("ignore:LCMat-C")


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
    split, watch = synthetic.split(), Watch(digits.test)
    first, again = (train(narrow(0), split, recipe, compute, seed=0, watch=watch) for _ in range(2))
    assert first.tests == again.tests
    assert first.tests[-1][1] > 50


def test_floats_are_normalised_as_their_pixels(digits: Dataset, compute: Compute) -> None:
    pixels = digits.train.images[:20]
    torch.testing.assert_close(compute.inputs(pixels.float() / 255), compute.inputs(pixels))
