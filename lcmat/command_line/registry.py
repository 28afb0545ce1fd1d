"""The methods and networks that names stand for, as the command lines pass them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lcmat.condensation import Condenser
from lcmat.data import Dataset
from lcmat.selection import Method
from lcmat.selection.sampler import Sampler


@dataclass(frozen=True)
class Registry:
    """The methods and networks that names stand for.

    method: returns a method of selection or condensation, or a sampler, by its name. methods: all names of selection;
    samplers: of those that draw for each epoch. build: called
    as build(name, num_classes, channels, size), size a number or (height, width). networks: all names. revision: called
    as revision(name, channels, size), returns which network of that name it is, counted from 1.
    """

    method: Callable[[str], Method | Condenser | Sampler]
    methods: tuple[str, ...]
    build: Callable[..., torch.nn.Module]
    networks: tuple[str, ...]
    revision: Callable[[str, int, int], int] = lambda *_: 1
    samplers: tuple[str, ...] = ()

    def network(self, name: str, dataset: Dataset) -> torch.nn.Module:
        """Return an untrained network for the images of a dataset."""
        return self.build(name, dataset.num_classes, dataset.image_shape[0], dataset.image_size)

    def network_revision(self, name: str, dataset: Dataset) -> int:
        """Return which network of its name `network` returns for the images of a dataset."""
        return self.revision(name, dataset.image_shape[0], dataset.image_size)
