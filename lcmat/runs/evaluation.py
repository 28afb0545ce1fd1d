"""Training fresh networks on what a run reduced the dataset to: by which recipe, how many, and the record of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from lcmat import seeds
from lcmat.augmentation import siamese
from lcmat.data import Split
from lcmat.expected import each, fields, one_of
from lcmat.files import load_checkpoint, save_tensors
from lcmat.hardware import held_memory
from lcmat.records.record import heading
from lcmat.runs import checkpoints
from lcmat.runs.job import Run
from lcmat.runs.setup import Setup
from lcmat.training import Draws, Recipe, Watch, accuracy, train
from lcmat.training.history import History, history_of, of_history
from lcmat.training.losses import SampleWeights

_SGD = {"optimizer": "SGD", "lr": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4}
# How the literature trains on synthetic images. zhao: Zhao & Bilen 2021 (DSA), 2023 (DM); idc: Kim et al. 2022.
EVALUATIONS = {
    "zhao": Recipe(1000, 256, **_SGD, scheduler="StepLR", step_size=500, gamma=0.1, augmentation="dsa"),
    "idc": Recipe(1000, 64, **_SGD, scheduler="MultiStepLR", gamma=0.2, augmentation="idc"),
}


def evaluation_recipe(name: str, changes: dict[str, object]) -> Recipe:
    """Return the recipe called `name` with some fields changed; without word of `step_size`, it steps at the half."""
    recipe = EVALUATIONS[name]
    if recipe.scheduler == "StepLR" and "step_size" not in changes:
        changes = {"step_size": max(1, changes.get("epochs", recipe.epochs) / 2), **changes}
    return replace(recipe, **changes)


def suited(recipe: Recipe, dataset: str) -> Recipe:
    """Return the recipe as it suits a dataset: characters are not mirrored."""
    return replace(recipe, augmentation=siamese.training_name(recipe.augmentation, dataset))


@dataclass(frozen=True, eq=False)
class Reduced:
    """What networks are trained on: images and labels, and weights or None.

    draws: given a training's seed, what of the split each of its epochs has; None: everything. recipe: in place of the
    settings' one, or None.
    """

    split: Split
    weights: Tensor | None = None
    draws: Callable[[int], Draws] | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Evaluation:
    """The trainings of a run's networks, in order."""

    histories: list[History]

    @property
    def facts(self) -> dict[str, object]:
        """What a record holds of them: of several networks the means, the first one's tests, and beside these each."""
        each = [
            {
                "test_accuracy": history.tests[-1][1],
                "best_test_accuracy": max(value for _, value in history.tests),
                "train_accuracy": history.train_accuracy,
                **({} if history.held_out_accuracy is None else {"held_out_accuracy": history.held_out_accuracy}),
                **_by_class(history.class_accuracy),
                "tests": history.tests,
            }
            for history in self.histories
        ]
        if len(each) == 1:
            return each[0]
        means = [name for name in each[0] if name not in ("tests", "class_accuracy")]
        classes = zip(*(one["class_accuracy"] for one in each if "class_accuracy" in one), strict=True)
        by_class = [None if None in values else round(statistics.fmean(values), 3) for values in classes]
        return {name: statistics.fmean(one[name] for one in each) for name in means} | {
            **({"class_accuracy": by_class} if by_class else {}),
            "tests": each[0]["tests"],
            "evaluations": each,
        }

    @property
    def seconds(self) -> float:
        """Seconds of all trainings."""
        return sum(history.seconds for history in self.histories)


# What a record says of single classes.
BY_CLASS = ("worst_class_accuracy", "class_accuracy")


def _by_class(accuracies: list[float | None] | None) -> dict[str, object]:
    """Return the accuracy of each class and the smallest, as a record holds them: rounded, nothing if unknown."""
    known = [value for value in accuracies or () if value is not None]
    if not known:
        return {}
    rounded = [None if value is None else round(value, 3) for value in accuracies]
    return {"worst_class_accuracy": min(known), "class_accuracy": rounded}


def train_and_test(setup: Setup, run: Run, reduced: Reduced, key: str, label: str) -> Evaluation:
    """Train `settings.evaluations` fresh networks of the run's test model, each by a seed of its own, and test them.

    Each that is done is kept beside the checkpoints under `key` (`checkpoints.of_trainings`): a run that is stopped
    loses none. With --val each is tested on what is held out, too.
    """
    settings = setup.settings
    held_out = setup.split(run.seed, setup.ratio(run))[2] if settings.hold_out else None
    model = run.test_model or settings.model
    weights = None if reduced.weights is None else SampleWeights(reduced.weights, run.weights_by)
    done = _kept(setup, key)
    for number in range(len(done), settings.evaluations):
        purpose = ("train",) if number == 0 else ("train", number)
        network = setup.fresh_network(model, run.seed, *purpose)
        watch = Watch(
            test=setup.test_split(settings.test_fraction),
            interval=settings.test_interval,
            label=f"{label}: training {model}" + (f" {number + 1}" if settings.evaluations > 1 else ""),
        )
        seed = seeds.derive(run.seed, *purpose)
        history = train(
            network,
            reduced.split,
            reduced.recipe or settings.recipe,
            setup.compute,
            seed=seed,
            weights=weights,
            watch=watch,
            checkpoint=setup.training_checkpoint(checkpoints.training(key, number)),
            draws=None if reduced.draws is None else reduced.draws(seed),
        )
        if held_out is not None:
            history.held_out_accuracy = accuracy(network, held_out, setup.compute)
        done.append(history)
        if settings.evaluations > 1:
            kept = {"histories": [vars(one) for one in done]}
            save_tensors(setup.checkpoint(checkpoints.evaluated(key)), kept)
    return Evaluation(done)


def record_of(
    setup: Setup,
    config: dict[str, object],
    evaluation: Mapping[str, object],
    facts: Mapping[str, object],
    seconds: Mapping[str, float],
) -> dict[str, object]:
    """Return the record of a run: its heading, how its networks did, facts of its kind, and where it comes from."""
    return {
        **heading(config, setup.settings.model, setup.dataset.own_name),
        **evaluation,
        "test_interval": setup.settings.test_interval,
        **facts,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "config": config,
        "environment": setup.environment | held_memory(setup.compute.device),
    }


def _kept(setup: Setup, key: str) -> list[History]:
    path = setup.checkpoint(checkpoints.evaluated(key))
    if not (setup.settings.resume and setup.settings.evaluations > 1 and path.exists()):
        return []
    expected = fields({"histories": each(of_history(one_of(None), finished=True))})
    kept = [history_of(values) for values in load_checkpoint(path, expected)["histories"]]
    return kept[: setup.settings.evaluations]
