"""One training loop for every purpose: pretraining, training on a subset, evaluating other networks.

It takes a network, a split of images and a recipe, and knows nothing of selection.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lcmat import seeds
from lcmat.augmentation import augment, normalise, siamese
from lcmat.data import Split
from lcmat.errors import UserError, lookup
from lcmat.expected import Expected, array, both, each, fields, like, of, optional, real, row, whole
from lcmat.files import load_checkpoint, save_tensors

OPTIMIZERS = ("SGD", "Adam", "AdamW")
SCHEDULERS = ("CosineAnnealingLR", "StepLR", "MultiStepLR", "constant")
# MultiStepLR: where in the training it steps.
MILESTONES = (2 / 3, 5 / 6)
# Losses are looked at this often, not at every step: each look waits for the device.
CHECK_STEPS = 50
TEST_BATCH = 500


class DivergedError(UserError):
    """A loss that is not finite."""


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are those of LCMat's appendix D.1 for training on a subset."""

    epochs: int = 200
    batch: int = 128
    optimizer: str = "SGD"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    scheduler: str = "CosineAnnealingLR"  # per step, down to min_lr; or StepLR, MultiStepLR (at MILESTONES), constant
    min_lr: float = 1e-4
    step_size: float = 50  # StepLR: epochs
    gamma: float = 0.5  # StepLR, MultiStepLR
    augmentation: str = "none"
    total_steps: int | None = None  # in place of `epochs`: as many optimiser steps, whatever the size of the split

    def __post_init__(self) -> None:
        object.__setattr__(self, "optimizer", lookup("optimizer", self.optimizer, OPTIMIZERS))
        object.__setattr__(self, "scheduler", lookup("scheduler", self.scheduler, SCHEDULERS))
        for name, least in (("epochs", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        by_epochs = self.total_steps is None
        if not by_epochs and self.total_steps < 1:
            raise UserError(f"total_steps must be at least 1, not {self.total_steps}")
        if not self.lr > 0:
            raise UserError(f"the learning rate must be above 0, not {self.lr:g}")
        for name in ("lr", "momentum", "weight_decay", "min_lr", "step_size", "gamma"):
            if not abs(getattr(self, name)) <= torch.finfo(torch.float32).max:
                raise UserError(f"{name} must be finite, also in float32, not {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "min_lr"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, not {getattr(self, name):g}")
        if not self.step_size > 0:
            raise UserError(f"step_size must be above 0, not {self.step_size:g}")
        # A schedule is stretched over the steps: what is left of epochs is the unit of StepLR's step_size.
        unread = [] if by_epochs or self.scheduler == "StepLR" else ["epochs"]
        if self.optimizer != "SGD":
            unread += ["momentum", "nesterov"]
        elif self.momentum == 0:  # torch refuses Nesterov's form of it
            object.__setattr__(self, "nesterov", False)
        if self.scheduler != "CosineAnnealingLR":
            unread += ["min_lr"]
        if self.scheduler != "StepLR":
            unread += ["step_size"]
        if self.scheduler not in ("StepLR", "MultiStepLR"):
            unread += ["gamma"]
        for name in unread:  # so that trainings that do not differ have equal recipes, and records
            object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)

    @property
    def described(self) -> dict[str, object]:
        """All fields as a configuration says them: `total_steps` only where it is given."""
        return {name: value for name, value in asdict(self).items() if name != "total_steps" or value is not None}

    def steps(self, epoch_steps: int) -> int:
        """Return all optimiser steps of a training whose epoch has so many."""
        return self.epochs * epoch_steps if self.total_steps is None else self.total_steps


@dataclass(frozen=True, eq=False)
class Draw:
    """What an epoch trains on: positions in their order, and what each one's loss is multiplied by (b,), or None."""

    positions: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Draws:
    """The samples of each epoch, drawn anew while a network trains.

    draw: called as draw(epoch, losses), epoch from 0, losses (n,) each sample's cross-entropy when it was last trained
    on, NaN before; returns a Draw. size: how many samples an epoch has, the largest if that changes: by so many goes
    the schedule.
    """

    draw: Callable[[int, Tensor], Draw]
    size: int


@dataclass(frozen=True)
class Compute:
    """Where and in which precision to compute, and the pixel statistics that every batch is normalised by."""

    device: torch.device
    precision: torch.dtype
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def inputs(self, images: Tensor) -> Tensor:
        """Return images, uint8 or on the scale of [0, 1], as normalised float32 on the device."""
        return normalise(images.to(self.device, non_blocking=True), *self.statistics)

    @functools.cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, on the device."""
        return torch.tensor(self.mean, device=self.device), torch.tensor(self.std, device=self.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which networks run."""
        enabled = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision if enabled else None, enabled=enabled)


