"""The cross-entropy of a batch: weighted, and of mixed images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lcmat.augmentation import siamese

# What sample weights have mean 1 over: the subset, or as released (LCMat_main/utils.py 161) each batch.
WEIGHTS_BY = ("subset", "batch")
WHOLE = slice(None)


class SampleWeights:
    """Weights of a split's samples, scaled to mean 1 over what `by` says (`WEIGHTS_BY`)."""

    def __init__(self, values: Tensor, by: str = "subset") -> None:
        """Take weights (n,) of any scale."""
        self.relative, self.by_batch = (values / values.mean()).float(), by == "batch"

    def of(self, positions: Tensor) -> Tensor:
        """Return the weights of a batch's samples."""
        weights = self.relative[positions]
        return weights / weights.mean() if self.by_batch else weights


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the batch mean of weight times cross-entropy; logits (b, C), labels (b,), weights (b,) or None."""
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def mixed_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None, mix: siamese.Mix | None, part: slice = WHOLE
) -> Tensor:
    """Return the same, each image's share of its own label and the rest of its partner's, where a batch was mixed.

    part: of which images of the batch the logits are; labels, weights and mix are the whole batch's.
    """
    own = weighted_cross_entropy(logits, labels[part], None if weights is None else weights[part])
    if mix is None:
        return own
    partner = mix.partner[part]
    of_partner = weighted_cross_entropy(logits, labels[partner], None if weights is None else weights[partner])
    return mix.share * own + (1 - mix.share) * of_partner
