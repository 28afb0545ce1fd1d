"""One step of matching: the loss over all classes and its gradient in the synthetic images.

Classes do not depend on each other. On a CPU each core takes one class after another, its images in pieces that stay
in the cache; on a GPU as many classes as fit pass through the network at once. A class with more images than fit is
summed in pieces, twice where it is synthetic, so that memory does not grow with the number of images.

    stored images (m, c, h, w), class after class     ■■■■ │ ■■■■ │ ■■■■      rows of a Pair
      → inputs, factor² of each, augmented             n₁  │  n₂  │  n₃
      → statistics, (k, …), weights 1/n_c              compared with those of T's images, (k, …)
      → loss (k,), summed                              → gradient (m, c, h, w), in the stored images
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lcmat.augmentation.siamese import Draw, applied
from lcmat.condensation.class_statistics import ClassBatch, Statistics
from lcmat.condensation.matching import Matching

# Pixels (of one channel) that pass through the network at once: on a CPU 16 images of 32×32, on a GPU 1024.
PIXELS = {"cpu": 16 * 32**2, "other": 1024 * 32**2}
# The same where a graph is kept for the gradient in the synthetic images.
PIXELS_IN_GRAPH = {"cpu": 128 * 32**2, "other": 1024 * 32**2}


@dataclass(frozen=True, eq=False)
class Pair:
    """A class's real images as a network reads them, the rows of its synthetic ones, and the draw that both share."""

    label: int
    real: Tensor
    rows: slice
    draw: Draw

    @property
    def stored(self) -> int:
        """How many synthetic images there are."""
        return self.rows.stop - self.rows.start


@dataclass(frozen=True)
class Limits:
    """How many images pass through the network at once: without and with a graph; and whether classes share a pass."""

    images: int
    in_graph: int
    together: bool


