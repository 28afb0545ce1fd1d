"""Samples that stand for the distribution of the features: Herding and Moderate."""

import torch

from lcmat.selection import Method, Picks
from lcmat.selection.ranking import first_largest, ranked
from lcmat.signals import Signals
from lcmat.signals.needs import FEATURES


def herding(signals: Signals, budget: int, generator: torch.Generator, *, farthest: bool = False) -> Picks:
    """Choose so that the mean of the chosen features follows that of all (Welling, ICML 2009).

    Pick t + 1 is argmin_x ‖(t + 1)μ − Σ_{chosen} h − h_x‖₂, here as the largest 2⟨h_x, w⟩ − ‖h_x‖² with w the first
    two terms. As released, `farthest` takes the argmax.
    """
    # Differences from μ are the same, and smaller numbers: w becomes −Σ_{chosen} (h − μ).
    h = signals.features.double()
    h = h - h.mean(0)
    squared_norm = h.square().sum(1)
    left = torch.ones_like(squared_norm, dtype=torch.bool)
    w, chosen = torch.zeros_like(h[0]), []
    for _ in range(budget):
        nearness = 2 * (h @ w) - squared_norm
        pick = first_largest((-nearness if farthest else nearness).masked_fill(~left, -torch.inf))
        chosen.append(pick)
        left[pick] = False
        w -= h[pick]
    return Picks(torch.tensor(chosen))


def moderate(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose the samples whose distance from the centre of their class is nearest to the median of these distances.

    Xia et al., Moderate Coreset, ICLR 2023, section 3. The median is over the group that is selected from.
    """
    h, labels = signals.features.double(), signals.labels
    classes, own = labels.unique(return_inverse=True)
    centres = torch.zeros(len(classes), h.shape[1], dtype=h.dtype, device=h.device).index_add_(0, own, h)
    centres /= torch.bincount(own)[:, None]
    distance = (h - centres[own]).norm(dim=1)
    middle = distance.sort().values[[(len(h) - 1) // 2, len(h) // 2]].mean()
    off = (distance - middle).abs()
    # The two in the middle of an even number are equally far from the median, but for rounding.
    return Picks(ranked(-(off / (1e-12 * float(middle) or 1.0)).round(), budget))


HERDING = Method("Herding", herding, needs=(FEATURES,), unrecorded={"farthest": False}, released={"farthest": True})
MODERATE = Method("Moderate", moderate, needs=(FEATURES,))
