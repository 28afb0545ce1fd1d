"""What the few methods read that need more than signals: the images, a network, a way to train one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from lcmat.data import Split
from lcmat.training import Compute, Recipe

# What a method may need of a context; TRAINING is its untrained networks, TRAINING_RECIPE also how to train them.
IMAGES, NETWORK, TRAINING, TRAINING_RECIPE = "images", "network", "training", "training.recipe"


@dataclass(frozen=True, eq=False)
class Context:
    """The images behind the signals, and what can be computed on them.

    split: images and labels, in the order of the signals. compute: the device, precision and pixel statistics.
    network: the trained network that the signals come from; for methods that need NETWORK. fresh_network: called with a
    number, returns an untrained network, another for each number; recipe: how to train it. For methods that need
    TRAINING or TRAINING_RECIPE. checkpoint: a file of its own that a long selection may keep its state in; log: a file
    that it may write its course to, and that stays; resume: whether to go on from what is there; took: to be called
    with the seconds of the work that is gone on from.
    """

    split: Split
    compute: Compute
    network: nn.Module | None = None
    fresh_network: Callable[[int], nn.Module] | None = None
    recipe: Recipe | None = None
    checkpoint: Path | None = None
    log: Path | None = None
    resume: bool = False
    took: Callable[[float], None] = lambda seconds: None

    def __getitem__(self, index: Tensor) -> Context:
        """Return the context of the samples in `index`."""
        return replace(self, split=self.split.take(index))