# What sample weights have mean 1 over: the subset, or as released (LCMat_main/utils.py 161) each batch.
WEIGHTS_BY = ("subset", "batch")


class SampleWeights:
    """Weights of a split's samples, scaled to mean 1 over what `by` says (`WEIGHTS_BY`)."""

    def __init__(self, values: Tensor, by: str = "subset") -> None:
        """Take weights (n,) of any scale."""
        self.relative, self.by_batch = (values / values.mean()).float(), by == "batch"

    def of(self, positions: Tensor) -> Tensor:
        """Return the weights of a batch's samples."""
        weights = self.relative[positions]
        return weights / weights.mean() if self.by_batch else weights


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


@dataclass
class History:
    """What a training leaves beside the weights.

    tests: pairs of epoch (from 1) and test accuracy in per cent. train_accuracy: of the last epoch, while training.
    dynamics: (epochs, n) tensors `correctness`, `margin`, `error_norm`, `probability_margin`, `loss`, `change` of each
    sample when its batch came (see `_record`), or None. held_out_accuracy: after the last epoch, on samples held out of
    the training set, or None. images: how many each epoch trained on. class_accuracy: of each class after the last
    epoch, in per cent, None of one without test images; None before.
    """

    tests: list[tuple[int, float]] = field(default_factory=list)
    train_accuracy: float = 0.0
    seconds: float = 0.0
    dynamics: dict[str, Tensor] | None = None
    held_out_accuracy: float | None = None
    images: list[int] = field(default_factory=list)
    class_accuracy: list[float | None] | None = None


TESTS = each(row(whole(1), real(0, 100)))


def of_history(dynamics: Expected, finished: bool = False) -> Expected:
    """Expect what a file holds of a History; of a finished training there is at least one test."""
    tests = both(TESTS, each(of(list, tuple), 1)) if finished else TESTS
    required = {"tests": tests, "train_accuracy": real(0, 100), "seconds": real(0), "dynamics": dynamics}
    by_class = optional(each(optional(real(0, 100))))
    more = {"held_out_accuracy": optional(real(0, 100)), "images": each(whole(1)), "class_accuracy": by_class}
    return fields(required, more)


def history_of(values: dict[str, object]) -> History:
    """Return the History that a file holds."""
    known = {name: values[name] for name in History.__dataclass_fields__ if name in values}
    return History(**known | {"tests": [tuple(pair) for pair in values["tests"]]})


