"""Class-incremental continual learning from a memory of chosen or synthetic images (LCMat section 4.3, Fig. 5).

The protocol of Zhao & Bilen (2023), like GDumb: the classes come in steps, in an order by seed. At each step the method
fills the memory for the step's classes from their images alone; then a fresh network with an output for every class is
trained on the whole memory alone, and tested on the classes seen so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcmat import records, seeds
from lcmat.condensation import Synthetic
from lcmat.data import TensorSplit
from lcmat.data.splits import channel_statistics
from lcmat.errors import UserError
from lcmat.expected import Expected, each, fields, real, whole
from lcmat.files import load_checkpoint, save_tensors, write_atomically
from lcmat.runs import checkpoints
from lcmat.runs.checkpoints import Names
from lcmat.runs.evaluation import BY_CLASS, Reduced, record_of, train_and_test
from lcmat.runs.job import Run, record_path
from lcmat.runs.kind import Exemplars, Kind
from lcmat.runs.setup import Setup


@dataclass(frozen=True)
class Steps:
    """How the classes come, and how much of them is kept: images of each class."""

    count: int = 5
    memory_per_class: int = 10


@dataclass(frozen=True)
class Continual:
    """Runs of another kind, step by step (see `runs.kind.Kind`)."""

    inner: Kind
    steps: Steps
    protocol: str = "continual"

    def configuration(self, setup: Setup, run: Run) -> dict[str, object]:
        """Return that of the inner kind, and the steps."""
        steps = {"steps": self.steps.count, "memory_per_class": self.steps.memory_per_class}
        return self.inner.configuration(setup, run) | {"protocol": self.protocol, **steps}

    def check(self, setup: Setup, run: Run) -> None:
        """Find before any work what would stop the run later."""
        _check_steps(setup, self.steps)
        self.inner.check(setup, run)
        if run.needs:  # a step's network has fewer outputs
            fewest = setup.dataset.num_classes // self.steps.count
            run.method.resolved(fewest, setup.head_size[1], run.options)

    def checkpoints(self, setup: Setup, run: Run) -> Names:
        """Return those of every step: what fills the memory, and the trainings on it."""
        key = records.config_hash(self.configuration(setup, run))
        names = Names(frozenset({checkpoints.steps(key)}))
        for number, classes in enumerate(class_order(setup.dataset.num_classes, self.steps.count, run.seed)):
            own, its = step_of(setup, run, self.steps, classes)
            trainings = checkpoints.of_trainings(checkpoints.step(key, number), setup.settings.evaluations)
            # What fills a step's memory is removed by whoever has filled it.
            names |= Names(trainings, self.inner.checkpoints(own, its).every)
        return names

    def busy(self, setup: Setup, run: Run) -> Path | None:
        """Return nothing: what its steps need lies in locks of their own."""
        return None

    def make(self, setup: Setup, run: Run) -> dict:
        """Go through all steps, write the memory and the record."""
        return _Course(setup, run, self).record()

    def keep(self, setup: Setup, run: Run) -> Exemplars:
        """Refuse: a step of continual learning has no steps."""
        raise TypeError("continual learning is not nested")


def _check_steps(setup: Setup, steps: Steps) -> None:
    """Raise UserError for what the protocol cannot be run with."""
    settings, dataset = setup.settings, setup.dataset
    if settings.pretrained is not None:
        raise UserError("--pretrained weights have seen all classes; with --protocol continual leave them out")
    if not 1 <= steps.count <= dataset.num_classes:
        raise UserError(f"--steps must be 1 to {dataset.num_classes}, as many as there are classes, not {steps.count}")
    if not settings.balance:
        raise UserError("continual learning keeps so many images of each class; leave --balance out")
    least = int(torch.bincount(dataset.train.labels.cpu(), minlength=dataset.num_classes).min())
    if not 1 <= steps.memory_per_class <= least:
        raise UserError(f"--memory_per_class must be 1 to {least}, the smallest class, not {steps.memory_per_class}")
    if steps.memory_per_class * -(-dataset.num_classes // steps.count) < 2:
        raise UserError("one image is too few to train the first step's network on; raise --memory_per_class")


def class_order(classes: int, steps: int, seed: int) -> list[list[int]]:
    """Return the classes of each step, sorted, from a permutation by seed; the first steps take what is left over."""
    order = torch.randperm(classes, generator=seeds.generator(seed, "class order"))
    return [part.sort().values.tolist() for part in order.tensor_split(steps)]


def positions_of(setup: Setup, classes: list[int]) -> Tensor:
    """Return where the training images of some classes are."""
    labels = setup.dataset.train.labels
    return torch.isin(labels, torch.tensor(classes, device=labels.device)).nonzero()[:, 0]


def step_setup(setup: Setup, classes: list[int]) -> Setup:
    """Return a setup that holds the training images of some classes alone.

    Labels are counted within the step. The images stand for the test split too, so that no test image is in reach;
    pixel statistics that are not published are those of these images.
    """
    dataset = setup.dataset
    train = dataset.train.take(positions_of(setup, classes))
    train = replace(train, labels=torch.searchsorted(torch.tensor(classes, device=train.labels.device), train.labels))
    own = replace(dataset, train=train, test=train, classes=tuple(dataset.classes[label] for label in classes))
    settings = replace(setup.settings, snapshots=0)
    return _measured_anew(replace(setup, dataset=own, fingerprint=own.fingerprint(), settings=settings))


def _measured_anew(setup: Setup) -> Setup:
    """Return the setup with pixel statistics of its own training images, unless published ones are taken."""
    if not setup.dataset.measured:
        return setup
    mean, std = channel_statistics(setup.dataset.train.sample(2000))
    dataset, compute = replace(setup.dataset, mean=mean, std=std), replace(setup.compute, mean=mean, std=std)
    return replace(setup, dataset=dataset, compute=compute)


def step_of(setup: Setup, run: Run, steps: Steps, classes: list[int]) -> tuple[Setup, Run]:
    """Return the setup of some classes, and what the run is to choose or make of them."""
    count = steps.memory_per_class
    size = {"fraction": None, "budget": count * len(classes), "per_class": count}
    whole = {"fraction": 1.0, "budget": None, "per_class": None}
    return step_setup(setup, classes), replace(run, **(whole if run.method.ignores_budget else size))


def seen_setup(setup: Setup, classes: list[int]) -> Setup:
    """Return the setup with the test images of some classes alone; pixel statistics are of what was seen, too."""
    dataset, test = setup.dataset, setup.dataset.test
    keep = torch.isin(test.labels, torch.tensor(classes, device=test.labels.device)).nonzero()[:, 0]
    own = replace(dataset, test=test.take(keep))
    if dataset.measured:
        own = replace(own, train=dataset.train.take(positions_of(setup, classes)))
    return _measured_anew(replace(setup, dataset=own))


def filled(setup: Setup, run: Run, kind: Continual, classes: list[int]) -> Exemplars:
    """Return what is kept of a step's classes, with labels and positions of the whole dataset."""
    own, its = step_of(setup, run, kind.steps, classes)
    kept, positions = kind.inner.keep(own, its), positions_of(setup, classes)
    labels = torch.tensor(classes, device=kept.split.labels.device)[kept.split.labels]
    indices = None if kept.indices is None else positions.cpu()[kept.indices]
    return replace(kept, split=replace(kept.split, labels=labels), indices=indices)


