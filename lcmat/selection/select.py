"""Selection from signals that are at hand: the class-balanced wrapper around every method."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from lcmat import seeds
from lcmat.alive import Progress
from lcmat.errors import UserError
from lcmat.memory_limit import limited, shared_by
from lcmat.selection.context import Context
from lcmat.selection.method import Method, Picks
from lcmat.selection.plan import Plan, planned
from lcmat.selection.subset import Subset
from lcmat.signals import Signals
from lcmat.workers import as_done

# Fewer samples take no time.
ALIVE_FROM = 10_000


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
    size, how = {"fraction": fraction, "budget": budget}, {"balanced": balanced, "seed": seed, "quota": quota}
    alive = Progress(desc=f"choosing by {method.name}", disable=len(signals) < ALIVE_FROM)
    with limited(memory), alive:
        return _selected(planned(method, signals, context, **size, **how, **options), signals, context)


def _selected(plan: Plan, signals: Signals, context: Context | None) -> Subset:
    method, labels = plan.method, signals.labels
    groups = _groups(plan, labels)
    if method.picks_all_groups:
        more = {"context": context} if method.needs_context else {}
        budgets, generator = list(plan.budgets.values()), seeds.generator(plan.seed, "select")
        picks = method.pick(signals, budgets, generator, groups=list(groups.values()), **more, **plan.options)
    else:
        picks = _each(plan, signals, groups, context)
    parts = [replace(p, indices=g[p.indices.to(g.device)]) for p, g in zip(picks, groups.values(), strict=True)]
    classes = labels[torch.cat([part.indices for part in parts])].cpu().numpy()
    return plan.subset(parts, classes, signals.class_names)


def _groups(plan: Plan, labels: Tensor) -> dict[int, Tensor]:
    """Return the positions of each group's samples, ascending."""
    if not plan.balanced:
        return {0: torch.arange(len(labels), device=labels.device)}
    of_classes = labels.argsort(stable=True).split(plan.class_sizes.tolist())
    return {label: of_classes[label] for label in plan.budgets}


def _each(plan: Plan, signals: Signals, groups: dict[int, Tensor], context: Context | None) -> list[Picks]:
    """Return the picks of each group, found side by side, the largest group first.

    One after the other where a GPU computes, or networks, whose state groups would share.
    """
    tasks = sorted(groups.items(), key=lambda task: -len(task[1]))
    most = plan.side_by_side([len(group) for _, group in tasks], signals.labels.device)

    def pick(task: tuple[int, Tensor]) -> Picks:
        number, group = task
        part = signals if len(group) == len(signals) else signals[group]  # a copy may be gigabytes
        return plan.pick(number, part, **({"context": context[group]} if plan.method.needs_context else {}))

    # Silent where it takes no time.
    quiet = len(signals) < ALIVE_FROM or len(groups) < 2
    found: dict[int, Picks] = {}
    bar = Progress(total=len(tasks), desc=plan.method.name, disable=quiet)
    with bar, shared_by(most), closing(as_done(pick, tasks, most)) as results:
        for done, picks in results:
            found[tasks[done][0]] = picks
            bar.update()
    return [found[number] for number in groups]