def chunks(order: Tensor, size: int) -> list[Tensor]:
    """Cut an order of positions into batches; a last batch of one joins the one before it (BatchNorm needs two)."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


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
    course = _begun(network, split, recipe, compute, **how)
    history, first, epochs = course.history, 0, course.plan.epochs
    if checkpoint is not None and checkpoint.resume and checkpoint.path.exists():
        first = _restore(checkpoint.path, course)
    started = saved = time.monotonic()
    before = history.seconds
    numbers = range(first + 1, epochs + 1)
    bar = tqdm(numbers, desc=watch.label, initial=first, total=epochs, disable=None, leave=False)
    recent: list[_Step] = []
    with torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else []):  # layers draw from it
        for epoch in bar:
            correct = _epoch(course, epoch - 1, recent)
            stored = checkpoint is not None and epoch < epochs and time.monotonic() - saved >= checkpoint.seconds
            if epoch == epochs or stored:  # what waits for the device is not done at every epoch
                _check_finite(recent)
                history.train_accuracy = 100 * float(correct) / history.images[-1]
            if epoch == epochs:
                _check_weights(network, epoch, course.optimizer)
            if watch.tests_after(epoch, epochs):
                history.tests.append((epoch, _tested(course, watch.test, last=epoch == epochs)))
                bar.set_postfix(test=f"{history.tests[-1][1]:.2f}%")
            history.seconds = before + time.monotonic() - started
            if stored:
                _store(checkpoint.path, course, epoch)
                saved = time.monotonic()
    return history


@dataclass(frozen=True)
class Plan:
    """How long a training is: in epochs, of which the last may be cut short, in steps of a whole epoch, in steps."""

    epochs: int
    epoch_steps: int
    steps: int

    @staticmethod
    def of(recipe: Recipe, samples: int) -> Plan:
        """Return the plan for epochs of so many samples."""
        epoch_steps = len(chunks(torch.arange(samples), recipe.batch))
        steps = recipe.steps(epoch_steps)
        return Plan(-(-steps // epoch_steps), epoch_steps, steps)

    def of_epoch(self, epoch: int) -> int:
        """Return how many steps epoch `epoch`, from 0, has."""
        return min(self.epoch_steps, self.steps - epoch * self.epoch_steps)


@dataclass(frozen=True, eq=False)
class _Course:
    """What a training works with, from its first epoch to its last."""

    network: nn.Module
    split: Split
    recipe: Recipe
    compute: Compute
    seed: int
    weights: SampleWeights | None
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    history: History
    earlier: dict[str, Tensor] | None  # (n, C) log-probabilities of the epoch before, as `log_p`
    plan: Plan
    draws: Draws | None
    losses: Tensor | None  # (n,) as `Draws.draw` takes them


def _begun(
    network: nn.Module,
    split: Split,
    recipe: Recipe,
    compute: Compute,
    *,
    seed: int,
    weights: SampleWeights | None,
    dynamics: bool,
    draws: Draws | None,
) -> _Course:
    """Put a network in place and make what it is to be trained with."""
    network.to(compute.device, memory_format=torch.channels_last).train()
    optimizer = optimizer_of(network, recipe)
    plan = Plan.of(recipe, len(split) if draws is None else draws.size)
    scheduler = scheduler_of(optimizer, recipe, plan.epoch_steps)
    history = History(dynamics=_empty_dynamics(plan.epochs, len(split), compute.device) if dynamics else None)
    earlier = {} if dynamics else None
    losses = None if draws is None else torch.full((len(split),), torch.nan, device=compute.device)
    return _Course(
        network, split, recipe, compute, seed, weights, optimizer, scheduler, history, earlier, plan, draws, losses
    )


@dataclass(frozen=True, eq=False)
class _Step:
    """A step whose loss is to be looked at: its epoch and its number in that, from 0."""

    epoch: int
    step: int
    loss: Tensor
    lr: float


def _epoch(course: _Course, epoch: int, recent: list[_Step]) -> Tensor:
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
    by_draw = _by_position(drawn, len(split))
    correct = torch.zeros((), device=compute.device)
    torch.manual_seed(seeds.derive(course.seed, "layers", epoch))  # for dropout and the like
    bar = tqdm(split.batches(parts), total=len(parts), desc=f"epoch {epoch + 1}", disable=_quiet(parts), leave=False)
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
        recent.append(_Step(epoch, step, loss.detach(), course.optimizer.param_groups[0]["lr"]))
        course.optimizer.step()
        # An epoch that has other steps than planned takes as much of the schedule as any.
        for _ in range((step + 1) * wanted // len(parts) - step * wanted // len(parts)):
            course.scheduler.step()
        if course.losses is not None:
            losses = F.cross_entropy(logits.detach(), labels, reduction="none")
            course.losses[positions.to(compute.device)] = losses
        correct += (logits.argmax(1) == labels).sum()
        if history.dynamics is not None:
            _record(history.dynamics, course.earlier, epoch, positions, logits.detach(), labels)
        if len(recent) >= CHECK_STEPS:
            _check_finite(recent)
    history.images.append(sum(map(len, parts)))
    return correct


def _by_position(drawn: Draw, count: int) -> Tensor | None:
    """Return the weights of a draw by the positions of `count` samples, (count,), or None."""
    if drawn.weights is None:
        return None
    weights = torch.ones(count)
    weights[drawn.positions] = drawn.weights.float()
    return weights


def _tested(course: _Course, test: Split, last: bool) -> float:
    """Return the test accuracy in per cent, and note that of each class after the last epoch."""
    if not last:
        return accuracy(course.network, test, course.compute)
    right, count = by_class(course.network, test, course.compute)
    pairs = zip(right, count, strict=True)
    course.history.class_accuracy = [100 * hits / of if of else None for hits, of in pairs]
    return 100 * sum(right) / len(test)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the batch mean of weight times cross-entropy; logits (b, C), labels (b,), weights (b,) or None."""
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def mixed_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, mix: siamese.Mix | None) -> Tensor:
    """Return the same, each image's share of its own label and the rest of its partner's, where a batch was mixed."""
    own = weighted_cross_entropy(logits, labels, weights)
    if mix is None:
        return own
    of_partner = None if weights is None else weights[mix.partner]
    return mix.share * own + (1 - mix.share) * weighted_cross_entropy(logits, labels[mix.partner], of_partner)


