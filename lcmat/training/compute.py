"""Where and in which precision networks run, and what a network predicts of a split."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lcmat import distributed
from lcmat.alive import Progress
from lcmat.augmentation import normalise
from lcmat.data import Split

TEST_BATCH = 500


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


def predictions(network: nn.Module, split: Split, compute: Compute, batch: int = TEST_BATCH) -> Iterator:
    """Yield logits, labels and positions batch by batch, in order and in evaluation mode."""
    network.to(compute.device, memory_format=torch.channels_last)
    parts = torch.arange(len(split)).split(batch)
    bar = Progress(split.batches(parts), total=len(parts), desc="evaluating", disable=quiet(parts))
    with evaluation_mode(network):
        for images, labels, positions in bar:
            with compute.autocast():
                logits = network(compute.inputs(images))
            yield logits, labels.to(compute.device), positions


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


def quiet(parts: Sequence) -> bool:
    """Tell whether a pass in so many parts shows no progress: a bar for a few flickers, and one process shows it."""
    return len(parts) < 10 or distributed.rank() > 0
