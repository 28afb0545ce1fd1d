"""The inner loop of bilevel selection: a short full-batch training on a few samples, then its loss on all of them.

It runs hundreds of times on the same images, so these are normalised once and stay on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat.data.splits import Split
from lcmat.memory import OF_A_MATRIX, fits
from lcmat.training import Compute, evaluation_mode

# Images at once in the pass over all of them.
PASS_IMAGES = 1000


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a split as networks take them, and their labels.

    inputs: (n, c, h, w) float32, normalised, channels last, on the device; None if they do not fit into the memory for
    what can be formed again (`lcmat.memory`): then they are normalised whenever they are needed. labels: (n,) there.
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
            for images, labels, _ in self.split.batches(torch.arange(len(self.split)).split(PASS_IMAGES)):
                yield self.compute.inputs(images), labels.to(self.compute.device)
        else:
            yield from zip(self.inputs.split(PASS_IMAGES), self.labels.split(PASS_IMAGES), strict=True)


def prepared(split: Split, compute: Compute) -> Images:
    """Normalise all images of the split, if they fit."""
    shape = (len(split), *split.image_shape)
    count = 4 * len(split) * split.image_shape[0] * split.image_shape[1] * split.image_shape[2]
    labels = split.labels.to(compute.device)
    if not fits(count, OF_A_MATRIX, compute.device):
        return Images(split, compute, labels, None)
    inputs = torch.empty(shape, device=compute.device, memory_format=torch.channels_last)
    for images, _, positions in split.batches(torch.arange(len(split)).split(PASS_IMAGES)):
        inputs[positions[0] : positions[-1] + 1] = compute.inputs(images)
    return Images(split, compute, labels, inputs)


def train_full_batch(
    network: nn.Module, inputs: Tensor, labels: Tensor, steps: int, lr: float, compute: Compute, seed: int
) -> None:
    """Take `steps` steps of Adam on the mean cross-entropy of all samples at once, in place.

    seed: for dropout and the like. A loss that diverges is not looked for: it shows in the loss on all samples.
    """
    network.to(compute.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for _ in range(steps):
            with compute.autocast():
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


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