@torch.no_grad()
def accuracy(network: nn.Module, split: Split, compute: Compute) -> float:
    """Return the network's accuracy on `split` in per cent, in evaluation mode; leave its mode as it was."""
    correct = torch.zeros((), dtype=torch.int64, device=compute.device)
    for logits, labels, _ in predictions(network, split, compute):
        correct += (logits.argmax(1) == labels).sum()
    return 100 * int(correct) / len(split)


@torch.no_grad()
def by_class(network: nn.Module, split: Split, compute: Compute) -> tuple[list[int], list[int]]:
    """Return how many samples of each class are predicted right, and how many there are, in evaluation mode."""
    right = count = 0
    for logits, labels, _ in predictions(network, split, compute):
        hits = labels[logits.argmax(1) == labels]
        right = right + torch.bincount(hits, minlength=logits.shape[1])
        count = count + torch.bincount(labels, minlength=logits.shape[1])
    return right.tolist(), count.tolist()


def predictions(network: nn.Module, split: Split, compute: Compute, batch: int = TEST_BATCH) -> Iterator:
    """Yield logits, labels and positions batch by batch, in order and in evaluation mode."""
    network.to(compute.device, memory_format=torch.channels_last)
    parts = torch.arange(len(split)).split(batch)
    bar = tqdm(split.batches(parts), total=len(parts), desc="evaluating", disable=_quiet(parts), leave=False)
    with evaluation_mode(network):
        for images, labels, positions in bar:
            with compute.autocast():
                logits = network(compute.inputs(images))
            yield logits, labels.to(compute.device), positions


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode for a while; each layer returns to its own mode (some may be frozen)."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _quiet(parts: list | tuple) -> bool | None:
    return True if len(parts) < 10 else None  # a bar for ten batches flickers; None: silent unless on a terminal