@dataclass(frozen=True, eq=False)
class _Course:
    """One run, on its way through the steps."""

    setup: Setup
    run: Run
    kind: Continual

    def record(self) -> dict:
        """Go through all steps, write the memory and the record, and return the record."""
        config = self.kind.configuration(self.setup, self.run)
        key, path = records.config_hash(config), record_path(self.setup, config)
        order = class_order(self.setup.dataset.num_classes, self.kind.steps.count, self.run.seed)
        done, memories, seconds = self._through(order, key)
        beside = path.with_suffix(".pt" if memories[0].indices is None else ".npz")
        last = {name: value for name, value in done[-1].items() if name not in ("each", "images", "seconds")}
        facts = {
            "subset_size": sum(len(memory) for memory in memories),
            "class_order": order,
            "steps": [{name: value for name, value in step.items() if name != "seconds"} for step in done],
            "memory": beside.name,
        }
        record = record_of(self.setup, config, last, facts, seconds)
        _save_memory(beside, memories)
        records.write_record(path, record)  # last: a record means that the run is complete
        return record

    def _through(self, order: list[list[int]], key: str) -> tuple[list[dict], list[Exemplars], dict[str, float]]:
        """Return how networks did after each step, what was kept of each, and the seconds of all stages."""
        kept = self.setup.checkpoint(checkpoints.steps(key))
        resumed = self.setup.settings.resume and kept.exists()
        done = load_checkpoint(kept, _finished(len(order)))["steps"] if resumed else []
        memories: list[Exemplars] = []
        seconds = {"pretrain": 0.0, "signals": 0.0, "select": 0.0, "train": 0.0}
        for number, classes in enumerate(order):
            memories.append(filled(self.setup, self.run, self.kind, classes))
            for name, value in memories[-1].seconds.items():
                seconds[name] = seconds.get(name, 0.0) + value
            if number >= len(done):
                done.append(self._step(order[: number + 1], memories, checkpoints.step(key, number)))
                save_tensors(kept, {"steps": done})
            seconds["train"] += done[number]["seconds"]
        return done, memories, seconds

    def _step(self, order: list[list[int]], memories: list[Exemplars], key: str) -> dict:
        """Train fresh networks on the memory so far; return how they do on the classes so far."""
        weights = _weights(memories) if any(memory.weights is not None for memory in memories) else None
        seen = seen_setup(self.setup, [label for classes in order for label in classes])
        label = f"{self.run.method.name} seed {self.run.seed} step {len(order)}"
        evaluation = train_and_test(seen, self.run, Reduced(_union(memories), weights), key, label)
        facts = evaluation.facts
        return {
            "test_accuracy": facts["test_accuracy"],
            "best_test_accuracy": facts["best_test_accuracy"],
            **{name: facts[name] for name in BY_CLASS if name in facts},
            "each": [history.tests[-1][1] for history in evaluation.histories],
            "images": sum(len(memory) for memory in memories),
            "seconds": evaluation.seconds,
        }


