"""The outcome of a greedy facility location, and the picks of a method that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcmat.errors import UserError
from lcmat.selection import Picks


def covered(cover: Cover, weights: bool) -> Picks:
    """Return the picks of a facility location, with cluster sizes as weights or without."""
    sizes = {"weights": cover.cluster_sizes, "transfers": cover.transfers} if weights else {}
    quality = {"costs": cover.costs, "bound": cover.bound, "cost_error": cover.cost_error}
    return Picks(cover.indices, nested=cover.exact, **quality, **sizes)


@dataclass(frozen=True)
class Cover:
    """The outcome of a greedy facility location.

    indices: (m,) the samples in the order chosen.
    gains: (m,) what each pick took off the cost; the first one's is measured from Σ_i max D if the matrix was held,
    else left 0.
    costs: (m,) L(S) after each pick.
    cluster_sizes: (m,) how many samples are nearest to each pick (ties to the earlier pick); they sum to n.
    transfers: (r, 3) how they came about: a pick, the earlier pick that it took samples from (−1: from none), and how
    many. From these follow the cluster sizes after fewer picks. None where cluster sizes are estimated.
    bound: a lower bound of L over all sets of m samples, or None where none is known.
    exact: whether the picks are those of the exact greedy; then the picks for smaller budgets are the first of these.
    cost_error: the standard error of the last cost where that is estimated from a sample.
    """

    indices: Tensor
    gains: Tensor
    costs: Tensor
    cluster_sizes: Tensor
    transfers: Tensor | None
    bound: float | None = None
    exact: bool = True
    cost_error: float = 0.0


def check_budget(budget: int, n: int) -> None:
    """Raise UserError unless 1 ≤ budget ≤ n."""
    if not 1 <= budget <= n:
        raise UserError(f"the budget must be between 1 and {n}, the number of samples, not {budget}")
