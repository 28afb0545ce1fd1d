"""The one training loop: pretraining, training on a subset, evaluating other networks.

It takes a network, a split of images and a recipe, and knows nothing of selection.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat import distributed, seeds
from lcmat.alive import Progress
from lcmat.augmentation import augment, siamese
from lcmat.data import Split
from lcmat.errors import UserError
from lcmat.journal import is_kept, note
from lcmat.training.compute import Compute, accuracy, by_class, quiet
from lcmat.training.course import Course, How, Sent, begun, restore, store
from lcmat.training.divergence import CHECK_STEPS, Step, check_finite, check_weights
from lcmat.training.draws import Draw, Draws, by_position
from lcmat.training.dynamics import record
from lcmat.training.history import History
from lcmat.training.losses import SampleWeights, mixed_cross_entropy
from lcmat.training.recipe import Recipe, chunks

# Labels of trainings inside of methods: there are hundreds, of which the method notes what matters.
UNNOTED = ("training", "inner")


@dataclass(frozen=True, eq=False)
class Watch:
    """What is looked at while a network trains.

    test: tested every `interval` epochs (0: not) and after the last. dynamics: whether to record those of each sample
    (`History.dynamics`). label: what the progress bar says, and under which numbers are noted, but for `UNNOTED`.
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

    All draws derive from `seed` and the epoch, so a resumed training equals an undisturbed one. Where several processes
    work together (`lcmat.distributed`), each computes a share of every batch; BatchNorm takes statistics of the share.
    Raises DivergedError when a loss is not finite, UserError if the split has a single sample.
    """
    if len(split) < 2:
        raise UserError(f"cannot train on {len(split)} sample: BatchNorm needs two; raise the fraction or budget")
    watch = watch or Watch()
    how = How(seed, weights, draws, watch.dynamics or draws is not None)
    course = begun(network, split, recipe, compute, how, watch.dynamics)
    first = 0
    if checkpoint is not None and checkpoint.resume and checkpoint.path.exists():
        first = restore(checkpoint.path, course)
    with distributed.helped(_help, Sent.of(course, first)):
        _go_on(course, first, watch, checkpoint)
    return course.history


def _help(sent: Sent) -> None:
    """Compute a share of what another process trains on."""
    _go_on(sent.begun(), sent.epochs, Watch(), None)


def _go_on(course: Course, first: int, watch: Watch, checkpoint: Checkpoint | None) -> None:
    """Train from epoch `first`, counted from 0, to the last."""
    history, compute, epochs = course.history, course.compute, course.plan.epochs
    label = "" if watch.label in UNNOTED else watch.label
    started = saved = time.monotonic()
    before = history.seconds
    numbers, hidden = range(first + 1, epochs + 1), distributed.rank() > 0
    bar = Progress(numbers, desc=watch.label, initial=first, total=epochs, disable=hidden)
    recent: list[Step] = []
    forked = torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else [])  # layers draw from it
    with distributed.averaging(course.network, course.recipe.sync_batchnorm) as network, forked:
        for epoch in bar:
            correct = _epoch(course, network, epoch - 1, recent, label)
            stored = checkpoint is not None and epoch < epochs and time.monotonic() - saved >= checkpoint.seconds
            # What waits for the device is not done at every epoch, but where all must find alike.
            if epoch == epochs or stored or distributed.count() > 1:
                _look(recent, label)
                history.train_accuracy = 100 * float(correct) / history.images[-1]
            if epoch == epochs:
                check_weights(course.network, epoch, course.optimizer)
            if watch.tests_after(epoch, epochs):
                _look(recent, label)
                history.tests.append((epoch, _tested(course, watch.test, last=epoch == epochs)))
                bar.set_postfix(test=f"{history.tests[-1][1]:.2f}%")
                if label:
                    note(label, epoch, test_accuracy=history.tests[-1][1])
            history.seconds = before + time.monotonic() - started
            if stored:
                store(checkpoint.path, course, epoch)
                saved = time.monotonic()


def _look(recent: list[Step], label: str) -> None:
    """Look at the losses of recent steps, note their mean, and forget them."""
    steps = list(recent)
    check_finite(recent)
    if steps and label and is_kept():
        loss = float(torch.stack([step.loss for step in steps]).mean())
        note(label, steps[-1].epoch + 1, loss=loss, learning_rate=steps[-1].lr)


def _epoch(course: Course, network: nn.Module, epoch: int, recent: list[Step], label: str) -> Tensor:
    """Train one epoch: a fresh order, fresh augmentation; return how many were right, a number on the device.

    network: the course's, which processes may share. recent: the steps whose losses were not yet looked at; they are
    looked at every CHECK_STEPS steps. label: under which numbers are noted.
    """
    compute, how, history = course.compute, course.how, course.history
    draw = seeds.generator(how.seed, "epoch", epoch)
    drawn = _drawn(course, epoch, draw)
    parts = chunks(drawn.positions, course.recipe.batch)
    wanted = course.plan.of_epoch(epoch)
    if how.draws is None or course.plan.epochs == epoch + 1:
        parts = parts[:wanted]
    by_draw = by_position(drawn, len(course.split))
    correct = torch.zeros((), device=compute.device)
    own = distributed.rank()
    torch.manual_seed(seeds.derive(how.seed, "layers", epoch, *([own] if own else [])))  # for dropout and the like
    for step, batch in enumerate(_batches(course, parts, draw, f"epoch {epoch + 1}")):
        with compute.autocast():
            logits = network(batch.inputs)
        logits = logits.float()
        loss = mixed_cross_entropy(logits, batch.labels, _weights(course, by_draw, batch), batch.mix, batch.share)
        if distributed.is_shared(len(batch.labels)):  # gradients are averaged
            loss = loss * (len(logits) * distributed.count() / len(batch.labels))
        course.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        mean = distributed.summed(loss.detach()) / distributed.count() if distributed.count() > 1 else loss.detach()
        recent.append(Step(epoch, step, mean, course.optimizer.param_groups[0]["lr"]))
        course.optimizer.step()
        # An epoch that has other steps than planned takes as much of the schedule as any.
        for _ in range((step + 1) * wanted // len(parts) - step * wanted // len(parts)):
            course.scheduler.step()
        if own == 0 or distributed.is_shared(len(batch.labels)):
            correct += (logits.argmax(1) == batch.labels[batch.share]).sum()
        if how.watched:
            _note(course, epoch, batch, distributed.gathered(logits.detach(), len(batch.labels)))
        if len(recent) >= CHECK_STEPS:
            _look(recent, label)
    history.images.append(sum(map(len, parts)))
    return distributed.summed(correct)


def _drawn(course: Course, epoch: int, draw: torch.Generator) -> Draw:
    """Return what an epoch trains on."""
    if course.how.draws is None:
        return Draw(torch.randperm(len(course.split), generator=draw))
    first = distributed.rank() == 0
    return distributed.from_first(course.how.draws.draw(epoch, course.losses.cpu()) if first else None)


@dataclass(frozen=True, eq=False)
class _Batch:
    """A batch: its labels (b,) and positions (b,), the inputs of a share of it, and how it was mixed."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor
    share: slice
    mix: siamese.Mix | None


