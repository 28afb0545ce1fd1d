"""What a selection comes to before any sample is read: how much is taken of which groups, and by what."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lcmat import memory_limit, seeds
from lcmat.block_sizes import at_once
from lcmat.errors import UserError, lookup
from lcmat.last_layer import parameters_per_class
from lcmat.method_options import checked_flag, checked_seed
from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.selection.method import CONTEXT_NEEDS, Method, Picks
from lcmat.selection.quota import QUOTAS, budgets_by_recall, with_quota
from lcmat.selection.subset import Subset
from lcmat.signals import Shards, Signals
from lcmat.workers import allowed


@dataclass(frozen=True, eq=False)
class Plan:
    """A selection, group by group; a group is a class, or everything (0) if selection is not balanced.

    method, options: by which, all options of it named. budgets: how many samples to take, by group, of those that
    anything is taken of. class_sizes: (C,) how many samples of each class there are. seed: of all that is random.
    """

    method: Method
    options: Mapping[str, object]
    budgets: Mapping[int, int]
    class_sizes: np.ndarray
    balanced: bool
    seed: int

    def pick(self, group: int, part: Signals, **more: object) -> Picks:
        """Return what is chosen of a group, as positions in its signals; more: a context for methods that need one."""
        if self.balanced and "validation" in self.method.fields:
            part = replace(part, validation=_validation_of(part, group))
        generator = seeds.generator(self.seed, "select", group)
        return self.method.pick(part, self.budgets[group], generator, **more, **self.options)

    def side_by_side(self, sizes: Sequence[int], device: torch.device | str = "cpu") -> int:
        """Return how many pieces of work of so many samples each may be done side by side, within the memory."""
        most = 1 if self.method.needs_context else min(allowed(device), len(sizes))
        # A few blocks of distances live at once, in float64.
        blocks = 4 * 8 * min(at_once().elements, max(sizes) ** 2)
        return memory_limit.side_by_side(most, blocks) if len(sizes) > 1 else most

    def subset(self, parts: Sequence[Picks], classes: np.ndarray, names: Sequence[str] | None) -> Subset:
        """Return what was chosen of all groups together.

        parts: what was chosen of each group, in the order of `budgets`, as positions in the whole. classes: (m,) labels
        of all that was chosen. names: of the classes, if they have any.
        """
        method = self.method
        weights = (
            None if parts[0].weights is None else torch.cat([part.weights for part in parts]).float().cpu().numpy()
        )
        costs = None if parts[0].costs is None else torch.cat([part.costs for part in parts]).double().cpu().numpy()
        transfers = None if any(part.transfers is None for part in parts) else _joined_transfers(parts)
        return Subset(
            indices=torch.cat([part.indices for part in parts]).cpu().numpy(),
            rank=np.concatenate([np.arange(len(part.indices)) for part in parts]),
            weights=weights,
            classes=classes,
            class_sizes=self.class_sizes,
            method=method.name,
            balanced=self.balanced,
            nested=method.nested and all(p.nested for p in parts) and (weights is None or transfers is not None),
            costs=costs,
            transfers=transfers,
            bound=None if parts[0].bound is None else sum(part.bound for part in parts),
            cost_error=math.hypot(*(part.cost_error for part in parts)),
            class_names=None if names is None else tuple(names),
        )


def planned(
    method: Method,
    signals: Signals | Shards,
    context: Context | None = None,
    *,
    fraction: float | None = None,
    budget: int | Sequence[int] | None = None,
    balanced: bool = True,
    seed: int = 0,
    quota: str = "even",
    **options: object,
) -> Plan:
    """Return what a selection from signals comes to; see `methods.select` for the parameters, and what is refused."""
    seed, balanced = checked_seed(seed), checked_flag("balanced", balanced)
    quota = lookup("quota", str(quota), QUOTAS)
    if quota != "even" and not balanced:
        raise UserError(f"quota={quota} says how much is taken of each class; select class by class (balanced)")
    method = with_quota(method.under(options), quota)
    _check_needs(method, signals, context)
    outputs = 0 if signals.logits is None else signals.logits.shape[1]
    features = 0 if signals.features is None else parameters_per_class(signals) - 1
    options = method.resolved(outputs, features, options)
    if not len(signals):
        raise UserError("there are no samples to select from")
    sizes = signals.class_sizes
    size = {"fraction": 1.0, "budget": None} if method.ignores_budget else {"fraction": fraction, "budget": budget}
    if balanced:
        by_recall = quota == "recall" and not method.ignores_budget
        shared = functools.partial(budgets_by_recall, signals.validation) if by_recall else class_budgets
        counts = shared(sizes, **size)
        # What is free in its size may go beyond the classes that it starts from.
        taken_of = (sizes if method.chooses_size else counts).nonzero()[0]
    else:
        counts, taken_of = class_budgets(np.array([len(signals)]), **size), np.zeros(1, dtype=np.int64)
    return Plan(method, options, {int(g): int(counts[g]) for g in taken_of}, sizes, balanced, seed)


def _validation_of(signals: Signals, label: int) -> Signals:
    """Return the validation samples of one class."""
    own = (signals.validation.labels == label).nonzero()[:, 0]
    if not len(own):
        raise UserError(f"the validation split has no sample of class {label}; enlarge it, or select unbalanced")
    return signals.validation[own]


def lacking(method: Method, signals: Signals | Shards) -> str:
    """Return what a method needs that these signals alone do not hold, "" if they suffice."""
    beyond = {"network": "they need the network", "training": "they train networks", "images": "they need the images"}
    for need in sorted(method.needs):
        field, _, entry = need.partition(".")
        if field in CONTEXT_NEEDS:
            return beyond.get(field, f"they need {field}")
        if not _holds(getattr(signals, field), entry):
            return f"the file holds no {f'{field} with {entry}' if entry else field}"
    return ""


def _check_needs(method: Method, signals: Signals | Shards, context: Context | None) -> None:
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
    if need == "images" and context is None:
        return "the images; give context=Context(split, compute)"
    if need == "network" and (context is None or context.network is None):
        return "the trained network and the images; give context=Context(split, compute, network=…)"
    if need.startswith("training") and (context is None or context.fresh_network is None or context.recipe is None):
        return "the images and networks to train; give context=Context(split, compute, fresh_network=…, recipe=…)"
    if len(context.split) != count:
        return f"the images of these {count} samples; the context holds {len(context.split)}"
    return None


def _joined_transfers(parts: Sequence[Picks]) -> np.ndarray:
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
