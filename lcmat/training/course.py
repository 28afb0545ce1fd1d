"""A training under way: its state from the first epoch to the last, and the checkpoint that holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lcmat import distributed
from lcmat.data import Split
from lcmat.expected import array, fields, like, whole
from lcmat.files import load_checkpoint, save_tensors
from lcmat.training.compute import Compute
from lcmat.training.draws import Draws
from lcmat.training.dynamics import empty_dynamics
from lcmat.training.history import History, history_of, of_history
from lcmat.training.losses import SampleWeights
from lcmat.training.recipe import Plan, Recipe, of_optimizer, optimizer_of, scheduler_of


@dataclass(frozen=True, eq=False)
class How:
    """What a training is told beside its recipe. watched: whether each sample's logits are looked at."""

    seed: int
    weights: SampleWeights | None
    draws: Draws | None
    watched: bool


@dataclass(frozen=True, eq=False)
class Course:
    """What a training works with, from its first epoch to its last."""

    network: nn.Module
    split: Split
    recipe: Recipe
    compute: Compute
    how: How
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    history: History
    earlier: dict[str, Tensor] | None  # (n, C) log-probabilities of the epoch before, as `log_p`
    plan: Plan
    losses: Tensor | None  # (n,) as `Draws.draw` takes them


def begun(network: nn.Module, split: Split, recipe: Recipe, compute: Compute, how: How, dynamics: bool) -> Course:
    """Put a network in place and make what it is to be trained with."""
    network.to(compute.device, memory_format=torch.channels_last).train()
    optimizer = optimizer_of(network, recipe)
    plan = Plan.of(recipe, len(split) if how.draws is None else how.draws.size)
    scheduler = scheduler_of(optimizer, recipe, plan.epoch_steps)
    history = History(dynamics=empty_dynamics(plan.epochs, len(split), compute.device) if dynamics else None)
    earlier = {} if dynamics else None
    losses = None if how.draws is None else torch.full((len(split),), torch.nan, device=compute.device)
    return Course(network, split, recipe, compute, how, optimizer, scheduler, history, earlier, plan, losses)


@dataclass(frozen=True, eq=False)
class Sent:
    """What other processes need to help with a training, in main memory: `moved` are states, after `epochs` epochs."""

    network: nn.Module
    split: Split
    recipe: Recipe
    compute: Compute
    how: How
    moved: tuple[dict, dict]
    epochs: int

    @staticmethod
    def of(course: Course, epochs: int) -> Sent | None:
        """Return what is to be sent; None where nobody helps."""
        if distributed.count() == 1:
            return None
        network, split = distributed.on_host(course.network), course.split.to(torch.device("cpu"))
        draws = course.how.draws
        how = replace(course.how, draws=None if draws is None else Draws(None, draws.size))
        moved = course.optimizer.state_dict(), course.scheduler.state_dict()
        compute = replace(course.compute)  # without what it keeps on this process's device
        return Sent(network, split, course.recipe, compute, how, moved, epochs)

    def begun(self) -> Course:
        """Return the training, for a process that keeps nothing of it."""
        split = self.split.to(self.compute.device)
        course = begun(self.network, split, self.recipe, self.compute, self.how, dynamics=False)
        course.optimizer.load_state_dict(self.moved[0])
        course.scheduler.load_state_dict(self.moved[1])
        return course


def store(path: Path, course: Course, epoch: int) -> None:
    """Write what `restore` reads after `epoch` epochs."""
    state = {
        "epoch": epoch,
        "network": course.network.state_dict(),
        "optimizer": course.optimizer.state_dict(),
        "scheduler": course.scheduler.state_dict(),
        "history": vars(course.history),
    }
    state |= {} if course.earlier is None else {"earlier": course.earlier}
    save_tensors(path, state | ({} if course.losses is None else {"losses": course.losses}))


def restore(path: Path, course: Course) -> int:
    """Put a training where a checkpoint left it; return how many epochs that had. Raises UserError if it is damaged."""
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
