"""How many samples to take of each class, for a fraction or a budget."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from lcmat.errors import UserError, shown
from lcmat.method_options import plain


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
    fraction, budget = plain(fraction), plain(budget)
    if (fraction is None) == (budget is None):
        raise UserError("give either a fraction or a budget")
    if isinstance(budget, Sequence) and not isinstance(budget, str | bytes):
        return _of_each(sizes, budget)
    if fraction is not None:
        check_fraction(fraction)
        fraction = float(fraction)  # NumPy does not round Python's fractions
        raised = int(((sizes > 0) & (np.round(fraction * sizes) == 0)).sum())
        if raised:
            warnings.warn(
                f"a fraction of {fraction:g} rounds to no sample in {raised} of {len(sizes)} groups; one is taken",
                stacklevel=2,
            )
        return _rounded(fraction, sizes)
    if not isinstance(budget, Integral) or isinstance(budget, bool):
        raise UserError(
            f"the budget must be a whole number of samples, not {shown(budget)}; or a list of one for each class"
        )
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
        if not isinstance(budget, Integral) or isinstance(budget, bool):
            raise UserError(f"{shown(budget)} samples are asked for of class {label}; ask for whole numbers")
        if not 0 <= budget <= size:
            raise UserError(f"{budget} samples are asked for of class {label}, which has {size}; ask for fewer")
    if not sum(budgets):
        raise UserError("the budget is 0 for every class; ask for a sample at least")
    return np.array(budgets, dtype=np.int64)


def recall_budgets(sizes: np.ndarray, recall: np.ndarray, total: int) -> np.ndarray:
    """Return how many of `total` samples to take of each class, (C,): more of what is recalled less (DRoP).

    The share d_k that is taken of class k is proportional to 1 − recall_k (Vysogorets et al., ICLR 2025); what would
    be beyond all of a class goes to the others, likewise. Largest remainders, at least one of each class that has any.
    sizes, recall: (C,), recall in [0, 1]. Where every class left has a recall of 1, shares are equal.
    """
    sizes, weight = np.asarray(sizes, dtype=np.int64), 1 - np.asarray(recall, dtype=np.float64)
    return shared_out(weight * sizes, sizes, total)


def shared_out(wanted: np.ndarray, sizes: np.ndarray, total: int) -> np.ndarray:
    """Return `total` shared out in proportion to `wanted`, (C,), at most `sizes`; what is beyond goes to the others.

    In proportion to sizes where nothing is wanted of any class that is left. Whole by largest remainders, at least one
    of each class that has any, if the total allows that.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    shares, open_ = np.zeros(len(sizes)), sizes > 0
    while open_.any():
        weights = (wanted if wanted[open_].any() else sizes) * open_
        shares = np.where(open_, (total - sizes[~open_].sum()) * weights / weights.sum(), sizes)
        full = open_ & (shares >= sizes)
        shares[full] = sizes[full]
        if not full.any():
            break
        open_ &= ~full
    return _whole(shares, sizes, total)


def _apportion(sizes: np.ndarray, budget: int) -> np.ndarray:
    return _whole(budget * sizes / sizes.sum(), sizes, budget)


def _whole(shares: np.ndarray, sizes: np.ndarray, budget: int) -> np.ndarray:
    """Return shares as whole numbers that sum to the budget, at least 1 of each class that has any if it allows."""
    least = int(budget >= (sizes > 0).sum())
    counts = np.maximum(np.floor(shares).astype(np.int64), least * (sizes > 0))
    while counts.sum() != budget:  # at most one step for each class
        short = counts.sum() < budget
        gap = (
            np.where(counts < sizes, shares - counts, -np.inf)
            if short
            else np.where(counts > least, counts - shares, -1e9)
        )
        counts[gap.argmax()] += 1 if short else -1
    return counts


def _rounded(fraction: float, sizes: np.ndarray) -> np.ndarray:
    return np.array([max(1, round(fraction * int(n))) if n else 0 for n in sizes], dtype=np.int64)


def check_fraction(fraction: float) -> None:
    """Raise UserError unless 0 < fraction ≤ 1."""
    if not isinstance(fraction, Real) or isinstance(fraction, bool):
        raise UserError(f"the fraction must be a number, not {shown(fraction)}")
    if not 0 < fraction <= 1:
        raise UserError(f"a fraction must lie above 0 and at most at 1, not {fraction:g}")
