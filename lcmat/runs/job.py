"""What one run is: a method, a size, a seed and the network that is trained at the end."""

from __future__ import annotations

from dataclasses import dataclass

from lcmat.condensation.condenser import Condenser
from lcmat.selection.method import Method


@dataclass(frozen=True)
class Run:
    """One cell of a table for one seed. Either a fraction or a budget.

    per_class: samples of each class, where the budget is that times the number of classes.
    """

    method: Method | Condenser
    seed: int
    fraction: float | None = None
    budget: int | None = None
    test_model: str | None = None  # None: the model that selects
    per_class: int | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs, "dynamics.margin" counting as dynamics."""
        return self.method.fields
