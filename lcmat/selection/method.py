"""What a selection method is: a pure function that picks, and what the pipeline must know of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from lcmat.errors import UserError, suggest
from lcmat.method_options import checked_options, like_defaults
from lcmat.selection.context import IMAGES, NETWORK, TRAINING, TRAINING_RECIPE
from lcmat.signals.needs import GRADIENTS, OF_SIGNALS

# What a Context holds; everything else that a method may need is in the signals (`lcmat.signals.needs`).
CONTEXT_NEEDS = frozenset({IMAGES, NETWORK, TRAINING})
KNOWN_NEEDS = OF_SIGNALS | CONTEXT_NEEDS | {TRAINING_RECIPE}


@dataclass(frozen=True)
class Picks:
    """What a method chose from one group of samples.

    indices: (m,) positions in the group, in the order chosen.
    weights: (m,) or None. costs: (m,) the method's cost after each pick, or None if it has none.
    transfers: (r, 3) for weights that are cluster sizes, how they came about (see `facility_location.Cover`): from
    these follow the weights after fewer picks.
    bound: a lower bound of the cost over all sets of as many samples, or None.
    cost_error: the standard error of the last cost, if that is an estimate.
    nested: whether the picks for a smaller budget would be the first of these.
    """

    indices: Tensor
    weights: Tensor | None = None
    costs: Tensor | None = None
    transfers: Tensor | None = None
    bound: float | None = None
    cost_error: float = 0.0
    nested: bool = True


@dataclass(frozen=True)
class Method:
    """A selection method: a pure function and what the pipeline must know of it.

    pick: called as pick(signals, budget, generator, **options) for each group of samples; returns Picks. A group is a
    class, or everything if selection is not balanced.
    needs: what it reads beside the labels: of Signals (`lcmat.signals.needs`), and IMAGES, NETWORK or TRAINING of a
    Context, which pick then gets as context=… (TRAINING_RECIPE: not only its untrained networks, but how to train
    them). A need that nothing holds is a UserError when the method is defined.
    nested: whether its picks for a smaller budget are the first of those for a larger one.
    picks_all_groups: pick is called once, as pick(signals, budgets, generator, groups=…, **options), with a list of
    positions for each group and the budgets in their order, and returns a list of Picks: for methods that look at all
    groups at once.
    resolve: called as resolve(classes, features, **options) before any work; returns the options with defaults that
    depend on the last layer's size filled in, and refuses impossible ones. A layer without bias counts as one with a
    feature less: both have as many parameters, C(d+1).
    ignores_budget: whether it takes all samples whatever the budget.
    chooses_size: whether the budget is only where it starts, and how many samples it takes is part of its answer.
    needs_under: called with the options given, returns what it needs under these, in place of `needs`.
    unrecorded: values of options that a configuration leaves out, so that it is that of the records made before there
    was such an option.
    weighted: whether its picks have weights, where it has no option `weights` to say so.
    released: what makes it compute as the code released with LCMat does (methods/README.md): options, and how its
    signals are taken, by the names of `lcmat.signals.Taking.described`, and weights_by.
    """

    name: str
    pick: Callable[..., Picks]
    needs: tuple[str, ...] = GRADIENTS
    nested: bool = True
    picks_all_groups: bool = False
    resolve: Callable[..., dict[str, object]] | None = None
    ignores_budget: bool = False
    chooses_size: bool = False
    needs_under: Callable[[Mapping[str, object]], tuple[str, ...]] | None = None
    unrecorded: Mapping[str, object] = field(default_factory=dict, hash=False)
    weighted: bool = False
    released: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for need in self.needs:
            if need not in KNOWN_NEEDS:
                raise UserError(f"method {self.name} needs {need!r}, which nothing holds{suggest(need, KNOWN_NEEDS)}")

    def weighs(self, options: Mapping[str, object]) -> bool:
        """Tell whether its picks have weights under the options given."""
        return bool({**self.options, **options}.get("weights", self.weighted))

    def under(self, options: Mapping[str, object]) -> Method:
        """Return the method as it is under these options, all of its needs named."""
        return (
            self if self.needs_under is None else replace(self, needs=tuple(dict.fromkeys(self.needs_under(options))))
        )

    @property
    def options(self) -> dict[str, object]:
        """The method's own options with their defaults."""
        parameters = list(inspect.signature(self.pick).parameters.values())[3:]
        return {p.name: p.default for p in parameters if p.name not in ("groups", "context")}

    @property
    def fields(self) -> frozenset[str]:
        """What the method needs, "dynamics.margin" counting as dynamics."""
        return frozenset(need.partition(".")[0] for need in self.needs)

    @property
    def forms_gradients(self) -> bool:
        """Whether it reads all that gradients of the last layer are formed from."""
        return any({f"{of}features", f"{of}logits"} <= {*self.needs} for of in ("", "initialisations."))

    @property
    def needs_context(self) -> bool:
        """Whether the method reads more than signals."""
        return not CONTEXT_NEEDS.isdisjoint(self.fields)

    def resolved(self, classes: int, features: int, options: Mapping[str, object]) -> dict[str, object]:
        """Return all options of the method for a last layer of (classes, features); raise UserError for bad ones."""
        usual = self.options
        options = like_defaults(checked_options(self.name, usual, options), usual)
        return options if self.resolve is None else self.resolve(classes, features, **options)

    def recorded(self, classes: int, features: int, options: Mapping[str, object]) -> dict[str, object]:
        """Return all options as a configuration says them: as `resolved` does, without those that are `unrecorded`."""
        known = self.resolved(classes, features, options)
        return {k: v for k, v in known.items() if k not in self.unrecorded or v != self.unrecorded[k]}
