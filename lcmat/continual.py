"""Class-incremental continual learning from a memory of chosen or synthetic images (LCMat section 4.3, Fig. 5).

The protocol of Zhao & Bilen (2023), like GDumb: the classes come in steps, in an order by seed. At each step the method
fills the memory for the step's classes from their images alone; then a fresh network with an output for every class is
trained on the whole memory alone, and tested on the classes seen so far.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lcmat import records, seeds
from lcmat.bench import Bench, Run, Settings
from lcmat.data.splits import Split, TensorSplit
from lcmat.errors import UserError
from lcmat.evaluation import evaluate, forget
from lcmat.files import load_tensors, save_tensors


@dataclass(frozen=True, eq=False)
class Memory:
    """What a method keeps of one step's classes: images and labels (of the step), weights or None, and positions.

    indices: of the chosen in the step's training images, or None where images were made.
    """

    split: Split
    weights: Tensor | None
    indices: Tensor | None
    seconds: dict[str, float]


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
    least = int(torch.bincount(dataset.train.labels.cpu(), minlength=dataset.num_classes).min())
    if not 1 <= settings.memory_per_class <= least:
        raise UserError(f"--memory_per_class must be 1 to {least}, the smallest class, not {settings.memory_per_class}")


def class_order(classes: int, steps: int, seed: int) -> list[list[int]]:
    """Return the classes of each step, sorted, from a permutation by seed; the first steps take what is left over."""
    order = torch.randperm(classes, generator=seeds.generator(seed, "class order"))
    return [part.sort().values.tolist() for part in order.tensor_split(steps)]


def step_bench(bench: Bench, classes: list[int]) -> tuple[Bench, Tensor]:
    """Return a bench that holds the training images of some classes alone, and their positions in the training set.

    Labels are counted within the step. The images stand for the test split too, so that no test image is in reach.
    """
    dataset = bench.dataset
    labels = dataset.train.labels
    positions = torch.isin(labels, torch.tensor(classes, device=labels.device)).nonzero()[:, 0]
    train = dataset.train.take(positions)
    train = replace(train, labels=torch.searchsorted(torch.tensor(classes, device=labels.device), train.labels))
    own = replace(dataset, train=train, test=train, classes=tuple(dataset.classes[label] for label in classes))
    settings = replace(bench.settings, steps=None, snapshots=0)
    return replace(bench, dataset=own, fingerprint=own.fingerprint(), settings=settings), positions


def seen_bench(bench: Bench, classes: list[int]) -> Bench:
    """Return the bench with the test images of some classes alone."""
    test = bench.dataset.test
    keep = torch.isin(test.labels, torch.tensor(classes, device=test.labels.device)).nonzero()[:, 0]
    return replace(bench, dataset=replace(bench.dataset, test=test.take(keep)))


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
    whole = _union(memories)
    record = {
        **records.heading(config, settings.model),
        "test_accuracy": done[-1]["test_accuracy"],
        "best_test_accuracy": done[-1]["best_test_accuracy"],
        "test_interval": settings.test_interval,
        "subset_size": len(whole),
        "class_order": order,
        "steps": [{name: value for name, value in step.items() if name != "seconds"} for step in done],
        "memory": path.with_suffix(".pt").name,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "config": config,
        "environment": bench.environment,
    }
    _save_memory(path.with_suffix(".pt"), whole, memories)
    records.write_record(path, record)  # last: a record means that the run is complete
    for number in range(len(order)):
        forget(bench, f"{key}-{number}")
    kept.unlink(missing_ok=True)
    return record


def _filled(bench: Bench, run: Run, classes: list[int], fill: Fill) -> Memory:
    """Return the memory of a step's classes, with labels and positions of the whole dataset."""
    own, positions = step_bench(bench, classes)
    size = {"budget": bench.settings.memory_per_class * len(classes), "per_class": bench.settings.memory_per_class}
    whole = {"fraction": 1.0, "budget": None, "per_class": None}
    memory = fill(own, replace(run, **{"fraction": None, **(whole if run.method.everything else size)}))
    labels = torch.tensor(classes, device=memory.split.labels.device)[memory.split.labels]
    indices = None if memory.indices is None else positions.cpu()[memory.indices]
    return replace(memory, split=replace(memory.split, labels=labels), indices=indices)


def _step(bench: Bench, run: Run, order: list[list[int]], memories: list[Memory], key: str, number: int) -> dict:
    """Train fresh networks on the memory so far; return how they do on the classes so far."""
    weights = None
    if any(memory.weights is not None for memory in memories):
        weights = torch.cat([torch.ones(len(m.split)) if m.weights is None else m.weights for m in memories])
    seen = seen_bench(bench, [label for classes in order for label in classes])
    label = f"{run.method.name} seed {run.seed} step {number + 1}"
    evaluation = evaluate(seen, run, _union(memories), key, label, weights)
    each = [history.tests[-1][1] for history in evaluation.histories]
    facts = evaluation.facts
    return {
        "test_accuracy": facts["test_accuracy"],
        "best_test_accuracy": facts["best_test_accuracy"],
        "each": each,
        "images": sum(len(memory.split) for memory in memories),
        "seconds": evaluation.seconds,
    }


def _union(memories: list[Memory]) -> TensorSplit:
    """Return the whole memory as tensors; it is small, so files are read into memory."""
    batches = [batch for memory in memories for batch in memory.split.batches([torch.arange(len(memory.split))])]
    images, labels, _ = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return TensorSplit(images, labels.to(images.device))


def _save_memory(path: Path, whole: TensorSplit, memories: list[Memory]) -> None:
    """Write the memory: positions in the training set where images were chosen, else the images."""
    if all(memory.indices is not None for memory in memories):
        value = {"indices": torch.cat([memory.indices for memory in memories]).cpu()}
    else:
        value = {"images": whole.images.cpu()}
    save_tensors(path, value | {"labels": whole.labels.cpu()})