def _batches(course: Course, parts: list[Tensor], draw: torch.Generator, label: str) -> Iterator[_Batch]:
    """Yield batches, augmented: of each, this process's share."""
    split, compute, augmentation = course.split, course.compute, course.recipe.augmentation
    shares = [distributed.share(len(part)) for part in parts]
    mixing = augmentation in siamese.TRAINING  # images with others of the batch, all of which it needs
    read = parts if mixing else [part[share] for part, share in zip(parts, shares, strict=True)]
    bar = Progress(split.batches(read), desc=label, total=len(parts), disable=quiet(parts))
    for (images, labels, _), positions, share in zip(bar, parts, shares, strict=True):
        if mixing:
            inputs, mix = siamese.training_batch(compute.inputs(images), augmentation, draw)
            inputs = inputs[share]
        else:
            inputs, mix = compute.inputs(augment(images, augmentation, draw, (len(positions), share))), None
        if len(labels) < len(positions):
            labels = split.labels[positions.to(split.labels.device)]
        yield _Batch(inputs, labels.to(compute.device), positions, share, mix)


def _weights(course: Course, by_draw: Tensor | None, batch: _Batch) -> Tensor | None:
    """Return what the losses of a batch's samples are multiplied by, (b,), or None."""
    device, given = course.compute.device, course.how.weights
    weights = None if given is None else given.of(batch.positions).to(device)
    if by_draw is None:
        return weights
    drawn = by_draw[batch.positions].to(device)
    return drawn if weights is None else weights * drawn


def _note(course: Course, epoch: int, batch: _Batch, logits: Tensor) -> None:
    """Keep what is kept of each sample when its batch comes."""
    if course.losses is not None:
        losses = F.cross_entropy(logits, batch.labels, reduction="none")
        course.losses[batch.positions.to(course.compute.device)] = losses
    if course.history.dynamics is not None:
        record(course.history.dynamics, course.earlier, epoch, batch.positions, logits, batch.labels)


def _tested(course: Course, test: Split, last: bool) -> float:
    """Return the test accuracy in per cent, and note that of each class after the last epoch."""
    if not last:
        return accuracy(course.network, test, course.compute)
    right, count = by_class(course.network, test, course.compute)
    pairs = zip(right, count, strict=True)
    course.history.class_accuracy = [100 * hits / of if of else None for hits, of in pairs]
    return 100 * sum(right) / len(test)
