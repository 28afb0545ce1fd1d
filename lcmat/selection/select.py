"""What all selection methods share: their description, budgets, the class-balanced wrapper and the resulting Subset."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcmat import seeds
from lcmat.errors import UserError, suggest
from lcmat.facility_location.incremental import Cover
from lcmat.files import write_atomically, write_text
from lcmat.memory_limit import limited
from lcmat.selection.context import Context
from lcmat.signals.signals import Signals

# What a Context holds; everything else that a method may need is in the signals.
CONTEXT_NEEDS = frozenset({"network", "training"})
# What methods need whose target is a validation split.
WITH_VALIDATION = ("features", "logits", "validation.features", "validation.logits")


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


def covered(cover: Cover, weights: bool) -> Picks:
    """Return the picks of a facility location, with cluster sizes as weights or without."""
    sizes = {"weights": cover.cluster_sizes, "transfers": cover.transfers} if weights else {}
    quality = {"costs": cover.costs, "bound": cover.bound, "cost_error": cover.cost_error}
    return Picks(cover.indices, nested=cover.exact, **quality, **sizes)


@dataclass(frozen=True)
class Method:
    """A selection method: a pure function and what the pipeline must know of it.

    pick: called as pick(signals, budget, generator, **options) for each group of samples; returns Picks. A group is a
    class, or everything if selection is not balanced.
    needs: what it reads beside the labels: fields of Signals ("dynamics.margin" is one entry of a field), and
    "network" or "training" of a Context, which pick then gets as context=… ("training.recipe": not only its untrained
    networks, but how to train them).
    nested: whether its picks for a smaller budget are the first of those for a larger one.
    joint: pick is called once, as pick(signals, budgets, generator, groups=…, **options), with a list of positions for
    each group and the budgets in their order, and returns a list of Picks: for methods that look at all groups at once.
    resolve: called as resolve(classes, features, **options) before any work; returns the options with defaults that
    depend on the last layer's size filled in, and refuses impossible ones.
    everything: whether it takes all samples whatever the budget.
    free_size: whether the budget is only where it starts, and how many samples it takes is part of its answer.
    further_needs: called with the options given, returns what it needs beside `needs` under these.
    """

    name: str
    pick: Callable[..., Picks]
    needs: tuple[str, ...] = ("features", "logits")
    nested: bool = True
    joint: bool = False
    resolve: Callable[..., dict[str, object]] | None = None
    everything: bool = False
    free_size: bool = False
    further_needs: Callable[[Mapping[str, object]], tuple[str, ...]] | None = None

    def under(self, options: Mapping[str, object]) -> Method:
        """Return the method as it is under these options, all of its needs named."""
        more = () if self.further_needs is None else self.further_needs(options)
        return replace(self, needs=tuple(dict.fromkeys((*self.needs, *more))))

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
    def needs_context(self) -> bool:
        """Whether the method reads more than signals."""
        return not CONTEXT_NEEDS.isdisjoint(self.fields)

    def resolved(self, classes: int, features: int, options: Mapping[str, object]) -> dict[str, object]:
        """Return all options of the method for a last layer of (classes, features); raise UserError for bad ones."""
        usual = self.options
        options = like_defaults(checked_options(self.name, usual, options), usual)
        return options if self.resolve is None else self.resolve(classes, features, **options)


def checked_options(owner: str, defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the defaults with what is given in their place; raise UserError for unknown names and wrong kinds."""
    for name in given:
        if name not in defaults:
            known = suggest(name, defaults) if defaults else "; it has no options"
            raise UserError(f"{owner} has no option '{name}'{known}")
        _check_type(f"{owner}: {name}", given[name], defaults[name])
    return {**defaults, **given}