def _finished(steps: int) -> Expected:
    """Expect what a checkpoint holds: how the networks of the steps so far did."""
    accuracy = real(0, 100)
    step = {"test_accuracy": accuracy, "best_test_accuracy": accuracy, "each": each(accuracy, 1), "seconds": real(0)}
    return fields({"steps": each(fields(step | {"images": whole(1)}), most=steps)})


def _weights(memories: list[Exemplars]) -> Tensor:
    return torch.cat([torch.ones(len(m.split)) if m.weights is None else m.weights for m in memories])


def _union(memories: list[Exemplars]) -> TensorSplit:
    """Return the whole memory as tensors; it is small, so files are read into memory."""
    batches = [batch for memory in memories for batch in memory.split.batches([torch.arange(len(memory.split))])]
    images, labels, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return TensorSplit(images, labels.to(images.device))


def _save_memory(path: Path, memories: list[Exemplars]) -> None:
    """Write the memory: the images that were made; of chosen ones positions in the training set, labels and weights."""
    # Of images that hold several, all first ones come first.
    labels = torch.cat([memory.split.labels[: len(memory)].cpu() for memory in memories])
    made = [memory.synthetic for memory in memories]
    if made[0] is not None:
        Synthetic(torch.cat([one.images for one in made]), labels, made[0].factor).save(path)
        return
    arrays = {"indices": torch.cat([memory.indices for memory in memories]), "classes": labels}
    if any(memory.weights is not None for memory in memories):
        arrays["weights"] = _weights(memories)
    write_atomically(path, lambda file: np.savez(file, **{name: value.cpu().numpy() for name, value in arrays.items()}))
