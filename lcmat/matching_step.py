"""One step of matching: the loss over all classes and its gradient in the synthetic images.

Classes do not depend on each other. On a CPU each core takes one class after another, its images in pieces that stay
in the cache; on a GPU as many classes as fit pass through the network at once. A class with more images than fit is
summed in pieces, twice where it is synthetic, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lcmat.class_statistics import Statistics
from lcmat.matching import Matching
from lcmat.siamese import Draw, applied
from lcmat.synthetic import decoded

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


def matching_gradient(
    network: nn.Module,
    matching: Matching,
    images: Tensor,
    pairs: list[Pair],
    to_inputs: Callable[[Tensor], Tensor],
    factor: int = 1,
    spread: Callable[..., list] | None = None,
    limit: Limits | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the matching loss, summed over the classes, and its gradient in the synthetic images (m, c, h, w).

    to_inputs: how stored images, decoded, become what the network reads. spread: maps a function over lists, perhaps
    in threads (`spreading`). network: in evaluation mode; no image's output may depend on other images.
    """
    limit = limit or limits(images.device, images.shape[1:])
    work = partial(_unit_gradient, network, matching, images, to_inputs, factor, limit)
    units = _units(pairs, factor, limit)
    results = (spread or _in_turn)(work, units)
    gradient = torch.zeros_like(images)
    for unit, (_, part) in zip(units, results, strict=True):
        gradient[unit[0].rows.start : unit[-1].rows.stop] = part
    return sum(loss for loss, _ in results), gradient


@contextmanager
def spreading(device: torch.device, units: int) -> Iterator[Callable[..., list]]:
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
        synthetic = (pair.rows.stop - pair.rows.start) * factor**2
        share = max(len(pair.real) / limit.images, synthetic / limit.in_graph)
        adjacent = bool(units) and units[-1][-1].rows.stop == pair.rows.start
        if limit.together and adjacent and filled + share <= 1:
            units[-1].append(pair)
            filled += share
        else:
            units.append([pair])
            filled = share
    return units


def _unit_gradient(network, matching, images, to_inputs, factor, limit, unit: list[Pair]) -> tuple[Tensor, Tensor]:
    """Return the loss over some classes and its gradient in their synthetic images."""
    labels = torch.tensor([pair.label for pair in unit], device=images.device)
    sizes = [len(pair.real) for pair in unit]
    stored = [pair.rows.stop - pair.rows.start for pair in unit]
    own = images[unit[0].rows.start : unit[-1].rows.stop]
    counts = [torch.tensor(numbers, device=images.device) for numbers in (sizes, [n * factor**2 for n in stored])]

    def statistics(inputs: Tensor, numbers: list[int], totals: Tensor, graph: bool) -> Statistics:
        """Take the statistics of inputs, `numbers` of each class, that are part of `totals`."""
        each = torch.tensor(numbers, device=inputs.device)
        weights = (1 / totals.to(inputs.dtype)).repeat_interleave(each)
        return matching.statistics(network, inputs, labels.repeat_interleave(each), weights, numbers, graph)

    def augmented_real(part: slice) -> Tensor:
        return torch.cat([applied(pair.real[part], pair.draw) for pair in unit])

    def prepared(stored_images: Tensor, numbers: list[int]) -> Tensor:
        parts = zip(stored_images.split(numbers), unit, strict=True)
        return torch.cat([applied(to_inputs(decoded(part, factor)), pair.draw) for part, pair in parts])

    def of_real(part: slice) -> Statistics:
        inputs = augmented_real(part)
        return statistics(inputs, sizes if len(unit) > 1 else [len(inputs)], counts[0], graph=False)

    def of_synthetic(part: Tensor, graph: bool) -> Statistics:
        inputs = prepared(part, stored if len(unit) > 1 else [len(part)])
        numbers = [n * factor**2 for n in stored] if len(unit) > 1 else [len(inputs)]
        return statistics(inputs, numbers, counts[1], graph)

    pieces = [slice(None)] if len(unit) > 1 else [slice(s, s + limit.images) for s in range(0, sizes[0], limit.images)]
    real = _summed(of_real(piece) for piece in pieces)
    if len(unit) > 1 or counts[1][0] <= limit.in_graph:
        leaf = own.clone().requires_grad_()
        loss = matching.loss(real, of_synthetic(leaf, graph=True), *counts).sum()
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]
    # The loss depends on all images of the class through their statistics alone: take these first, piece by piece,
    # then the loss's gradient in them, and pull that back through each piece.
    parts = own.split(max(1, limit.in_graph // factor**2))
    with torch.no_grad():
        totals = _summed(of_synthetic(part, graph=False) for part in parts)
    totals = {name: value.requires_grad_() for name, value in totals.items()}
    loss = matching.loss(real, totals, *counts).sum()
    pull = torch.autograd.grad(loss, list(totals.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat([_pulled_back(of_synthetic, part, list(totals), pull) for part in parts])


def _summed(parts: Iterator[Statistics]) -> Statistics:
    total = next(parts)
    for part in parts:
        total = {name: total[name] + part[name] for name in total}
    return total


def _pulled_back(of_synthetic: Callable, part: Tensor, names: list[str], pull: tuple[Tensor, ...]) -> Tensor:
    leaf = part.clone().requires_grad_()
    found = of_synthetic(leaf, graph=True)
    return torch.autograd.grad([found[name] for name in names], leaf, list(pull))[0]