def like_defaults(options: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return options with floats where the defaults are: 1 and 1.0 are one setting."""
    return {
        name: float(options[name]) if isinstance(usual, float) else options[name] for name, usual in defaults.items()
    }


def _check_type(name: str, value: object, default: object) -> None:
    """Raise UserError unless an option's value is of the kind of its default (None: the method itself checks it)."""
    kinds = {bool: (bool, "true or false"), int: (Integral, "a whole number"), float: (Real, "a number")}
    kind, words = kinds.get(type(default), (object, ""))
    if not isinstance(value, kind) or (kind is not bool and kind is not object and isinstance(value, bool)):
        raise UserError(f"{name} must be {words}, not {value!r}")


@dataclass(frozen=True, eq=False)
class Subset:
    """Chosen samples, class by class and within a class in the order chosen (unbalanced: in the order chosen).

    indices: (m,) int64, positions in the signals. rank: (m,) int64, position within the class (unbalanced: overall).
    weights: (m,) float32 or None. classes: (m,) int64 labels of the chosen.
    class_sizes: (C,) int64, how many samples of each class there were to choose from.
    costs: (m,) float64, the method's cost in the group after each pick, or None.
    transfers: (r, 3) int64 or None: weights that are cluster sizes, as positions in this subset of a pick and of the
    one that it took samples from (−1: none), and how many.
    bound: no selection of as many samples (of each class, if balanced) has a smaller cost than this; or None.
    cost_error: the standard error of `cost`, where that is estimated from a sample; else 0.
    """

    indices: np.ndarray
    rank: np.ndarray
    weights: np.ndarray | None
    classes: np.ndarray
    class_sizes: np.ndarray
    method: str
    balanced: bool = True
    nested: bool = True
    costs: np.ndarray | None = None
    transfers: np.ndarray | None = None
    bound: float | None = None
    cost_error: float = 0.0

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def cost(self) -> float | None:
        """L(S), summed over the classes if each was covered by itself (LCMat Eq. 11)."""
        if self.costs is None:
            return None
        last = self.rank == np.bincount(self._groups())[self._groups()] - 1
        return float(self.costs[last].sum())

    def prefix(self, fraction: float | None = None, *, budget: int | Sequence[int] | None = None) -> Subset:
        """Return the selection for a smaller fraction or budget, class by class, of a method whose picks are nested.

        Raises UserError if picks of the method are not nested, or if this subset holds too few samples.
        """
        if not self.nested:
            raise UserError(f"the picks of this {self.method} selection are not nested; select the smaller set anew")
        sizes = self.class_sizes if self.balanced else self.class_sizes.sum(keepdims=True)
        wanted = class_budgets(sizes, fraction=fraction, budget=budget)
        have = np.bincount(self._groups(), minlength=len(wanted))
        if (wanted > have).any():
            what = f"a fraction of {fraction:g}" if budget is None else f"a budget of {int(wanted.sum())}"
            raise UserError(f"this subset of {len(self)} samples is smaller than {what}")
        return self._keep(self.rank < wanted[self._groups()])

    def _groups(self) -> np.ndarray:
        return self.classes if self.balanced else np.zeros_like(self.classes)

    def _keep(self, mask: np.ndarray) -> Subset:
        arrays = ("indices", "rank", "classes", "costs")
        kept = {name: getattr(self, name)[mask] for name in arrays if getattr(self, name) is not None}
        if self.transfers is not None:
            # A pick takes samples from earlier picks only, so whoever lost some to a pick that is kept is kept, too.
            transfers = self.transfers[mask[self.transfers[:, 0]]]
            position = np.append(np.cumsum(mask) - 1, -1)  # the last entry is that of "none"
            transfers = np.column_stack([position[transfers[:, 0]], position[transfers[:, 1]], transfers[:, 2]])
            kept |= {"transfers": transfers, "weights": _cluster_sizes(transfers, int(mask.sum()))}
        return replace(self, bound=self.bound if mask.all() else None, **kept)  # fewer samples have another optimum

    def save(self, path: Path) -> None:
        """Write the subset as .npz, atomically; absent arrays are left out."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name) is not None}
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def save_text(self, path: Path) -> None:
        """Write the indices as text, one a line, in their order."""
        write_text(path, "".join(f"{index}\n" for index in self.indices))

    @staticmethod
    def load(path: Path) -> Subset:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            fields = {name: data[name] for name in data.files}
        for name in ("method", "balanced", "nested", "bound", "cost_error"):
            if name in fields:
                fields[name] = fields[name].item()
        return Subset(weights=fields.pop("weights", None), **fields)


def _cluster_sizes(transfers: np.ndarray, count: int) -> np.ndarray:
    sizes = np.zeros(count + 1)  # the last entry is that of "none"
    np.add.at(sizes, transfers[:, 0], transfers[:, 2])
    np.subtract.at(sizes, transfers[:, 1], transfers[:, 2])
    return sizes[:count].astype(np.float32)


def select_with(
    method: Method,
    signals: Signals,
    *,
    fraction: float | None = None,
    budget: int | Sequence[int] | None = None,
    balanced: bool = True,
    seed: int = 0,
    context: Context | None = None,
    memory: int | str | None = None,
    **options: object,
) -> Subset:
    """Select a subset of the samples that `signals` describe; see `methods.select` for the parameters."""
    with limited(memory):
        return _selected(method, signals, fraction, budget, balanced, seed, context, options)


def _selected(method, signals, fraction, budget, balanced, seed, context, options) -> Subset:
    _check_needs(method, signals, context)
    widths = (0 if m is None else m.shape[1] for m in (signals.logits, signals.features))
    options = method.resolved(*widths, options)
    labels = signals.labels
    if not len(labels):
        raise UserError("there are no samples to select from")
    classes = signals.logits.shape[1] if signals.logits is not None else int(labels.max()) + 1
    class_sizes = torch.bincount(labels, minlength=classes).cpu().numpy()
    if method.everything:
        fraction, budget = 1.0, None
    if balanced:
        budgets = class_budgets(class_sizes, fraction=fraction, budget=budget)
        # What is free in its size may go beyond the classes that it starts from.
        wanted = class_sizes if method.free_size else budgets
        groups = {c: (labels == c).nonzero()[:, 0] for c, size in enumerate(wanted) if size}
    else:
        budgets = class_budgets(np.array([len(labels)]), fraction=fraction, budget=budget)
        groups = {0: torch.arange(len(labels), device=labels.device)}
    budgets = [int(budgets[number]) for number in groups]
    if method.joint:
        more = {"context": context} if method.needs_context else {}
        generator = seeds.generator(seed, "select")
        picks = method.pick(signals, budgets, generator, groups=list(groups.values()), **more, **options)
    else:
        picks = _each(method, signals, groups, budgets, balanced, seed, context, options)
    parts = [replace(p, indices=g[p.indices.to(g.device)]) for p, g in zip(picks, groups.values(), strict=True)]
    return _join(method, parts, labels, class_sizes, balanced)


def _each(method, signals, groups, budgets, balanced, seed, context, options) -> list[Picks]:
    """Return the picks of each group, one group after the other."""
    # Silent where it takes no time, or output is no terminal.
    quiet = None if len(signals) >= 10_000 and len(groups) > 1 else True
    bar = tqdm(groups.items(), desc=method.name, disable=quiet, leave=False)
    picks = []
    for (number, group), size in zip(bar, budgets, strict=True):
        part = signals if len(group) == len(signals) else signals[group]  # a copy may be gigabytes
        if balanced and "validation" in method.fields:
            part = replace(part, validation=_validation_of(signals, number))
        more = {"context": context[group]} if method.needs_context else {}
        picks.append(method.pick(part, size, seeds.generator(seed, "select", number), **more, **options))
    return picks


def _validation_of(signals: Signals, label: int) -> Signals:
    """Return the validation samples of one class."""
    own = (signals.validation.labels == label).nonzero()[:, 0]
    if not len(own):
        raise UserError(f"the validation split has no sample of class {label}; enlarge it, or select unbalanced")
    return signals.validation[own]


def class_budgets(
    sizes: np.ndarray, *, fraction: float | None = None, budget: int | Sequence[int] | None = None
) -> np.ndarray:
    """Return how many samples to take of each class.

    A fraction f takes max(1, round(f · n_c)) of each class that has samples, with Python's rounding, and warns where
    that raises a share that rounds to nothing. A budget is met exactly and shared in proportion to the class sizes
    (largest remainders), at least one each; or it is given class by class. Raises UserError for anything impossible,
    or unless just one is given.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    if (fraction is None) == (budget is None):
        raise UserError("give either a fraction or a budget")
    if isinstance(budget, Sequence | np.ndarray) and not isinstance(budget, str):
        return _of_each(sizes, budget)
    if fraction is not None:
        check_fraction(fraction)
        raised = int(((sizes > 0) & (np.round(fraction * sizes) == 0)).sum())
        if raised:
            warnings.warn(
                f"a fraction of {fraction:g} rounds to no sample in {raised} of {len(sizes)} groups; one is taken",
                stacklevel=2,
            )
        return _rounded(fraction, sizes)
    if not isinstance(budget, Integral):
        raise UserError(f"the budget must be a whole number of samples, not {budget!r}")
    nonempty = int((sizes > 0).sum())
    if not 1 <= budget <= sizes.sum():
        raise UserError(f"the budget must be between 1 and {sizes.sum()}, the number of samples, not {budget}")
    if budget < nonempty:
        raise UserError(
            f"a budget of {budget} cannot hold one sample of each of {nonempty} classes; raise it or select unbalanced"
        )
    return _apportion(sizes, budget)


def _of_each(sizes: np.ndarray, budgets: Sequence[int]) -> np.ndarray:
    """Check and return a budget that is given class by class."""
    if len(budgets) != len(sizes):
        raise UserError(f"the budget has {len(budgets)} numbers for {len(sizes)} classes; give one for each, or a sum")
    for label, (size, budget) in enumerate(zip(sizes.tolist(), budgets, strict=True)):
        if not isinstance(budget, Integral) or not 0 <= budget <= size:
            raise UserError(f"{budget!r} samples are asked for of class {label}, which has {size}; ask for fewer")
    if not sum(budgets):
        raise UserError("the budget is 0 for every class; ask for a sample at least")
    return np.array(budgets, dtype=np.int64)


def _apportion(sizes: np.ndarray, budget: int) -> np.ndarray:
    shares = budget * sizes / sizes.sum()
    counts = np.maximum(np.floor(shares).astype(np.int64), sizes > 0)
    while counts.sum() != budget:  # at most one step for each class
        short = counts.sum() < budget
        gap = (
            np.where(counts < sizes, shares - counts, -np.inf) if short else np.where(counts > 1, counts - shares, -1e9)
        )
        counts[gap.argmax()] += 1 if short else -1
    return counts


def _rounded(fraction: float, sizes: np.ndarray) -> np.ndarray:
    return np.array([max(1, round(fraction * int(n))) if n else 0 for n in sizes], dtype=np.int64)


def check_fraction(fraction: float) -> None:
    """Raise UserError unless 0 < fraction ≤ 1."""
    if not 0 < fraction <= 1:
        raise UserError(f"a fraction must lie above 0 and at most at 1, not {fraction:g}")


def _check_needs(method: Method, signals: Signals, context: Context | None) -> None:
    """Raise UserError that says what the method needs and was not given."""
    for need in method.needs:
        if need.partition(".")[0] in CONTEXT_NEEDS:
            missing = _missing_of_context(need, context, len(signals))
            if missing:
                raise UserError(f"{method.name} needs more than signals: {missing}")
            continue
        field, _, entry = need.partition(".")
        if not _holds(getattr(signals, field), entry):
            what = f"{field} with {entry}" if entry else field
            raise UserError(f"{method.name} needs {what}, which the signals do not hold; give Signals({field}=…)")


def _holds(value: object, entry: str) -> bool:
    """Tell whether a field of signals is there, and its entry if one is named: a key, or a field of signals in it."""
    if value is None or not entry:
        return value is not None
    if isinstance(value, Signals):
        return len(value) > 0 and getattr(value, entry) is not None
    if isinstance(value, Mapping):
        return entry in value
    return all(_holds(one, entry) for one in value)


def _missing_of_context(need: str, context: Context | None, count: int) -> str | None:
    if need == "network" and (context is None or context.network is None):
        return "the trained network and the images; give context=Context(split, compute, network=…)"
    if need.startswith("training") and (context is None or context.fresh_network is None or context.recipe is None):
        return "the images and networks to train; give context=Context(split, compute, fresh_network=…, recipe=…)"
    if len(context.split) != count:
        return f"the images of these {count} samples; the context holds {len(context.split)}"
    return None


def _join(method: Method, parts: list[Picks], labels: Tensor, class_sizes: np.ndarray, balanced: bool) -> Subset:
    indices = torch.cat([part.indices for part in parts])
    weights = None if parts[0].weights is None else torch.cat([part.weights for part in parts]).float().cpu().numpy()
    costs = None if parts[0].costs is None else torch.cat([part.costs for part in parts]).double().cpu().numpy()
    transfers = None if any(part.transfers is None for part in parts) else _joined_transfers(parts)
    return Subset(
        indices=indices.cpu().numpy(),
        rank=np.concatenate([np.arange(len(part.indices)) for part in parts]),
        weights=weights,
        classes=labels[indices].cpu().numpy(),
        class_sizes=class_sizes,
        method=method.name,
        balanced=balanced,
        nested=method.nested and all(part.nested for part in parts) and (weights is None or transfers is not None),
        costs=costs,
        transfers=transfers,
        bound=None if parts[0].bound is None else sum(part.bound for part in parts),
        cost_error=math.hypot(*(part.cost_error for part in parts)),
    )


def _joined_transfers(parts: list[Picks]) -> np.ndarray:
    """Return the transfers of all groups, with positions in the joint subset."""
    offset, joined = 0, []
    for part in parts:
        shift = torch.tensor([offset, offset, 0], device=part.transfers.device)
        none = part.transfers[:, 1] < 0
        moved = part.transfers + shift
        moved[none, 1] = -1
        joined.append(moved)
        offset += len(part.indices)
    return torch.cat(joined).cpu().numpy()
