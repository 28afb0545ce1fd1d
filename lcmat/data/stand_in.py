"""Published datasets without their images, for plans: as many labels of each class, of images of the same shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcmat.data.splits import Dataset, TensorSplit
from lcmat.data.variants import varied

# Images of each class, for training and for testing.
Counts = tuple[int, ...]
_MNIST: tuple[Counts, Counts] = (
    (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
)
_SVHN: tuple[Counts, Counts] = (
    (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
    (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
)
SHAPES: dict[str, tuple[tuple[int, int, int], tuple[Counts, Counts]]] = {
    "MNIST": ((1, 28, 28), _MNIST),
    "FashionMNIST": ((1, 28, 28), ((6000,) * 10, (1000,) * 10)),
    "SVHN": ((3, 32, 32), _SVHN),
    "CIFAR10": ((3, 32, 32), ((5000,) * 10, (1000,) * 10)),
    "CIFAR100": ((3, 32, 32), ((500,) * 100, (100,) * 100)),
    "TinyImageNet": ((3, 64, 64), ((500,) * 200, (50,) * 200)),
}
UNKNOWN = "not here"


@dataclass(frozen=True, eq=False)
class Blank(TensorSplit):
    """Labels, and black images that take no room."""

    def take(self, index: Tensor) -> Blank:
        """Return the split of the samples in `index`."""
        return blank(self.labels[torch.as_tensor(index, device=self.labels.device)], self.image_shape)

    def to(self, device: torch.device) -> Blank:
        """Return the split with its labels on `device`."""
        return blank(self.labels.to(device), self.image_shape)


def blank(labels: Tensor, shape: tuple[int, ...]) -> Blank:
    """Return black images of a shape (c, h, w) with labels (n,)."""
    return Blank(torch.zeros(1, dtype=torch.uint8, device=labels.device).expand(len(labels), *shape), labels)


@dataclass(frozen=True, eq=False)
class StandIn(Dataset):
    """What is known of a dataset that is not here. known_as: its fingerprint, where records tell."""

    known_as: str = UNKNOWN

    def fingerprint(self) -> str:
        """Return that of the records, or what is none."""
        return self.known_as


def stand_in(
    source: str,
    image_size: int | None,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    augmentation: str,
    variants: dict[str, float | None],
) -> Dataset:
    """Return a published dataset by name without its images; variants: as `varied` takes them."""
    (channels, height, width), counts = SHAPES[source]
    shape = (channels, image_size or height, image_size or width)
    train, test = (blank(torch.arange(len(each)).repeat_interleave(torch.tensor(each)), shape) for each in counts)
    classes = tuple(str(label) for label in range(len(counts[0])))
    return varied(StandIn(source, train, test, classes, *statistics, augmentation), **variants)
