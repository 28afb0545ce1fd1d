"""Coverage less redundancy in random planes of the feature space: ZCore."""

import torch
from torch import Tensor

from lcmat.method_options import check_numbers
from lcmat.selection import Method, Picks
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.signals.needs import FEATURES

# Rounds whose random numbers are drawn at once; another number would draw others.
AT_ONCE = 256


def zcore(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    rounds: int = 10,
    neighbours: int = 1000,
    dimensions: int = 2,
    exponent: float = 4.0,
) -> Picks:
    """Choose what covers the features without repeating them; labels are not read (Griffin et al., WACV 2026).

    `rounds` times as often as there are samples, a point is drawn in `dimensions` random dimensions, each from the
    triangular distribution of minimum, median and maximum. The sample nearest to it (by the sum of absolute
    differences there) gains 1, and the `neighbours` nearest to that sample lose 1 between them, in proportion to
    d^−exponent.
    """
    h = signals.features.double().T.contiguous()  # a dimension a row: few of them are read at a time
    width, n = h.shape
    scores = torch.zeros(n, dtype=torch.float64, device=h.device)
    count = min(neighbours, n - 1)
    low, middle, high = h.amin(1), h.median(1).values, h.amax(1)
    for first in range(0, rounds * n, AT_ONCE):
        for chosen, where in _draws(width, dimensions, min(AT_ONCE, rounds * n - first), generator):
            plane = h[chosen.to(h.device)]
            ends = (values[chosen].tolist() for values in (low, middle, high))
            point = [_triangular(u, *of_one) for u, *of_one in zip(where.tolist(), *ends, strict=True)]
            nearest = (plane - torch.tensor(point, dtype=h.dtype, device=h.device)[:, None]).abs().sum(0).argmin()
            scores[nearest] += 1
            if count:
                distance = (plane - plane[:, nearest, None]).abs().sum(0)
                distance[nearest] = torch.inf
                near = distance.topk(count, largest=False)
                scores[near.indices] -= _shares(near.values, exponent)
    return Picks(ranked(scores, budget))


def _draws(width: int, dimensions: int, count: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Return for each of `count` rounds the dimensions and where between 0 and 1 in each of their distributions."""
    size = min(dimensions, width)
    order = torch.rand(count, width, generator=generator, dtype=torch.float64).argsort(1)[:, :size]
    return list(zip(order, torch.rand(count, size, generator=generator, dtype=torch.float64), strict=True))


def _triangular(u: float, low: float, middle: float, high: float) -> float:
    """Return the u-th quantile of the triangular distribution."""
    width = high - low
    if not width > 0:
        return low
    if u * width <= middle - low:
        return low + (u * width * (middle - low)) ** 0.5
    return high - ((1 - u) * width * (high - middle)) ** 0.5


def _shares(distance: Tensor, exponent: float) -> Tensor:
    """Return d^−exponent, normalised; equal samples, at distance 0, share all."""
    if not bool(distance[0] > 0):
        same = (distance == distance[0]).double()
        return same / same.sum()
    share = (distance[0] / distance) ** exponent
    return share / share.sum()


def resolve_zcore(classes: int, features: int, **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    check_numbers(options, at_least_one=("rounds", "neighbours", "dimensions"), not_negative=("exponent",))
    return options


ZCORE = Method("ZCore", zcore, needs=(FEATURES,), resolve=resolve_zcore)