def limits(device: torch.device, image_shape: tuple[int, ...]) -> Limits:
    """Return what suits a device, for images (channels, height, width)."""
    kind, pixels = "cpu" if device.type == "cpu" else "other", image_shape[1] * image_shape[2]
    counts = (max(1, table[kind] // pixels) for table in (PIXELS, PIXELS_IN_GRAPH))
    return Limits(*counts, together=kind != "cpu")


@dataclass(frozen=True, eq=False)
class Stored:
    """The synthetic images (m, c, h, w) as they are stored, and what the network reads of them.

    to_inputs: returns the `factor`² inputs that each of some stored images holds.
    """

    images: Tensor
    to_inputs: Callable[[Tensor], Tensor]
    factor: int = 1


def matching_gradient(
    network: nn.Module,
    matching: Matching,
    stored: Stored,
    pairs: list[Pair],
    map_units: Callable[..., list] | None = None,
    limit: Limits | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the matching loss, summed over the classes, and its gradient in the synthetic images (m, c, h, w).

    map_units: maps a function over a list, perhaps in threads (`unit_map`). network: in evaluation mode; no image's
    output may depend on other images.
    """
    images = stored.images
    limit = limit or limits(images.device, images.shape[1:])
    work = partial(_unit_gradient, _Step(network, matching, stored.to_inputs, stored.factor), images, limit)
    units = _units(pairs, stored.factor, limit)
    results = (map_units or _in_turn)(work, units)
    gradient = torch.zeros_like(images)
    for unit, (_, part) in zip(units, results, strict=True):
        gradient[unit[0].rows.start : unit[-1].rows.stop] = part
    return sum(loss for loss, _ in results), gradient


@contextmanager
def unit_map(device: torch.device, units: int) -> Iterator[Callable[..., list]]:
    """Yield a function that maps over a list: on a CPU in as many threads as there are cores, at most `units`.

    Threads share out the cores, so that no operation waits for the slowest core; each result is computed in one.
    """
    cores = torch.get_num_threads()
    workers = min(cores, units)
    if device.type != "cpu" or workers < 2:
        yield _in_turn
        return
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(cores // workers,)) as pool:
            yield lambda function, items: list(pool.map(function, items))
    finally:
        torch.set_num_threads(cores)  # what a thread sets holds for all that begin later


def _in_turn(function: Callable, items: list) -> list:
    return [function(item) for item in items]


def _units(pairs: list[Pair], factor: int, limit: Limits) -> list[list[Pair]]:
    """Return neighbouring classes together as far as they may be, each in one list."""
    units, filled = [], 0
    for pair in pairs:
        share = max(len(pair.real) / limit.images, factor**2 * pair.stored / limit.in_graph)
        adjacent = bool(units) and units[-1][-1].rows.stop == pair.rows.start
        if limit.together and adjacent and filled + share <= 1:
            units[-1].append(pair)
            filled += share
        else:
            units.append([pair])
            filled = share
    return units


@dataclass(frozen=True, eq=False)
class _Step:
    """What is the same for all classes of a step."""

    network: nn.Module
    matching: Matching
    to_inputs: Callable[[Tensor], Tensor]
    factor: int

    def of_real(self, unit: list[Pair], part: slice) -> Statistics:
        """Return the statistics of some real images of each class."""
        inputs = [applied(pair.real[part], pair.draw) for pair in unit]
        return self._statistics(unit, inputs, [len(pair.real) for pair in unit], graph=False)

    def of_synthetic(self, unit: list[Pair], stored: list[Tensor], graph: bool) -> Statistics:
        """Return the statistics of some stored images of each class."""
        parts = zip(stored, unit, strict=True)
        inputs = [applied(self.to_inputs(part), pair.draw) for part, pair in parts]
        return self._statistics(unit, inputs, [self.factor**2 * pair.stored for pair in unit], graph)

    def _statistics(self, unit: list[Pair], inputs: list[Tensor], totals: list[int], graph: bool) -> Statistics:
        """Return the statistics of inputs, a part of so many images of each class."""
        sizes, together = [len(part) for part in inputs], torch.cat(inputs)
        labels = [torch.full((n,), pair.label, device=together.device) for n, pair in zip(sizes, unit, strict=True)]
        weights = [together.new_full((n,), 1 / total) for n, total in zip(sizes, totals, strict=True)]
        batch = ClassBatch(together, torch.cat(labels), torch.cat(weights), sizes)
        return self.matching.statistics(self.network, batch, graph)

    def loss(self, unit: list[Pair], real: Statistics, synthetic: Statistics) -> Tensor:
        """Return the matching loss, summed over the classes."""
        counts = [len(pair.real) for pair in unit], [self.factor**2 * pair.stored for pair in unit]
        device = next(iter(real.values())).device
        return self.matching.loss(real, synthetic, *(torch.tensor(numbers, device=device) for numbers in counts)).sum()


def _unit_gradient(step: _Step, images: Tensor, limit: Limits, unit: list[Pair]) -> tuple[Tensor, Tensor]:
    """Return the loss over some classes and its gradient in their synthetic images."""
    alone = len(unit) == 1
    pieces = range(0, len(unit[0].real), limit.images) if alone else [0]
    real = _summed(step.of_real(unit, slice(start, start + limit.images if alone else None)) for start in pieces)
    own = images[unit[0].rows.start : unit[-1].rows.stop]
    if not alone or step.factor**2 * len(own) <= limit.in_graph:
        leaf = own.clone().requires_grad_()
        stored = leaf.split([pair.stored for pair in unit])
        loss = step.loss(unit, real, step.of_synthetic(unit, stored, graph=True))
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]
    # The loss depends on all images of the class through their statistics alone: take these first, piece by piece,
    # then the loss's gradient in them, and pull that back through each piece.
    parts = own.split(max(1, limit.in_graph // step.factor**2))
    totals = _summed(step.of_synthetic(unit, [part], graph=False) for part in parts)
    totals = {name: value.requires_grad_() for name, value in totals.items()}
    loss = step.loss(unit, real, totals)
    pull = torch.autograd.grad(loss, list(totals.values()), allow_unused=True, materialize_grads=True)
    pulled = [_pulled_back(step, unit, part, dict(zip(totals, pull, strict=True))) for part in parts]
    return loss.detach(), torch.cat(pulled)


def _pulled_back(step: _Step, unit: list[Pair], part: Tensor, pull: Statistics) -> Tensor:
    """Return the gradient in some images of a class that `pull`, the gradient in its statistics, comes to."""
    leaf = part.clone().requires_grad_()
    found = step.of_synthetic(unit, [leaf], graph=True)
    return torch.autograd.grad([found[name] for name in pull], leaf, list(pull.values()))[0]


def _summed(parts: Iterator[Statistics]) -> Statistics:
    total = next(parts)
    for part in parts:
        total = {name: total[name] + part[name] for name in total}
    return total
