"""Class-incremental continual learning from a memory of chosen or synthetic images (LCMat section 4.3, Fig. 5).

The protocol of Zhao & Bilen (2023), like GDumb: the classes come in steps, in an order by seed. At each step the method
fills the memory for the step's classes from their images alone; then a fresh network with an output for every class is
trained on the whole memory alone, and tested on the classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcmat import records, seeds
from lcmat.condensation.synthetic import Synthetic
from lcmat.data.splits import Split, TensorSplit, channel_statistics
from lcmat.errors import UserError
from lcmat.files import load_tensors, save_tensors, write_atomically
from lcmat.runs.evaluation import evaluate, forget
from lcmat.runs.job import Run
from lcmat.runs.setup import Bench, Settings


@dataclass(frozen=True, eq=False)
class Memory:
    """What a method keeps of one step's classes: images and labels (of the step), weights or None, and positions.

    indices: of the chosen in the step's training images, or None where images were made; synthetic: these, of which
    each may hold several of `split`.
    """

    split: Split
    weights: Tensor | None
    indices: Tensor | None
    seconds: dict[str, float]
    synthetic: Synthetic | None = None

    def __len__(self) -> int:
        return len(self.split if self.synthetic is None else self.synthetic)


Fill = Callable[[Bench, Run], Memory]


def extra(settings: Settings) -> dict[str, object]:
    """Return what a configuration says of the protocol; nothing for the usual one."""
    if settings.steps is None:
        return {}
    return {"protocol": "continual", "steps": settings.steps, "memory_per_class": settings.memory_per_class}


def check(bench: Bench) -> None:
    """Raise UserError for what the protocol cannot be run with."""
    settings, dataset = bench.settings, bench.dataset
    if settings.pretrained is not None:
        raise UserError("--pretrained weights have seen all classes; with --protocol continual leave them out")
    if not 1 <= settings.steps <= dataset.num_classes:
        raise UserError(
            f"--steps must be 1 to {dataset.num_classes}, as many as there are classes, not {settings.steps}"
        )
    if not settings.balance:
        raise UserError("continual learning keeps so many images of each class; leave --balance out")
    least = int(torch.bincount(dataset.train.labels.cpu(), minlength=dataset.num_classes).min())
    if not 1 <= settings.memory_per_class <= least:
        raise UserError(f"--memory_per_class must be 1 to {least}, the smallest class, not {settings.memory_per_class}")
    if settings.memory_per_class * -(-dataset.num_classes // settings.steps) < 2:
        raise UserError("one image is too few to train the first step's network on; raise --memory_per_class")


def class_order(classes: int, steps: int, seed: int) -> list[list[int]]:
    """Return the classes of each step, sorted, from a permutation by seed; the first steps take what is left over."""
    order = torch.randperm(classes, generator=seeds.generator(seed, "class order"))
    return [part.sort().values.tolist() for part in order.tensor_split(steps)]


def positions_of(bench: Bench, classes: list[int]) -> Tensor:
    """Return where the training images of some classes are."""
    labels = bench.dataset.train.labels
    return torch.isin(labels, torch.tensor(classes, device=labels.device)).nonzero()[:, 0]


def step_bench(bench: Bench, classes: list[int]) -> Bench:
    """Return a bench that holds the training images of some classes alone.

    Labels are counted within the step. The images stand for the test split too, so that no test image is in reach;
    pixel statistics that are not published are those of these images.
    """
    dataset = bench.dataset
    train = dataset.train.take(positions_of(bench, classes))
    train = replace(train, labels=torch.searchsorted(torch.tensor(classes, device=train.labels.device), train.labels))
    own = replace(dataset, train=train, test=train, classes=tuple(dataset.classes[label] for label in classes))
    settings = replace(bench.settings, steps=None, snapshots=0)
    return _measured_anew(replace(bench, dataset=own, fingerprint=own.fingerprint(), settings=settings))


def _measured_anew(bench: Bench) -> Bench:
    """Return the bench with pixel statistics of its own training images, unless published ones are taken."""
    if not bench.dataset.measured:
        return bench
    mean, std = channel_statistics(bench.dataset.train.sample(2000))
    dataset, compute = replace(bench.dataset, mean=mean, std=std), replace(bench.compute, mean=mean, std=std)
    return replace(bench, dataset=dataset, compute=compute)


def step_of(bench: Bench, run: Run, classes: list[int]) -> tuple[Bench, Run]:
    """Return the bench of some classes, and what the run is to choose or make of them."""
    count = bench.settings.memory_per_class
    size = {"fraction": None, "budget": count * len(classes), "per_class": count}
    whole = {"fraction": 1.0, "budget": None, "per_class": None}
    return step_bench(bench, classes), replace(run, **(whole if run.method.everything else size))


def seen_bench(bench: Bench, classes: list[int]) -> Bench:
    """Return the bench with the test images of some classes alone; pixel statistics are of what was seen, too."""
    dataset, test = bench.dataset, bench.dataset.test
    keep = torch.isin(test.labels, torch.tensor(classes, device=test.labels.device)).nonzero()[:, 0]
    own = replace(dataset, test=test.take(keep))
    if dataset.measured:
        own = replace(own, train=dataset.train.take(positions_of(bench, classes)))
    return _measured_anew(replace(bench, dataset=own))


def run_one(bench: Bench, run: Run, config: dict[str, object], fill: Fill) -> dict:
    """Go through all steps, write the record and the memory, and return the record. `fill` is the method's part."""
    settings, key = bench.settings, records.config_hash(config)
    path = records.record_path(settings.save_path, config, settings.model)
    order = class_order(bench.dataset.num_classes, settings.steps, run.seed)
    kept = bench.checkpoint(f"{key}-steps")
    done: list[dict] = load_tensors(kept)["steps"] if settings.resume and kept.exists() else []
    memories: list[Memory] = []
    seconds = {"pretrain": 0.0, "signals": 0.0, "select": 0.0, "train": 0.0}
    for number, classes in enumerate(order):
        memories.append(_filled(bench, run, classes, fill))
        for name, value in memories[-1].seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
        if number >= len(done):
            done.append(_step(bench, run, order[: number + 1], memories, f"{key}-{number}", number))
            save_tensors(kept, {"steps": done})
        seconds["train"] += done[number]["seconds"]
    beside = path.with_suffix(".pt" if memories[0].indices is None else ".npz")
    record = {
        **records.heading(config, settings.model),
        "test_accuracy": done[-1]["test_accuracy"],
        "best_test_accuracy": done[-1]["best_test_accuracy"],
        "test_interval": settings.test_interval,
        "subset_size": sum(len(memory) for memory in memories),
        "class_order": order,
        "steps": [{name: value for name, value in step.items() if name != "seconds"} for step in done],
        "memory": beside.name,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "config": config,
        "environment": bench.environment,
    }
    _save_memory(beside, memories)
    records.write_record(path, record)  # last: a record means that the run is complete
    return record


