"""How much is taken of each class: even shares, or by what a held-out split says of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lcmat.errors import UserError
from lcmat.selection.budgets import class_budgets, recall_budgets
from lcmat.selection.method import Method
from lcmat.signals import Signals

# even: the same share of each class. recall: more of classes that are recalled less (DRoP).
QUOTAS = ("even", "recall")
HELD_OUT = "validation.logits"


def with_quota(method: Method, quota: str) -> Method:
    """Return the method with what a quota needs beside its own needs; raise UserError if it can have none."""
    if quota == "even" or method.ignores_budget:
        return method
    if method.chooses_size:
        raise UserError(f"{method.name} chooses by itself how much it takes; leave quota={quota} out")
    return replace(method, needs=tuple(dict.fromkeys((*method.needs, HELD_OUT))))


def class_recall(validation: Signals, classes: int) -> np.ndarray:
    """Return which share of each class's held-out samples is predicted right, (classes,); NaN without samples."""
    labels = validation.labels.cpu()
    right = (validation.logits.argmax(1).cpu() == labels).double()
    counts = torch.bincount(labels, minlength=classes)
    return (torch.bincount(labels, weights=right, minlength=classes) / counts).numpy()


def budgets_by_recall(
    validation: Signals, sizes: np.ndarray, *, fraction: float | None = None, budget: int | Sequence[int] | None = None
) -> np.ndarray:
    """Return how many samples to take of each class, as many in all as of even shares; sizes: (C,) of the classes.

    Raises UserError for a budget that is given class by class, and for a class without held-out samples.
    """
    total = int(class_budgets(sizes, fraction=fraction, budget=budget).sum())
    if isinstance(budget, Sequence):
        raise UserError("the budget is given class by class already; leave quota=recall out")
    recall = class_recall(validation, len(sizes))
    missing = (np.isnan(recall) & (sizes > 0)).nonzero()[0]
    if len(missing):
        raise UserError(
            f"the validation split has no sample of class {missing[0]}, whose recall is asked for; enlarge it"
        )
    return recall_budgets(sizes, np.nan_to_num(recall), total)
