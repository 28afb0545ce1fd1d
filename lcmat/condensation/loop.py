"""Dataset condensation: one loop that learns images, and what every matching method fills it with.

An iteration takes a network. Each of its steps draws real images of every class, compares them with the synthetic ones
under a shared augmentation, moves the synthetic images against the gradient of the matching loss, and may train the
network on. DC, DSA, DM and LCMat-C differ in the loss (`lcmat.condensation.matching`) and in the `Schedule`.

Every draw derives from the seed, the iteration and the step: a run that goes on from a checkpoint equals one that was
never stopped.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lcmat import seeds
from lcmat.alive import Progress
from lcmat.augmentation import Strategy, siamese
from lcmat.augmentation.siamese import NONE
from lcmat.condensation.condenser import Task, real_batch
from lcmat.condensation.matching import Matching
from lcmat.condensation.matching_step import Pair, Stored, matching_gradient, unit_map
from lcmat.condensation.networks import Networks, Schedule
from lcmat.condensation.space import Space
from lcmat.condensation.synthetic import Synthetic, initial, read
from lcmat.expected import each, fields, like, real, row, whole
from lcmat.files import check_fits, load_checkpoint, save_tensors
from lcmat.journal import note
from lcmat.training import DivergedError
from lcmat.training.recipe import of_optimizer

# Images further out than this many standard deviations of the data come from too large a step.
FARTHEST = 100.0
CURVE = 100  # points of the loss curve that is kept


@dataclass(frozen=True)
class ImageRecipe:
    """How images are learned.

    lr, momentum: of SGD on the images. batch: real images of each class in a step (all, where there are fewer). space:
    where they are learned; pixels are clamped to [0, 1] after each iteration. init: see `synthetic.initial`. factor:
    images stored in each, squared. strategy: the augmentation that real and synthetic images share.
    """

    lr: float
    momentum: float = 0.5
    batch: int = 256
    space: str = "normalised"
    init: str = "real"
    factor: int = 1
    strategy: Strategy = NONE


def condense(task: Task, matching: Matching, schedule: Schedule, recipe: ImageRecipe) -> Synthetic:
    """Learn synthetic images by matching.

    Raises DivergedError that names the iteration and step when a loss or an image is not finite, or images explode.
    """
    device = task.compute.device
    room = Space(recipe.space, *task.compute.statistics)
    pixels, labels = _initial(task, recipe.init, recipe.factor)
    images = room.begin(pixels.to(device)).contiguous().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=recipe.lr, momentum=recipe.momentum)
    networks = Networks(task, schedule, room, labels.to(device), recipe.factor)
    learned = Learned(room, labels, images, optimizer, recipe.factor)
    learning = Learning(task, learned, schedule.iterations, schedule.steps, networks)
    with unit_map(device, len(task.sizes) if matching.threads else 1) as map_units:

        def gradient(iteration: int, step: int) -> tuple[Tensor, Tensor]:
            pairs = _pairs(task, room, recipe, iteration, step)
            network = networks.ready_to_match(iteration, step)
            stored = Stored(images.detach(), functools.partial(room.inputs, factor=recipe.factor), recipe.factor)
            return matching_gradient(network, matching, stored, pairs, map_units)

        return learning.run(gradient)


def _initial(task: Task, init: str, factor: int) -> tuple[Tensor, Tensor]:
    draw = seeds.generator(task.seed, "initial images")
    return initial(task.split, task.sizes, init, factor, draw, task.compute.statistics)


def _pairs(task: Task, room: Space, recipe: ImageRecipe, iteration: int, step: int) -> list[Pair]:
    """Return for each class its real images, where its synthetic ones lie, and the augmentation both share."""
    index = real_batch(task, recipe.batch, seeds.generator(task.seed, "real images", iteration, step))
    device = task.compute.device
    real = room.normalised(read(task.split, torch.cat(index)).to(device)).split([len(part) for part in index])
    draw = seeds.generator(task.seed, "augmentation", iteration, step)
    ends = torch.tensor(task.sizes).cumsum(0).tolist()
    rows = [slice(end - size, end) for end, size in zip(ends, task.sizes, strict=True)]
    return [
        Pair(label, images, where, siamese.drawn(recipe.strategy, draw))
        for label, (images, where) in enumerate(zip(real, rows, strict=True))
        if where.start < where.stop and len(images)
    ]


@dataclass(frozen=True, eq=False)
class Learned:
    """What is learned, and how it moves.

    images: (m, c, h, w), a leaf in the space `room`, each of which stores `factor`² images. labels: (m,).
    """

    room: Space
    labels: Tensor
    images: Tensor
    optimizer: torch.optim.Optimizer
    factor: int = 1


class Learning:
    """The loop over iterations and steps: what moves images, keeps checkpoints and snapshots, and stops at nonsense."""

    def __init__(
        self, task: Task, learned: Learned, iterations: int, steps: int = 1, networks: Networks | None = None
    ) -> None:
        """Take what is learned, and the networks that are to be trained between steps, if any are."""
        self.task, self.networks = task, networks
        self.room, self.labels, self.factor = learned.room, learned.labels, learned.factor
        self.images, self.optimizer = learned.images, learned.optimizer
        self.iterations, self.steps = iterations, steps
        self.iteration = self.step = 0
        self.curve: list[tuple[float, float]] = []  # iteration, mean loss since the point before
        self.recent: list[float] = []
        self.seconds = 0.0

    def run(self, gradient: Callable[[int, int], tuple[Tensor, Tensor]]) -> Synthetic:
        """Learn; gradient(iteration, step) returns the loss and its gradient in the images."""
        if self.task.resume and self.task.checkpoint is not None and self.task.checkpoint.exists():
            self._restore(self.task.checkpoint)
        else:
            self._snapshot()
        started, before = time.monotonic(), self.seconds
        saved = started
        total, done = self.iterations * self.steps, self.iteration * self.steps + self.step
        with Progress(total=total, initial=done, desc=self.task.label) as bar:
            while self.iteration < self.iterations:
                self._move(*gradient(self.iteration, self.step))
                self._advance()
                bar.update()
                self.seconds = before + time.monotonic() - started
                if self.step == 0:
                    bar.set_postfix(loss=f"{self.curve[-1][1]:.4g}" if self.curve else "")
                    self._snapshot()
                if time.monotonic() - saved >= self.task.checkpoint_seconds and self.iteration < self.iterations:
                    self.store()
                    saved = time.monotonic()
        curve = torch.tensor(self.curve, dtype=torch.float64)
        return replace(self._synthetic(), curve=curve, seconds=self.seconds)

    def _synthetic(self) -> Synthetic:
        return Synthetic(self.room.pixels(self.images.detach()).float().cpu(), self.labels, self.factor)

    def _move(self, loss: Tensor, gradient: Tensor) -> None:
        where = f"iteration {self.iteration + 1}, step {self.step + 1}"
        rate = f"image learning rate {self.optimizer.param_groups[0]['lr']:g}"
        self.images.grad = gradient
        self.optimizer.step()
        # One transfer for all that is looked at: each waits for the device. A maximum is NaN if any image is.
        deviation = self.room.inputs(self.images.detach()).abs().max()
        value, farthest = torch.stack([loss.detach().double(), deviation.double()]).tolist()
        if not math.isfinite(value):
            raise DivergedError(
                f"the matching loss is {value} at {where}, {rate}; lower the learning rate of images or network"
            )
        if not farthest <= FARTHEST:
            raise DivergedError(
                f"images are {farthest:.3g} standard deviations from the data's mean after {where}, {rate}: they "
                f"explode; lower the learning rate"
            )
        self.recent.append(value)

    def _advance(self) -> None:
        """Train the network if it is needed again; go to the next step."""
        last = self.step + 1 == self.steps
        if not last and self.networks is not None:
            self.networks.train(self.iteration, self.step, self.images.detach())
        self.step = 0 if last else self.step + 1
        self.iteration += last
        if last and self.room.name == "pixels":
            with torch.no_grad():
                self.images.clamp_(0, 1)
        if last and (self.iteration % -(-self.iterations // CURVE) == 0 or self.iteration == self.iterations):
            self.curve.append((self.iteration, sum(self.recent) / len(self.recent)))
            note(self.task.label, self.iteration, loss=self.curve[-1][1])
            self.recent = []

    def _snapshot(self) -> None:
        count = self.task.snapshots
        marks = {round(self.iterations * k / count) for k in range(count + 1)} if count else ()
        if self.task.snapshot is not None and self.iteration in marks:
            self.task.snapshot(self.iteration, self._synthetic())

    def store(self) -> None:
        """Keep the state at this step in the task's checkpoint, if it has one."""
        if self.task.checkpoint is None:
            return
        state = {name: getattr(self, name) for name in ("iteration", "step", "curve", "recent", "seconds")}
        state |= {"images": self.images.detach().cpu(), "optimizer": self.optimizer.state_dict()}
        if self.networks is not None and self.step:  # between iterations there is no network to keep
            state["networks"] = self.networks.state()
        save_tensors(self.task.checkpoint, state)

    def _restore(self, path: Path) -> None:
        expected = {
            "iteration": whole(0, self.iterations - 1),
            "step": whole(0, self.steps - 1),
            "curve": each(row(whole(1), real())),
            "recent": each(real()),
            "seconds": real(0),
            "images": like(self.images),
            "optimizer": of_optimizer(self.optimizer),
        }
        state = load_checkpoint(path, fields(expected))
        with torch.no_grad():
            self.images.copy_(state["images"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in ("iteration", "step", "recent", "seconds"):
            setattr(self, name, state[name])
        self.curve = [tuple(point) for point in state["curve"]]
        if self.step and self.networks is not None:
            check_fits(path, state.get("networks"), self.networks.expected(self.iteration))
            self.networks.load(self.iteration, state["networks"])
