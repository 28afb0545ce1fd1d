"""Matching losses of dataset condensation, each with its equation, and what is to be compared for it.

For class c, T and S stand for its batches of real and synthetic images, ḡ for the mean gradient of cross-entropy in the
network's weights. Losses are given class by class, (k,); their sum is minimised in the synthetic images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lcmat.condensation.class_statistics import (
    LAYERS,
    Statistics,
    backpack_moments,
    closed_form_moments,
    mean_features,
    mean_gradients,
)
from lcmat.errors import lookup
from lcmat.method_options import check_radius

# Beside ‖ḡ_T‖‖ḡ_S‖, as in the published code: rows of vanishing gradients count little.
EPSILON = 1e-6
MOMENTS = ("first", "second")


@dataclass(frozen=True)
class Matching:
    """A matching loss, and how to get what it compares.

    statistics: called as statistics(network, batch, graph) with a `ClassBatch`; see `class_statistics`.
    loss: called as loss(real, synthetic, real_counts, synthetic_counts) with the statistics of k classes and how many
    images each class has on either side, (k,); returns (k,).
    threads: whether classes may be computed in several threads at once.
    """

    statistics: Callable[..., Statistics]
    loss: Callable[..., Tensor]
    threads: bool = True


def feature_matching() -> Matching:
    """DM (Zhao & Bilen, WACV 2023, Eq. 6): ‖mean_T φ − mean_S φ‖², φ being the input of the last linear layer."""

    def loss(real: Statistics, synthetic: Statistics, *_: Tensor) -> Tensor:
        return squared_distance(real["features"], synthetic["features"])

    return Matching(mean_features, loss)


def gradient_matching(metric: str = "cosine", layers: str = "all") -> Matching:
    """DC, DSA, IDC: the sum of D(ḡ_T, ḡ_S) over layers; D one of `METRICS`, layers "all" or "convolutions".

    DC and DSA (Zhao et al., ICLR 2021, Eq. 9 and 10): cosine, with ε (`cosine_distance`), all layers. IDC (Kim et al.,
    ICML 2022): squared or absolute, convolutions.
    """
    distance = METRICS[lookup("metric", metric, METRICS)]
    layers = lookup("layers", layers, LAYERS)

    def loss(real: Statistics, synthetic: Statistics, *_: Tensor) -> Tensor:
        weights = [name for name in real if name not in MOMENTS]
        return sum(distance(real[name], synthetic[name]) for name in weights)

    return Matching(partial(mean_gradients, layers=layers), loss)


def curvature_matching(
    rho: float, metric: str = "squared", layers: str = "convolutions", use_backpack: bool = False
) -> Matching:
    """LCMat-C (Eq. 15): D(ḡ_T, ḡ_S) + ρ/2 · ‖Var(G_T) − Var(G_S)‖₁; with ρ = 0 the same as gradient matching.

    Var(G) is the unbiased variance of the last layer's per-sample gradients within the class (Eq. 14), in all C(d+1)
    dimensions. It needs two images on both sides: of a class with fewer the term is zero.
    """
    matching = gradient_matching(metric, layers)
    if check_radius(rho) == 0:
        return matching

    def loss(real: Statistics, synthetic: Statistics, real_counts: Tensor, synthetic_counts: Tensor) -> Tensor:
        gap = variance(real, real_counts) - variance(synthetic, synthetic_counts)
        enough = (real_counts > 1) & (synthetic_counts > 1)
        term = torch.where(enough, gap.abs().sum((1, 2)), 0.0)
        return matching.loss(real, synthetic) + rho / 2 * term

    statistics = partial(
        mean_gradients, layers=layers, moments=backpack_moments if use_backpack else closed_form_moments
    )
    return Matching(statistics, loss, threads=not use_backpack)  # BackPACK keeps its state globally


def variance(statistics: Statistics, counts: Tensor) -> Tensor:
    """Return 1/(n−1) Σ (g_i − ḡ)² over each class (Eq. 14), (k, C, d+1) in float64; of a single image 0.

    From the means of g and g²: what cancels between them is lost of 16 digits.
    """
    factor = counts.double() / (counts - 1).clamp(min=1)
    return factor[:, None, None] * (statistics["second"] - statistics["first"].square())


def cosine_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Return Σ_o 1 − ⟨A_o, B_o⟩/(‖A_o‖‖B_o‖ + ε) over a layer's outputs o, ε = 1e-6.

    real, synthetic: (k, outputs, …); returns (k,). The ε is the published code's (DC, DSA); the papers' cosine (Zhao et
    al., ICLR 2021, Eq. 10) has none. So an output whose gradients vanish counts 1, and moves no image.
    """
    a, b = real.flatten(2), synthetic.flatten(2)
    # The norm has no gradient at 0, where cos is taken as 0.
    norms = _norm(a) * _norm(b)
    return (1 - (a * b).sum(2) / (norms + EPSILON)).sum(1)


def squared_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Return Σ (A − B)² over all but the first dimension."""
    return (real - synthetic).square().flatten(1).sum(1)


def absolute_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """Return Σ |A − B| over all but the first dimension."""
    return (real - synthetic).abs().flatten(1).sum(1)


METRICS = {"cosine": cosine_distance, "squared": squared_distance, "absolute": absolute_distance}


def _norm(x: Tensor) -> Tensor:
    squared = x.square().sum(-1)
    nonzero = squared > 0
    return torch.where(nonzero, torch.where(nonzero, squared, 1.0).sqrt(), 0.0)
