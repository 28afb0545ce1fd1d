"""The loss of a whole network on fixed images, as a function of all its parameters, in evaluation mode."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat import seeds
from lcmat.alive import Progress
from lcmat.condensation.matching_step import limits
from lcmat.data import Split
from lcmat.last_layer import Difference
from lcmat.selection import Subset, class_budgets
from lcmat.training import Compute, predictions
from lcmat.training.compute import evaluation_mode


def stratified(labels: Tensor, count: int) -> Tensor:
    """Return the positions of up to `count` samples, the same each time, drawn evenly from the classes; sorted."""
    sizes = torch.bincount(labels.cpu())
    if count >= len(labels):
        return torch.arange(len(labels))
    generator = seeds.generator(0, "a fixed sample")
    chosen = []
    for label, budget in enumerate(class_budgets(sizes.numpy(), budget=count).tolist()):
        members = (labels.cpu() == label).nonzero()[:, 0]
        chosen.append(members[torch.randperm(len(members), generator=generator)[:budget]])
    return torch.cat(chosen).sort().values


def relative_weights(subset: Subset | None, count: int) -> Tensor:
    """Return what each sample counts in the mean loss, (count,) float32, summing to one."""
    weights = torch.ones(count) if subset is None or subset.weights is None else torch.from_numpy(subset.weights)
    return weights.float() / weights.sum()


@contextlib.contextmanager
def moved(network: nn.Module, move: dict[str, Tensor], scale: float = 1.0) -> Iterator[None]:
    """Add scale · move to the parameters for a while; they return exactly to what they were."""
    parameters = dict(network.named_parameters())
    kept = {name: parameters[name].detach().clone() for name in move}
    try:
        with torch.no_grad():
            for name, direction in move.items():
                parameters[name].add_(direction, alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


def difference(network: nn.Module, sample: Split, chosen: Split, weights: Tensor, compute: Compute) -> Difference:
    """Return ε ↦ (L(sample) − L(chosen), its gradient) with all parameters moved by ε, a flat tensor."""
    parameters = dict(network.named_parameters())
    sizes = [value.numel() for value in parameters.values()]
    parts = [(sample, torch.full((len(sample),), 1 / len(sample))), (chosen, -weights)]

    def at(move: Tensor, slope: bool = True) -> tuple[float, Tensor | None]:
        pieces = move.split(sizes)
        named = {name: piece.view_as(value) for (name, value), piece in zip(parameters.items(), pieces, strict=True)}
        total, gradient = 0.0, torch.zeros_like(move) if slope else None
        with moved(network, named), evaluation_mode(network), torch.set_grad_enabled(slope):
            for split, share in parts:
                batches = torch.arange(len(split)).split(limits(compute.device, split.image_shape).in_graph)
                for images, labels, positions in split.batches(batches):
                    with compute.autocast():
                        logits = network(compute.inputs(images))
                    losses = F.cross_entropy(logits.float(), labels.to(compute.device), reduction="none")
                    loss = (losses * share[positions].to(losses)).sum()
                    total += float(loss.detach())
                    if gradient is not None:
                        gradient += _flat_gradient(loss, list(parameters.values()))
        return total, gradient

    return at


def _flat_gradient(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes])


def filter_normalised(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return a random direction whose filters have the norms of the network's own (Li et al. 2018, section 4).

    Parameters of one dimension, biases and those of normalisation, stay where they are, as in their code.
    """
    generator = seeds.generator(seed, "direction")
    directions = {}
    for name, value in network.named_parameters():
        if value.ndim < 2:
            continue
        drawn = torch.randn(value.shape, generator=generator).to(value)
        norms, own = (torch.linalg.vector_norm(x.detach().flatten(1), dim=1) for x in (drawn, value))
        directions[name] = drawn * (own / (norms + 1e-10)).view(-1, *[1] * (value.ndim - 1))
    return directions


@torch.no_grad()
def landscape(network: nn.Module, split: Split, compute: Compute, places: list[float], label: str) -> Tensor:
    """Return each sample's loss at θ + places[i] · d₁ + places[j] · d₂, (len(places), len(places), n) float32."""
    first, second = (filter_normalised(network, seed) for seed in (0, 1))
    losses = torch.zeros(len(places), len(places), len(split))
    at_once = limits(compute.device, split.image_shape).images
    bar = Progress(total=len(places) ** 2, desc=label)
    for (i, x), (j, y) in itertools.product(enumerate(places), repeat=2):
        with moved(network, first, x), moved(network, second, y):
            for logits, labels, positions in predictions(network, split, compute, at_once):
                losses[i, j, positions] = F.cross_entropy(logits.float(), labels, reduction="none").cpu()
        bar.update()
    bar.close()
    return losses
