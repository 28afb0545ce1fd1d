"""Dataset condensation: one loop that learns images, and what every matching method fills it with.

An iteration takes a network. Each of its steps draws real images of every class, compares them with the synthetic ones
under a shared augmentation, moves the synthetic images against the gradient of the matching loss, and may train the
network on. DC, DSA, DM and LCMat-C differ in the loss (`lcmat.condensation.matching`) and in the `Schedule`.

Every draw derives from the seed, the iteration and the step: a run that goes on from a checkpoint equals one that was
never stopped.
"""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lcmat import seeds
from lcmat.augmentation import siamese
from lcmat.augmentation.siamese import NONE, Strategy
from lcmat.condensation.matching import Matching
from lcmat.condensation.matching_step import Pair, matching_gradient, spreading
from lcmat.condensation.synthetic import Synthetic, class_positions, decoded, drawn_from_classes, initial, read
from lcmat.data.splits import Split
from lcmat.errors import UserError
from lcmat.files import load_tensors, save_tensors
from lcmat.selection.select import checked_options, like_defaults
from lcmat.training import Compute, DivergedError, chunks, mixed_cross_entropy

# Images further out than this many standard deviations of the data come from too large a step.
FARTHEST = 100.0
SETTLING = 16  # images of each class that BatchNorm's statistics are taken from, as in the published code
CURVE = 100  # points of the loss curve that is kept


@dataclass(frozen=True)
class Condenser:
    """A condensation method: a function and what the pipeline must know of it.

    condense: called as condense(task, **options); returns Synthetic. resolve: called as
    resolve(sizes, **options) with the images of each class before any work; returns the options with defaults
    that depend on those filled in, and refuses impossible ones. networks: whether it runs networks of the model.
    """

    name: str
    condense: Callable[..., Synthetic]
    resolve: Callable[..., dict[str, object]] | None = None
    networks: bool = True
    # What is asked of a selection method: condensation reads no signals, and its size is not everything.
    fields: frozenset[str] = frozenset()
    needs_context: bool = False
    everything: bool = False

    def under(self, options: Mapping[str, object]) -> Condenser:
        """Return itself: no option changes what the method is."""
        return self

    @property
    def options(self) -> dict[str, object]:
        """The method's own options with their defaults."""
        parameters = list(inspect.signature(self.condense).parameters.values())[1:]
        return {p.name: p.default for p in parameters}

    def resolved(self, sizes: list[int], options: Mapping[str, object]) -> dict[str, object]:
        """Return all options for so many images of each class; raise UserError for bad ones."""
        options = checked_options(self.name, self.options, options)
        resolve = self.resolve or (lambda sizes, **options: options)
        usual = resolve(sizes, **self.options)  # with the defaults that depend on sizes
        return like_defaults(resolve(sizes, **options), {name: usual[name] for name in self.options})


@dataclass(frozen=True, eq=False)
class Task:
    """What is condensed, to what size, and where.

    split: the real images. sizes: how many images of each class to make. compute: device and pixel statistics (all is
    in float32, whatever its precision: small gradients of gradients count). fresh_network: called with a number,
    returns an untrained network, another for each number. dataset: its name, for what suits it.
    checkpoint: a file to keep the state in, every `checkpoint_seconds`; resume: whether to go on from what is there.
    snapshot: called as snapshot(iteration, synthetic) at the beginning, at the end and `snapshots` − 1 times between.
    """

    split: Split
    sizes: list[int]
    compute: Compute
    fresh_network: Callable[[int], nn.Module] | None = None
    seed: int = 0
    dataset: str = ""
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0
    resume: bool = False
    snapshot: Callable[[int, Synthetic], object] | None = None
    snapshots: int = 10
    label: str = "condensing"

    @functools.cached_property
    def positions(self) -> list[Tensor]:
        """Where each class's images are."""
        return class_positions(self.split.labels, len(self.sizes))


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


