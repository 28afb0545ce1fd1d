"""The networks that images are matched under: a new one each iteration, trained between its steps."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lcmat import seeds
from lcmat.augmentation import Strategy, siamese
from lcmat.augmentation.siamese import NONE
from lcmat.condensation.condenser import Task, real_batch
from lcmat.condensation.space import Space
from lcmat.condensation.synthetic import read
from lcmat.expected import Expected, fields, like
from lcmat.training.losses import mixed_cross_entropy
from lcmat.training.recipe import chunks, of_optimizer

SETTLING = 16  # images of each class that BatchNorm's statistics are taken from, as in the published code


@dataclass(frozen=True)
class Schedule:
    """Which network the images are matched under: a new one each iteration, trained between its steps.

    train_on: "nothing", "synthetic" (`passes` epochs over S after each step), or "real" (`images` images of T). With
    SGD; no training after an iteration's last step. strategy: the augmentation of these trainings.
    """

    iterations: int
    steps: int = 1
    train_on: str = "nothing"
    passes: int = 0
    images: int = 0
    batch: int = 256
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    strategy: Strategy = NONE


@dataclass
class Networks:
    """The networks that images are matched under, one after another."""

    task: Task
    schedule: Schedule
    room: Space
    labels: Tensor
    factor: int
    network: nn.Module | None = field(default=None, init=False)
    optimizer: torch.optim.Optimizer | None = field(default=None, init=False)
    number: int | None = field(default=None, init=False)

    def ready_to_match(self, iteration: int, step: int) -> nn.Module:
        """Return this iteration's network in evaluation mode; BatchNorm has the statistics of a real batch."""
        self._begin(iteration)
        self.network.eval()
        norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if norms:
            draw = seeds.generator(self.task.seed, "batch norm", iteration, step)
            index = torch.cat(real_batch(self.task, SETTLING, draw))
            images = read(self.task.split, index).to(self.task.compute.device)
            _settle(self.network, norms, self.room.normalised(images))
        return self.network

    def train(self, iteration: int, step: int, images: Tensor) -> None:
        """Train the network between two steps as the schedule says."""
        plan = self.schedule
        if plan.train_on == "nothing":
            return
        draw = seeds.generator(self.task.seed, "network", iteration, step)
        device = self.task.compute.device
        self.network.train()
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seeds.derive(self.task.seed, "layers", iteration, step))  # for dropout and the like
            if plan.train_on == "real":
                some = torch.randperm(len(self.task.split), generator=draw)[: plan.images]
                for part in chunks(some, plan.batch):
                    ((real, labels, _),) = self.task.split.batches([part])
                    self.train_on(self.room.normalised(real.to(device).float() / 255), labels.to(device), draw)
                return
            inputs = self.room.inputs(images, self.factor)
            labels = self.labels.repeat(self.factor**2)
            for _ in range(plan.passes):
                for part in chunks(torch.randperm(len(labels), generator=draw), plan.batch):
                    part = part.to(device)
                    self.train_on(inputs[part], labels[part], draw)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def expected(self, iteration: int) -> Expected:
        """Return what `state` returned in this iteration must be."""
        self._begin(iteration)
        return fields({"network": like(self.network.state_dict()), "optimizer": of_optimizer(self.optimizer)})

    def load(self, iteration: int, state: dict[str, object]) -> None:
        """Go back to what `state` returned in this iteration."""
        self._begin(iteration)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _begin(self, iteration: int) -> None:
        if self.number == iteration:
            return
        plan, self.number = self.schedule, iteration
        self.network = self.task.fresh_network(iteration).to(self.task.compute.device)
        how = {"lr": plan.lr, "momentum": plan.momentum, "weight_decay": plan.weight_decay}
        self.optimizer = torch.optim.SGD(self.network.parameters(), **how)

    def train_on(self, inputs: Tensor, labels: Tensor, draw: torch.Generator) -> None:
        """Take a step on inputs that are augmented as the schedule says."""
        inputs, mix = siamese.varied(inputs, self.schedule.strategy, draw)
        loss = mixed_cross_entropy(self.network(inputs), labels, None, mix)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


@torch.no_grad()
def _settle(network: nn.Module, norms: list[nn.Module], inputs: Tensor) -> None:
    """Let BatchNorm hold the statistics of these inputs: synthetic images are too few to have any."""
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative: of one batch, the batch's own
        norm.train()
    network(inputs)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()
