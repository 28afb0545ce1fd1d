"""Batches of images, changed: crops, flips and normalisation, and the siamese augmentation of condensation.

Tensors in, tensors out. What a dataset is, and when images are changed, is none of its business.
"""

from lcmat.augmentation.images import augment, normalise
from lcmat.augmentation.siamese import Strategy, strategy_for, training_batch

__all__ = ["Strategy", "augment", "normalise", "strategy_for", "training_batch"]
