"""What a sampler is: a pure function that draws the samples of one epoch, anew for each while a network trains."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lcmat.method_options import checked_options, like_defaults
from lcmat.training import Draw


@dataclass(frozen=True, eq=False)
class Epoch:
    """What a sampler may know of an epoch.

    number: from 0; count: of all epochs. size: how many samples an epoch is to have. seed: of the training, from which
    all draws derive. labels: (n,) of all samples. losses: (n,) each sample's cross-entropy when it was last trained on,
    NaN before.
    """

    number: int
    count: int
    size: int
    seed: int
    labels: Tensor
    losses: Tensor


@dataclass(frozen=True)
class Sampler:
    """A method that draws the samples of each epoch anew.

    draw: called as draw(epoch, **options), returns a Draw; None: no draws, but everything, by as many optimiser steps
    as epochs of the budget would take. resolve: called as resolve(**options) before any work; returns the options, and
    refuses impossible ones. ignores_budget: whether how much it takes does not depend on a budget.
    """

    name: str
    draw: Callable[..., Draw] | None
    resolve: Callable[..., dict[str, object]] | None = None
    ignores_budget: bool = False
    # What is asked of a selection method: a sampler reads no signals.
    fields: frozenset[str] = frozenset()
    needs_context: bool = False

    def under(self, options: Mapping[str, object]) -> Sampler:
        """Return itself: no option changes what the method is."""
        return self

    @property
    def options(self) -> dict[str, object]:
        """The sampler's own options with their defaults."""
        parameters = [] if self.draw is None else list(inspect.signature(self.draw).parameters.values())[1:]
        return {p.name: p.default for p in parameters}

    def resolved(self, options: Mapping[str, object]) -> dict[str, object]:
        """Return all options; raise UserError for bad ones."""
        options = like_defaults(checked_options(self.name, self.options, options), self.options)
        return options if self.resolve is None else self.resolve(**options)
