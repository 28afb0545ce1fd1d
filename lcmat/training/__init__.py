"""Training a network on a split of images by a recipe, on any device, and what a network predicts.

It knows nothing of selection: pretraining, training on a subset and evaluating other networks are all `train`. What a
network is trained on belongs to `data`, why it is trained to `runs`.
"""

from lcmat.training.compute import Compute, accuracy, predictions
from lcmat.training.divergence import DivergedError
from lcmat.training.draws import Draw, Draws
from lcmat.training.loop import Checkpoint, Watch, train
from lcmat.training.recipe import Recipe

__all__ = [
    "Checkpoint",
    "Compute",
    "DivergedError",
    "Draw",
    "Draws",
    "Recipe",
    "Watch",
    "accuracy",
    "predictions",
    "train",
]
