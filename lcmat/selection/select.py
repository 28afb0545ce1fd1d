"""What all selection methods share: their description, budgets, the class-balanced wrapper and the resulting Subset."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lcmat import seeds
from lcmat.block_sizes import at_once
from lcmat.errors import UserError, lookup
from lcmat.last_layer import parameters_per_class
from lcmat.memory_limit import limited, shared_by, side_by_side
from lcmat.method_options import checked_flag, checked_seed
from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.selection.method import CONTEXT_NEEDS, Method, Picks
from lcmat.selection.quota import QUOTAS, budgets_by_recall, with_quota
from lcmat.selection.subset import Subset
from lcmat.signals import Signals
from lcmat.workers import allowed, as_done


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
    quota: str = "even",
    **options: object,
) -> Subset:
    """Select a subset of the samples that `signals` describe; see `methods.select` for the parameters."""
    if not isinstance(signals, Signals):
        raise UserError(f"signals must be Signals(features=…, logits=…, labels=…), not {type(signals).__name__}")
    if context is not None and not isinstance(context, Context):
        raise UserError(f"context must be a Context, not {type(context).__name__}")
    seed, balanced = checked_seed(seed), checked_flag("balanced", balanced)
    quota = lookup("quota", str(quota), QUOTAS)
    if quota != "even" and not balanced:
        raise UserError(f"quota={quota} says how much is taken of each class; select class by class (balanced)")
    with limited(memory):
        asked = _Asked(with_quota(method.under(options), quota), signals, balanced, seed, context, quota)
        return _selected(asked, fraction, budget, options)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A selection asked for: by which method, from what, class by class or not."""

    method: Method
    signals: Signals
    balanced: bool
    seed: int
    context: Context | None
    quota: str = "even"

    def part(self, number: int, group: Tensor) -> tuple[Signals, dict[str, Context]]:
        """Return what the method reads of a group of samples: their signals, and a context if it needs one."""
        part = self.signals if len(group) == len(self.signals) else self.signals[group]  # a copy may be gigabytes
        if self.balanced and "validation" in self.method.fields:
            part = replace(part, validation=_validation_of(self.signals, number))
        return part, {"context": self.context[group]} if self.method.needs_context else {}


def _selected(
    asked: _Asked, fraction: float | None, budget: int | Sequence[int] | None, options: Mapping[str, object]
) -> Subset:
    method, signals, context, balanced, seed = asked.method, asked.signals, asked.context, asked.balanced, asked.seed
    _check_needs(method, signals, context)
    classes = 0 if signals.logits is None else signals.logits.shape[1]
    features = 0 if signals.features is None else parameters_per_class(signals) - 1
    options = method.resolved(classes, features, options)
    labels = signals.labels
    if not len(labels):
        raise UserError("there are no samples to select from")
    classes = signals.logits.shape[1] if signals.logits is not None else int(labels.max()) + 1
    class_sizes = torch.bincount(labels, minlength=classes).cpu().numpy()
    if method.ignores_budget:
        fraction, budget = 1.0, None
    if balanced:
        by_recall = asked.quota == "recall" and not method.ignores_budget
        shared = functools.partial(budgets_by_recall, signals.validation) if by_recall else class_budgets
        budgets = shared(class_sizes, fraction=fraction, budget=budget)
        # What is free in its size may go beyond the classes that it starts from.
        wanted = class_sizes if method.chooses_size else budgets
        groups = {c: (labels == c).nonzero()[:, 0] for c, size in enumerate(wanted) if size}
    else:
        budgets = class_budgets(np.array([len(labels)]), fraction=fraction, budget=budget)
        groups = {0: torch.arange(len(labels), device=labels.device)}
    budgets = [int(budgets[number]) for number in groups]
    if method.picks_all_groups:
        more = {"context": context} if method.needs_context else {}
        generator = seeds.generator(seed, "select")
        picks = method.pick(signals, budgets, generator, groups=list(groups.values()), **more, **options)
    else:
        picks = _each(asked, groups, budgets, options)
    parts = [replace(p, indices=g[p.indices.to(g.device)]) for p, g in zip(picks, groups.values(), strict=True)]
    subset = _join(method, parts, labels, class_sizes, balanced)
    return replace(subset, class_names=None if signals.class_names is None else tuple(signals.class_names))


def _each(asked: _Asked, groups: dict[int, Tensor], budgets: list[int], options: Mapping[str, object]) -> list[Picks]:
    """Return the picks of each group, found side by side, the largest group first.

    One after the other where a GPU computes, or networks, whose state groups would share.
    """
    tasks = sorted(zip(groups.items(), budgets, strict=True), key=lambda task: -len(task[0][1]))
    most = 1 if asked.method.needs_context else allowed(asked.signals.labels.device)
    # A few blocks of distances live at once, in float64.
    blocks = 4 * 8 * min(at_once().elements, len(tasks[0][0][1]) ** 2)
    most = side_by_side(min(most, len(tasks)), blocks) if len(tasks) > 1 else most

    def pick(task: tuple[tuple[int, Tensor], int]) -> Picks:
        (number, group), size = task
        part, more = asked.part(number, group)
        generator = seeds.generator(asked.seed, "select", number)
        return asked.method.pick(part, size, generator, **more, **options)

    # Silent where it takes no time, or output is no terminal.
    quiet = None if len(asked.signals) >= 10_000 and len(groups) > 1 else True
    found: dict[int, Picks] = {}
    bar = tqdm(total=len(tasks), desc=asked.method.name, disable=quiet, leave=False)
    with bar, shared_by(min(most, len(tasks))), closing(as_done(pick, tasks, most)) as results:
        for done, picks in results:
            found[tasks[done][0][0]] = picks
            bar.update()
    return [found[number] for number in groups]


def _validation_of(signals: Signals, label: int) -> Signals:
    """Return the validation samples of one class."""
    own = (signals.validation.labels == label).nonzero()[:, 0]
    if not len(own):
        raise UserError(f"the validation split has no sample of class {label}; enlarge it, or select unbalanced")
    return signals.validation[own]


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
    if need == "images" and context is None:
        return "the images; give context=Context(split, compute)"
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
