"""What a condensation method is, and the task that it is given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lcmat.condensation.synthetic import Synthetic, class_positions, drawn_from_classes
from lcmat.data import Split
from lcmat.method_options import checked_options, like_defaults
from lcmat.training import Compute


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
    ignores_budget: bool = False

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


def real_batch(task: Task, batch: int, draw: torch.Generator) -> list[Tensor]:
    """Return positions of up to `batch` random images of each class, all of a smaller class."""
    return drawn_from_classes(task.positions, [min(batch, len(own)) for own in task.positions], draw)
