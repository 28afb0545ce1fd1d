"""The methods and networks that names stand for, as the command lines pass them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lcmat.condensation.condenser import Condenser
from lcmat.data.splits import Dataset
from lcmat.selection.method import Method


@dataclass(frozen=True)
class Registry:
    """The methods and networks that names stand for.

    method: returns a method of selection or condensation by its name. methods: all names of selection. build: called
    as build(name, num_classes, channels, size). networks: all names.
    """

    method: Callable[[str], Method | Condenser]
    methods: tuple[str, ...]
    build: Callable[..., torch.nn.Module]
    networks: tuple[str, ...]

    def network(self, name: str, dataset: Dataset) -> torch.nn.Module:
        """Return an untrained network for the images of a dataset."""
        channels, size, _ = dataset.image_shape
        return self.build(name, dataset.num_classes, channels, size)
