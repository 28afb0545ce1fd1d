"""Uncertainty of the prediction, highest first (Coleman et al., Selection via Proxy, ICLR 2020, section 2)."""

import torch

from lcmat.last_layer import probabilities
from lcmat.selection import Method, Picks
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.signals.needs import LOGITS


def least_confidence(signals: Signals, budget: int, generator: torch.Generator, *, by_logit: bool = False) -> Picks:
    """Choose the largest 1 − max_c p_c; as released, `by_logit`, the smallest max_c z_c."""
    if by_logit:
        return Picks(ranked(-signals.logits.double().amax(1), budget))
    p, q = probabilities(signals.logits)
    return Picks(ranked(q.gather(1, p.argmax(1, keepdim=True))[:, 0], budget))


def entropy(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose the largest entropy −Σ_c p_c log p_c."""
    p, q = probabilities(signals.logits)
    # log p = log1p(−q) keeps its digits where p is nearly one; 0 log 0 = 0.
    return Picks(ranked(torch.where(p > 0.5, -p * torch.log1p(-q), torch.special.entr(p)).sum(1), budget))


def margin(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose the largest 1 − (p₁ − p₂), with p₁ ≥ p₂ the two largest probabilities."""
    p, q = probabilities(signals.logits)
    top = p.topk(min(2, p.shape[1]), dim=1)
    second = top.values[:, 1] if p.shape[1] > 1 else 0.0
    return Picks(ranked(q.gather(1, top.indices[:, :1])[:, 0] + second, budget))


LEAST_CONFIDENCE = Method(
    "LeastConfidence",
    least_confidence,
    needs=(LOGITS,),
    unrecorded={"by_logit": False},
    released={"by_logit": True},
)
ENTROPY = Method("Entropy", entropy, needs=(LOGITS,))
MARGIN = Method("Margin", margin, needs=(LOGITS,))