def tidy(bench: Bench, key: str) -> None:
    """Remove the checkpoints of a run that is recorded."""
    for number in range(bench.settings.steps):
        forget(bench, f"{key}-{number}")
    bench.checkpoint(f"{key}-steps").unlink(missing_ok=True)


def _filled(bench: Bench, run: Run, classes: list[int], fill: Fill) -> Memory:
    """Return the memory of a step's classes, with labels and positions of the whole dataset."""
    own, its = step_of(bench, run, classes)
    memory, positions = fill(own, its), positions_of(bench, classes)
    labels = torch.tensor(classes, device=memory.split.labels.device)[memory.split.labels]
    indices = None if memory.indices is None else positions.cpu()[memory.indices]
    return replace(memory, split=replace(memory.split, labels=labels), indices=indices)


def _step(bench: Bench, run: Run, order: list[list[int]], memories: list[Memory], key: str, number: int) -> dict:
    """Train fresh networks on the memory so far; return how they do on the classes so far."""
    weights = _weights(memories) if any(memory.weights is not None for memory in memories) else None
    seen = seen_bench(bench, [label for classes in order for label in classes])
    label = f"{run.method.name} seed {run.seed} step {number + 1}"
    evaluation = evaluate(seen, run, _union(memories), key, label, weights)
    each = [history.tests[-1][1] for history in evaluation.histories]
    facts = evaluation.facts
    return {
        "test_accuracy": facts["test_accuracy"],
        "best_test_accuracy": facts["best_test_accuracy"],
        "each": each,
        "images": sum(len(memory) for memory in memories),
        "seconds": evaluation.seconds,
    }


def _weights(memories: list[Memory]) -> Tensor:
    return torch.cat([torch.ones(len(m.split)) if m.weights is None else m.weights for m in memories])


def _union(memories: list[Memory]) -> TensorSplit:
    """Return the whole memory as tensors; it is small, so files are read into memory."""
    batches = [batch for memory in memories for batch in memory.split.batches([torch.arange(len(memory.split))])]
    images, labels, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return TensorSplit(images, labels.to(images.device))


def _save_memory(path: Path, memories: list[Memory]) -> None:
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
