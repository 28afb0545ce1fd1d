"""K-medoids of features or pixels: facility location without gradients or curvature, the control for LCMat-S."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lcmat.data import Split
from lcmat.distances import VectorDistance, euclidean
from lcmat.errors import lookup
from lcmat.facility_location import cover, covered, greedy_options
from lcmat.selection import Context, Method, Picks
from lcmat.selection.context import IMAGES
from lcmat.signals import Signals
from lcmat.signals.needs import FEATURES

SPACES = ("features", "normalised", "pixels")
# A deviation below this share of the values is what rounding leaves of a constant feature.
CONSTANT = 1e-12


def k_medoids(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    context: Context | None = None,
    *,
    space: str = "features",
    weights: bool = False,
    greedy: str = "exact",
    rows: int | None = None,
    parts: int | None = None,
) -> Picks:
    """Choose the medoids of greedy facility location under Euclidean distances (BUILD of Kaufman & Rousseeuw 1990).

    `space`: between features h; "normalised", features less the mean of their class and divided, dimension by
    dimension, by its standard deviation; or "pixels", raw images on the scale of [0, 1]. The greedy is that of LCMat-S.
    """
    return covered(cover(_distance(signals, context, space), budget, generator, greedy, rows, parts), weights)


def _distance(signals: Signals, context: Context | None, space: str) -> VectorDistance:
    if space == "pixels":
        return euclidean(pixels(context.split).to(signals.labels.device), unit=255)
    h = signals.features
    return euclidean(normalised(h, signals.labels) if space == "normalised" else h)


def normalised(features: Tensor, labels: Tensor) -> Tensor:
    """Return features (n, d) with mean 0 and deviation 1 in each class and dimension; 0 where the class does not vary.

    In float64; the deviation is that of the class's samples here (divided by their number).
    """
    h = features.double()
    out = torch.empty_like(h)
    for label in labels.unique():
        own = labels == label
        centred = h[own] - h[own].mean(0)
        deviation = centred.square().mean(0).sqrt()
        varies = deviation > CONSTANT * h[own].abs().amax(0)
        out[own] = torch.where(varies, centred / deviation.where(varies, 1.0), 0.0)
    return out


def pixels(split: Split, batch: int = 500) -> Tensor:
    """Return the images of a split as one row of uint8 each, (n, c·h·w)."""
    return torch.cat([images for images, _, _ in split.batches(torch.arange(len(split)).split(batch))]).flatten(1)


def needs(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return what the space is made of."""
    return (IMAGES,) if _space(options.get("space", "features")) == "pixels" else (FEATURES,)


def _space(name: object) -> str:
    return lookup("space", str(name), SPACES)


def resolve(classes: int, features: int, *, space: str, weights: bool, **how: object) -> dict[str, object]:
    """Refuse an unknown space or greedy."""
    return {"space": _space(space), "weights": weights, **greedy_options(**how)}


K_MEDOIDS = Method("KMedoids", k_medoids, needs=(FEATURES,), resolve=resolve, needs_under=needs)
