"""The inner loop of bilevel selection: a short full-batch training on a few samples, then its loss on all of them.

It runs hundreds of times on the same images, so these are normalised once and stay on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat import memory_limit
from lcmat.block_sizes import at_once
from lcmat.data import Split
from lcmat.errors import UserError
from lcmat.memory_limit import OF_A_MATRIX, fits
from lcmat.training import Compute
from lcmat.training.compute import evaluation_mode


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a split as networks take them, and their labels.

    inputs: (n, c, h, w) float32, normalised, channels last, on the device; None if they do not fit into the memory for
    what can be formed again (`lcmat.memory_limit`): then they are normalised whenever needed. labels: (n,) there.
    """

    split: Split
    compute: Compute
    labels: Tensor
    inputs: Tensor | None

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs and labels of the samples in `index`."""
        if self.inputs is None:
            images, labels, _ = next(iter(self.split.batches([index])))
            return self.compute.inputs(images), labels.to(self.compute.device)
        index = index.to(self.inputs.device)
        return self.inputs[index].contiguous(memory_format=torch.channels_last), self.labels[index]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and labels of all samples, in order."""
        if self.inputs is None:
            for images, labels, _ in self.split.batches(torch.arange(len(self.split)).split(self.at_once)):
                yield self.compute.inputs(images), labels.to(self.compute.device)
        else:
            yield from zip(self.inputs.split(self.at_once), self.labels.split(self.at_once), strict=True)

    @property
    def at_once(self) -> int:
        """How many images pass through a network at once."""
        return images_at_once(self.compute)


def images_at_once(compute: Compute) -> int:
    """Return how many images to pass through a network at once."""
    return at_once().images if compute.device.type == "cpu" else at_once().images_elsewhere


def prepared(split: Split, compute: Compute) -> Images:
    """Normalise all images of the split, if they fit."""
    shape = (len(split), *split.image_shape)
    count = 4 * len(split) * split.image_shape[0] * split.image_shape[1] * split.image_shape[2]
    labels = split.labels.to(compute.device)
    if not fits(count, OF_A_MATRIX, compute.device):
        return Images(split, compute, labels, None)
    inputs = torch.empty(shape, device=compute.device, memory_format=torch.channels_last)
    for images, _, positions in split.batches(torch.arange(len(split)).split(images_at_once(compute))):
        inputs[positions[0] : positions[-1] + 1] = compute.inputs(images)
    return Images(split, compute, labels, inputs)


def train_full_batch(
    network: nn.Module, inputs: Tensor, labels: Tensor, compute: Compute, *, steps: int, lr: float, seed: int
) -> None:
    """Take `steps` steps of Adam on the mean cross-entropy of all samples at once, in place.

    Their gradient is summed in pieces, so that memory does not grow with the samples, unless the network has BatchNorm,
    which takes them together (`check_memory`). seed: for dropout and the like. A loss that diverges is not looked for:
    it shows in the loss on all samples.
    """
    network.to(compute.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    at_once = len(labels) if _takes_all_together(network) else images_at_once(compute)
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            for some, wanted in zip(inputs.split(at_once), labels.split(at_once), strict=True):
                with compute.autocast():
                    logits = network(some)
                (F.cross_entropy(logits.float(), wanted, reduction="sum") / len(labels)).backward()
            optimizer.step()


def _takes_all_together(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def check_memory(network: nn.Module, images: Images, count: int) -> None:
    """Raise UserError if a network with BatchNorm keeps more of so many samples for their gradient than is free."""
    if not _takes_all_together(network):
        return
    network = network.to(images.compute.device, memory_format=torch.channels_last).train()
    few, more = (_bytes_kept(network, images.take(torch.arange(n))[0], images.compute) for n in (2, 4))
    size = (more - few) / 2 * count
    if size > memory_limit.free(images.compute.device):
        raise UserError(
            f"{count:,} samples at once need {size / 1e9:.0f} GB with BatchNorm, which is more than is free; "
            f"give a network without (--inner_model), or a smaller --init_size"
        )


def _bytes_kept(network: nn.Module, inputs: Tensor, compute: Compute) -> int:
    """Return how many bytes the forward pass keeps for the gradient."""
    kept = 0

    def count(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value), compute.autocast():
        network(inputs)
    return kept


@torch.no_grad()
def mean_loss(network: nn.Module, images: Images) -> float:
    """Return the mean cross-entropy over all samples, in evaluation mode."""
    total = torch.zeros((), dtype=torch.float32 if images.compute.device.type == "mps" else torch.float64)
    total = total.to(images.compute.device)
    with evaluation_mode(network):
        for inputs, labels in images.batches():
            with images.compute.autocast():
                logits = network(inputs)
            total += F.cross_entropy(logits.float(), labels, reduction="sum")
    return float(total) / len(images.labels)
