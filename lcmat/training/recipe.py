"""How long, by what and at which learning rates a network is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from lcmat.errors import UserError, lookup
from lcmat.expected import Expected, fields, like

OPTIMIZERS = ("SGD", "Adam", "AdamW")
SCHEDULERS = ("CosineAnnealingLR", "StepLR", "MultiStepLR", "constant")
# MultiStepLR: where in the training it steps.
MILESTONES = (2 / 3, 5 / 6)


# Fields that came after the first records, whose configurations do not have them.
_LATE = ("total_steps", "sync_batchnorm")


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
    sync_batchnorm: bool = False  # statistics of whole batches, where several processes have a share of each

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
        """All fields as a configuration says them: `total_steps` and `sync_batchnorm` only where they are given."""
        return {name: value for name, value in asdict(self).items() if name not in _LATE or value}

    def steps(self, epoch_steps: int) -> int:
        """Return all optimiser steps of a training whose epoch has so many."""
        return self.epochs * epoch_steps if self.total_steps is None else self.total_steps


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


def chunks(order: Tensor, size: int) -> list[Tensor]:
    """Cut an order of positions into batches; a last batch of one joins the one before it (BatchNorm needs two)."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


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
