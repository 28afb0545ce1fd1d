"""The one training loop: pretraining, training on a subset, evaluating other networks.

It takes a network, a split of images and a recipe, and knows nothing of selection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lcmat import seeds
from lcmat.augmentation import augment, siamese
from lcmat.data import Split
from lcmat.errors import UserError
from lcmat.training.compute import Compute, accuracy, by_class, quiet
from lcmat.training.course import Course, begun, restore, store
from lcmat.training.divergence import CHECK_STEPS, Step, check_finite, check_weights
from lcmat.training.draws import Draw, Draws, by_position
from lcmat.training.dynamics import record
from lcmat.training.history import History
from lcmat.training.losses import SampleWeights, mixed_cross_entropy
from lcmat.training.recipe import Recipe, chunks


@dataclass(frozen=True, eq=False)
class Watch:
    """What is looked at while a network trains.

    test: tested every `interval` epochs (0: not) and after the last. dynamics: whether to record those of each sample
    (`History.dynamics`). label: what the progress bar says.
    """

    test: Split | None = None
    interval: int = 0
    dynamics: bool = False
    label: str = "training"

    def tests_after(self, epoch: int, epochs: int) -> bool:
        """Tell whether to test after an epoch, counted from 1, of so many."""
        return self.test is not None and (epoch == epochs or (self.interval > 0 and epoch % self.interval == 0))


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds a training's state.

    Written after an epoch whenever `seconds` have passed, read first if `resume`, and removed by the caller when the
    result is safe.
    """

    path: Path
    seconds: float = 60.0
    resume: bool = False


def train(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    compute: Compute,
    *,
    seed: int,
    weights: SampleWeights | None = None,
    watch: Watch | None = None,
    checkpoint: Checkpoint | None = None,
    draws: Draws | None = None,
) -> History:
    """Train `network` in place on `split`, or on what `draws` draws of it for each epoch, and return its History.

    All draws derive from `seed` and the epoch, so a resumed training equals an undisturbed one.
    Raises DivergedError when a loss is not finite, UserError if the split has a single sample.
    """
    if len(split) < 2:
        raise UserError(f"cannot train on {len(split)} sample: BatchNorm needs two; raise the fraction or budget")
    watch = watch or Watch()
    how = {"seed": seed, "weights": weights, "dynamics": watch.dynamics, "draws": draws}
    course = begun(network, split, recipe, compute, **how)
    history, first, epochs = course.history, 0, course.plan.epochs
    if checkpoint is not None and checkpoint.resume and checkpoint.path.exists():
        first = restore(checkpoint.path, course)
    started = saved = time.monotonic()
    before = history.seconds
    numbers = range(first + 1, epochs + 1)
    bar = tqdm(numbers, desc=watch.label, initial=first, total=epochs, disable=None, leave=False)
    recent: list[Step] = []
    with torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else []):  # layers draw from it
        for epoch in bar:
            correct = _epoch(course, epoch - 1, recent)
            stored = checkpoint is not None and epoch < epochs and time.monotonic() - saved >= checkpoint.seconds
            if epoch == epochs or stored:  # what waits for the device is not done at every epoch
                check_finite(recent)
                history.train_accuracy = 100 * float(correct) / history.images[-1]
            if epoch == epochs:
                check_weights(network, epoch, course.optimizer)
            if watch.tests_after(epoch, epochs):
                history.tests.append((epoch, _tested(course, watch.test, last=epoch == epochs)))
                bar.set_postfix(test=f"{history.tests[-1][1]:.2f}%")
            history.seconds = before + time.monotonic() - started
            if stored:
                store(checkpoint.path, course, epoch)
                saved = time.monotonic()
    return history


def _epoch(course: Course, epoch: int, recent: list[Step]) -> Tensor:
    """Train one epoch: a fresh order, fresh augmentation; return how many were right, a number on the device.

    recent: the steps whose losses were not yet looked at; they are looked at every CHECK_STEPS steps.
    """
    split, recipe, compute, history = course.split, course.recipe, course.compute, course.history
    draw = seeds.generator(course.seed, "epoch", epoch)
    if course.draws is None:
        drawn = Draw(torch.randperm(len(split), generator=draw))
    else:
        drawn = course.draws.draw(epoch, course.losses.cpu())
    parts = chunks(drawn.positions, recipe.batch)
    wanted = course.plan.of_epoch(epoch)
    if course.draws is None or course.plan.epochs == epoch + 1:
        parts = parts[:wanted]
    by_draw = by_position(drawn, len(split))
    correct = torch.zeros((), device=compute.device)
    torch.manual_seed(seeds.derive(course.seed, "layers", epoch))  # for dropout and the like
    bar = tqdm(split.batches(parts), total=len(parts), desc=f"epoch {epoch + 1}", disable=quiet(parts), leave=False)
    for step, (images, labels, positions) in enumerate(bar):
        inputs = compute.inputs(augment(images, recipe.augmentation, draw))
        inputs, mix = siamese.training_batch(inputs, recipe.augmentation, draw)
        labels = labels.to(compute.device)
        with compute.autocast():
            logits = course.network(inputs)
        logits = logits.float()
        weight = None if course.weights is None else course.weights.of(positions).to(compute.device)
        if by_draw is not None:
            drawn_weight = by_draw[positions].to(compute.device)
            weight = drawn_weight if weight is None else weight * drawn_weight
        loss = mixed_cross_entropy(logits, labels, weight, mix)
        course.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        recent.append(Step(epoch, step, loss.detach(), course.optimizer.param_groups[0]["lr"]))
        course.optimizer.step()
        # An epoch that has other steps than planned takes as much of the schedule as any.
        for _ in range((step + 1) * wanted // len(parts) - step * wanted // len(parts)):
            course.scheduler.step()
        if course.losses is not None:
            losses = F.cross_entropy(logits.detach(), labels, reduction="none")
            course.losses[positions.to(compute.device)] = losses
        correct += (logits.argmax(1) == labels).sum()
        if history.dynamics is not None:
            record(history.dynamics, course.earlier, epoch, positions, logits.detach(), labels)
        if len(recent) >= CHECK_STEPS:
            check_finite(recent)
    history.images.append(sum(map(len, parts)))
    return correct


def _tested(course: Course, test: Split, last: bool) -> float:
    """Return the test accuracy in per cent, and note that of each class after the last epoch."""
    if not last:
        return accuracy(course.network, test, course.compute)
    right, count = by_class(course.network, test, course.compute)
    pairs = zip(right, count, strict=True)
    course.history.class_accuracy = [100 * hits / of if of else None for hits, of in pairs]
    return 100 * sum(right) / len(test)
