"""Networks of every kind of layer, and matching problems of two or three classes on them."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat.augmentation.siamese import NONE, drawn
from lcmat.condensation.matching import curvature_matching, feature_matching, gradient_matching
from lcmat.condensation.matching_step import Pair

CLASSES = 3


class Tiny(nn.Module):
    """Two convolutions with a normalisation, and a linear layer: every kind of weight."""

    def __init__(self, inplace: bool = False, twice: bool = False, padding: int | str = 1, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=padding)
        self.norm = nn.GroupNorm(4, 4)
        self.second = nn.Conv2d(4, 4, 3, stride=1 if twice else 2, padding=1, groups=2)
        self.act = nn.ReLU(inplace=inplace)
        self.twice = twice
        self.head = nn.Linear(4, CLASSES, bias=bias)

    def embed(self, x: Tensor) -> Tensor:
        """The input of the head."""
        x = self.act(self.norm(self.act(self.first(x))))
        x = self.act(self.second(x))
        if self.twice:
            x = self.act(self.second(x))
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.embed(x))


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # small images are enlarged
        torch.manual_seed(0)
        return build().double().eval()


layers_of = pytest.mark.parametrize("layers", ["all", "convolutions"])


def batch(sizes: list[int], size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images of classes 0, 1, …, so many of each, their labels, and weights 1/n."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(sum(sizes), 2, size, size, generator=generator, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    weights = torch.cat([torch.full((n,), 1 / n, dtype=torch.float64) for n in sizes])
    return images, labels, weights


def per_sample_gradients(network: nn.Module, images: Tensor, labels: Tensor, names: list[str]) -> dict[str, Tensor]:
    """One backward pass for each image: (n, …) for each parameter."""
    parameters = dict(network.named_parameters())
    rows = {name: [] for name in names}
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(image[None]), label[None])
        for name, value in zip(names, torch.autograd.grad(loss, [parameters[n] for n in names]), strict=True):
            rows[name].append(value)
    return {name: torch.stack(values) for name, values in rows.items()}


MATCHINGS = {
    "features": feature_matching(),
    "cosine": gradient_matching("cosine"),
    "squared": gradient_matching("squared", "convolutions"),
    "curvature": curvature_matching(2.0),
    "curvature, BackPACK": curvature_matching(2.0, use_backpack=True),
}


def problem(strategy=NONE, stored=(2, 1, 3), real=(5, 4, 6), size: int = 4) -> tuple[Tensor, list[Pair]]:
    """Synthetic images (m, 2, size, size) and what they are matched with; labels 2, 0, 1."""
    images, *_ = batch(list(stored), size, seed=3)
    inputs, *_ = batch(list(real), size, seed=4)
    draw = torch.Generator().manual_seed(5)
    ends = np.cumsum(stored).tolist()
    rows = [slice(end - n, end) for end, n in zip(ends, stored, strict=True)]
    parts = zip((2, 0, 1), inputs.split(list(real)), rows, strict=True)
    return images, [Pair(label, x, where, drawn(strategy, draw)) for label, x, where in parts]
