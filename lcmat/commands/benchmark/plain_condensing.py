"""What a condensation step is measured against: a loop over classes, as such code is usually written."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat.augmentation.siamese import applied
from lcmat.condensation.class_statistics import ClassBatch, closed_form_moments
from lcmat.condensation.matching import variance
from lcmat.condensation.matching_step import Pair


def dm_gradient(network: nn.Module, images: Tensor, pairs: list[Pair]) -> Tensor:
    """Return the gradient of DM's loss in the synthetic images: class after class, then one backward pass."""
    x = images.clone().requires_grad_()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    loss = torch.zeros(())
    for pair in pairs:
        real = network.embed(applied(pair.real, pair.draw)).detach()
        synthetic = network.embed(applied(x[pair.rows], pair.draw))
        loss = loss + (real.mean(0) - synthetic.mean(0)).square().sum()
    loss.backward()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return x.grad


def lcmat_c_gradient(network: nn.Module, images: Tensor, pairs: list[Pair], rho: float) -> Tensor:
    """Return the gradient of LCMat-C's loss in the synthetic images: backward after each class.

    Squared differences of the convolutions' gradients, and ρ/2 times the L1 distance of the last layer's variances.
    """
    x = images.clone().requires_grad_()
    for pair in pairs:
        real_gradients, real_moments = _one_side(network, applied(pair.real, pair.draw), pair.label, graph=False)
        gradients, moments = _one_side(network, applied(x[pair.rows], pair.draw), pair.label, graph=True)
        loss = torch.zeros(())
        for real, synthetic in zip(real_gradients, gradients, strict=True):
            if real.ndim == 4:
                loss = loss + (real.detach() - synthetic).square().sum()
        counts = (torch.tensor([len(pair.real)]), torch.tensor([pair.rows.stop - pair.rows.start]))
        gap = variance(real_moments, counts[0]) - variance(moments, counts[1])
        loss = loss + rho / 2 * gap.abs().sum()
        loss.backward()
    network.zero_grad(set_to_none=True)
    return x.grad


def _one_side(network: nn.Module, inputs: Tensor, label: int, graph: bool) -> tuple[tuple[Tensor, ...], dict]:
    labels = torch.full((len(inputs),), label)
    features = network.embed(inputs)
    logits = network.head(features)
    loss = F.cross_entropy(logits, labels)
    gradients = torch.autograd.grad(loss, list(network.parameters()), create_graph=graph, retain_graph=True)
    weights = torch.full((len(inputs),), 1 / len(inputs))
    with torch.set_grad_enabled(graph):
        moments = closed_form_moments(
            network.head, features, logits, ClassBatch(inputs, labels, weights, [len(inputs)]), graph
        )
    return gradients, moments