def optimizer_of(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer that a recipe names, for all parameters of a network."""
    options = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "SGD":
        options |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    return getattr(torch.optim, recipe.optimizer)(network.parameters(), **options)


def scheduler_of(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of learning rates that a recipe names, which takes a step a batch; steps: of an epoch."""
    schedulers, total = torch.optim.lr_scheduler, recipe.steps(steps)
    if recipe.scheduler == "CosineAnnealingLR":
        return schedulers.CosineAnnealingLR(optimizer, total, eta_min=recipe.min_lr)
    if recipe.scheduler == "StepLR":
        epoch = steps if recipe.total_steps is None else total / recipe.epochs
        return schedulers.StepLR(optimizer, max(1, round(recipe.step_size * epoch)), recipe.gamma)
    if recipe.scheduler == "MultiStepLR":
        milestones = [max(1, round(share * total)) for share in MILESTONES]
        return schedulers.MultiStepLR(optimizer, milestones, recipe.gamma)
    return schedulers.ConstantLR(optimizer, factor=1.0)


def _check_finite(recent: list[_Step]) -> None:
    """Look at the losses of recent steps, and forget them."""
    if not recent:
        return
    losses = torch.stack([step.loss for step in recent])
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        first = recent[int(bad[0])]
        raise DivergedError(
            f"the loss is {float(first.loss)} at epoch {first.epoch + 1}, step {first.step + 1}, "
            f"learning rate {first.lr:g}; lower the learning rate"
        )
    recent.clear()


def _check_weights(network: nn.Module, epochs: int, optimizer: torch.optim.Optimizer) -> None:
    """Find what the last update broke, which no later loss shows."""
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise DivergedError(
            f"weights are not finite after the last step of epoch {epochs}, "
            f"learning rate {optimizer.param_groups[0]['lr']:g}; lower the learning rate"
        )


def _empty_dynamics(epochs: int, n: int, device: torch.device) -> dict[str, Tensor]:
    right = {"correctness": torch.zeros(epochs, n, dtype=torch.bool, device=device)}
    numbers = ("margin", "error_norm", "probability_margin", "loss", "change")
    return right | {name: torch.zeros(epochs, n, device=device) for name in numbers}


def _record(
    dynamics: dict[str, Tensor],
    earlier: dict[str, Tensor],
    epoch: int,
    positions: Tensor,
    logits: Tensor,
    labels: Tensor,
) -> None:
    """Note what a batch's logits say of its samples, under the probabilities p.

    Whether each is right; its margin over the best other class, of logits and of p; ‖p − onehot(y)‖₂; the
    cross-entropy, so that p_y = e^−loss; and the change Σ_c |p_c log(p_c / p'_c)| from its p' in the epoch before, 0 in
    the first epoch (TDDS).
    """
    positions, probabilities, log_p = positions.to(logits.device), torch.softmax(logits, 1), F.log_softmax(logits, 1)
    error = probabilities - F.one_hot(labels, logits.shape[1])
    dynamics["correctness"][epoch, positions] = logits.argmax(1) == labels
    dynamics["margin"][epoch, positions] = _margin(logits, labels)
    dynamics["error_norm"][epoch, positions] = error.norm(dim=1)
    dynamics["probability_margin"][epoch, positions] = _margin(probabilities, labels)
    dynamics["loss"][epoch, positions] = -log_p.gather(1, labels[:, None])[:, 0]
    if "log_p" not in earlier:
        earlier["log_p"] = log_p.new_zeros(dynamics["loss"].shape[1], log_p.shape[1])
    elif epoch:
        dynamics["change"][epoch, positions] = (probabilities * (log_p - earlier["log_p"][positions])).abs().sum(1)
    earlier["log_p"][positions] = log_p


def _margin(scores: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the label's score exceeds the best other one, (b,), of scores (b, C); 0 if there is none."""
    if scores.shape[1] == 1:
        return torch.zeros_like(scores[:, 0])
    own = scores.gather(1, labels[:, None])[:, 0]
    return own - scores.scatter(1, labels[:, None], -torch.inf).amax(1)


def _store(path: Path, course: _Course, epoch: int) -> None:
    state = {
        "epoch": epoch,
        "network": course.network.state_dict(),
        "optimizer": course.optimizer.state_dict(),
        "scheduler": course.scheduler.state_dict(),
        "history": vars(course.history),
    }
    state |= {} if course.earlier is None else {"earlier": course.earlier}
    save_tensors(path, state | ({} if course.losses is None else {"losses": course.losses}))


def _restore(path: Path, course: _Course) -> int:
    network, optimizer, scheduler, history = course.network, course.optimizer, course.scheduler, course.history
    expected = {
        "epoch": whole(1, course.plan.epochs - 1),
        "network": like(network.state_dict()),
        "optimizer": of_optimizer(optimizer),
        "scheduler": like(scheduler.state_dict()),
        "history": of_history(like(history.dynamics)),
    }
    if course.earlier is not None:
        expected["earlier"] = fields({"log_p": array(len(course.split), None)})
    if course.losses is not None:
        expected["losses"] = like(course.losses)
    state = load_checkpoint(path, fields(expected))
    if course.losses is not None:
        course.losses.copy_(state["losses"])
    if course.earlier is not None:
        course.earlier.update({name: value.to(course.compute.device) for name, value in state["earlier"].items()})
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    kept = history_of(state["history"])
    if kept.dynamics is not None:
        device = next(network.parameters()).device
        kept.dynamics = {name: value.to(device) for name, value in kept.dynamics.items()}
    vars(history).update(vars(kept))
    return state["epoch"]


def of_optimizer(optimizer: torch.optim.Optimizer) -> Expected:
    """Expect the state dict of this optimizer, at whatever time: what it keeps of a weight has the weight's shape."""
    shapes = [weight.shape for group in optimizer.param_groups for weight in group["params"]]

    def of_weights(value: object) -> str | None:
        for number, kept in value.items() if isinstance(value, dict) else [(None, {})]:
            if number not in range(len(shapes)) or not isinstance(kept, dict):
                return "is of other weights"
            tensors = [one for one in kept.values() if isinstance(one, Tensor)]
            if any(one.ndim and one.shape != shapes[number] for one in tensors):
                return f"[{number}] has another shape than its weight"
        return None

    return fields({"state": of_weights, "param_groups": like(optimizer.state_dict()["param_groups"])})