@dataclass(frozen=True, eq=False)
class Space:
    """Where images are learned: "normalised" by mean and standard deviation (c,), or "pixels" from 0 to 1."""

    name: str
    mean: Tensor
    std: Tensor

    def inputs(self, images: Tensor, factor: int = 1) -> Tensor:
        """Return what a network reads: the factor² images that each one holds, decoded on the scale of pixels."""
        if self.name == "normalised" and factor == 1:
            return images
        return self.normalised(decoded(self.pixels(images), factor))

    def pixels(self, images: Tensor) -> Tensor:
        """Return images on the scale of pixels."""
        return images if self.name == "pixels" else images * self.std[:, None, None] + self.mean[:, None, None]

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return images on the scale of pixels as a network reads them."""
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]

    def begin(self, pixels: Tensor) -> Tensor:
        """Return images to begin with, from such on the scale of pixels."""
        return pixels.clamp(0, 1) if self.name == "pixels" else self.normalised(pixels)


def condense(
    task: Task,
    matching: Matching,
    schedule: Schedule,
    *,
    space: str = "normalised",
    init: str = "real",
    factor: int = 1,
    strategy: Strategy = NONE,
    batch: int = 256,
    image_lr: float,
    image_momentum: float = 0.5,
) -> Synthetic:
    """Learn synthetic images by matching.

    space: where they are learned; pixels are clamped to [0, 1] after each iteration. init: see `synthetic.initial`.
    factor: images stored in each, squared. strategy: the shared augmentation. batch: real images of each class (all,
    where there are fewer). image_lr, image_momentum: of SGD on the images.
    Raises DivergedError that names the iteration and step when a loss or an image is not finite, or images explode.
    """
    device = task.compute.device
    room = Space(space, *task.compute.statistics)
    pixels, labels = _initial(task, init, factor)
    images = room.begin(pixels.to(device)).contiguous().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=image_lr, momentum=image_momentum)
    networks = Networks(task, schedule, room, labels.to(device), factor)

    learning = Learning(task, room, labels, images, optimizer, schedule.iterations, schedule.steps, networks, factor)
    with spreading(device, len(task.sizes) if matching.threads else 1) as spread:

        def gradient(iteration: int, step: int) -> tuple[Tensor, Tensor]:
            pairs = _pairs(task, room, strategy, batch, iteration, step)
            network = networks.ready_to_match(iteration, step)
            to_inputs = functools.partial(room.inputs, factor=factor)
            return matching_gradient(network, matching, images.detach(), pairs, to_inputs, factor, spread)

        return learning.run(gradient)


def _initial(task: Task, init: str, factor: int) -> tuple[Tensor, Tensor]:
    draw = seeds.generator(task.seed, "initial images")
    return initial(task.split, task.sizes, init, factor, draw, *task.compute.statistics)


def _pairs(task: Task, room: Space, strategy: Strategy, batch: int, iteration: int, step: int) -> list[Pair]:
    """Return for each class its real images, where its synthetic ones lie, and the augmentation both share."""
    index = real_batch(task, batch, seeds.generator(task.seed, "real images", iteration, step))
    device = task.compute.device
    real = room.normalised(read(task.split, torch.cat(index)).to(device)).split([len(part) for part in index])
    draw = seeds.generator(task.seed, "augmentation", iteration, step)
    ends = torch.tensor(task.sizes).cumsum(0).tolist()
    rows = [slice(end - size, end) for end, size in zip(ends, task.sizes, strict=True)]
    return [
        Pair(label, images, where, siamese.drawn(strategy, draw))
        for label, (images, where) in enumerate(zip(real, rows, strict=True))
        if where.start < where.stop and len(images)
    ]


def real_batch(task: Task, batch: int, draw: torch.Generator) -> list[Tensor]:
    """Return positions of up to `batch` random images of each class, all of a smaller class."""
    return drawn_from_classes(task.positions, [min(batch, len(own)) for own in task.positions], draw)


class Learning:
    """The loop over iterations and steps: what moves images, keeps checkpoints and snapshots, and stops at nonsense."""

    def __init__(
        self,
        task: Task,
        room: Space,
        labels: Tensor,
        images: Tensor,
        optimizer: torch.optim.Optimizer,
        iterations: int,
        steps: int = 1,
        networks: Networks | None = None,
        factor: int = 1,
    ) -> None:
        self.task, self.room, self.labels, self.factor = task, room, labels, factor
        self.images, self.optimizer, self.networks = images, optimizer, networks
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
        with tqdm(total=total, initial=done, desc=self.task.label, disable=None, leave=False) as bar:
            while self.iteration < self.iterations:
                self._move(*gradient(self.iteration, self.step))
                self._advance()
                bar.update()
                self.seconds = before + time.monotonic() - started
                if self.step == 0:
                    bar.set_postfix(loss=f"{self.curve[-1][1]:.4g}" if self.curve else "")
                    self._snapshot()
                if time.monotonic() - saved >= self.task.checkpoint_seconds and self.iteration < self.iterations:
                    self._store()
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
            self.recent = []

    def _snapshot(self) -> None:
        count = self.task.snapshots
        marks = {round(self.iterations * k / count) for k in range(count + 1)} if count else ()
        if self.task.snapshot is not None and self.iteration in marks:
            self.task.snapshot(self.iteration, self._synthetic())

    def _store(self) -> None:
        if self.task.checkpoint is None:
            return
        state = {name: getattr(self, name) for name in ("iteration", "step", "curve", "recent", "seconds")}
        state |= {"images": self.images.detach().cpu(), "optimizer": self.optimizer.state_dict()}
        if self.networks is not None and self.step:  # between iterations there is no network to keep
            state["networks"] = self.networks.state()
        save_tensors(self.task.checkpoint, state)

    def _restore(self, path: Path) -> None:
        state = load_tensors(path)
        try:
            with torch.no_grad():
                self.images.copy_(state["images"])
            self.optimizer.load_state_dict(state["optimizer"])
            for name in ("iteration", "step", "recent", "seconds"):
                setattr(self, name, state[name])
            self.curve = [tuple(point) for point in state["curve"]]
            if self.step:
                self.networks.load(self.iteration, state["networks"])
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"checkpoint {path} does not fit this run; remove it or leave --resume out") from error


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
                    self._train_on(self.room.normalised(real.to(device).float() / 255), labels.to(device), draw)
                return
            inputs = self.room.inputs(images, self.factor)
            labels = self.labels.repeat(self.factor**2)
            for _ in range(plan.passes):
                for part in chunks(torch.randperm(len(labels), generator=draw), plan.batch):
                    part = part.to(device)
                    self._train_on(inputs[part], labels[part], draw)

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

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

    def _train_on(self, inputs: Tensor, labels: Tensor, draw: torch.Generator) -> None:
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


def check_numbers(
    options: Mapping[str, object],
    at_least_one: tuple[str, ...] = (),
    at_least_two: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
) -> None:
    """Raise UserError for an option that is out of its range; names that are not there are passed over."""
    for least, names in ((1, at_least_one), (2, at_least_two)):
        for name in names:
            value = options.get(name, least)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for words, names, least in (("above 0", positive, math.ulp(0.0)), ("0 or more", not_negative, 0.0)):
        for name in names:
            value = options.get(name, 1.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise UserError(f"{name} must be {words} and finite, not {value!r}")
