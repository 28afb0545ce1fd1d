"""Samples near the decision boundary: CAL by the predictions of neighbours, DeepFool by moving the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcmat.alive import Progress
from lcmat.block_sizes import at_once
from lcmat.distances.neighbours import nearest_others
from lcmat.errors import UserError
from lcmat.last_layer import probabilities
from lcmat.selection import Context, Method, Picks
from lcmat.selection.context import NETWORK
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.training.compute import evaluation_mode


def cal(signals: Signals, budget: int, generator: torch.Generator, *, neighbours: int = 10) -> Picks:
    """Choose the largest mean KL(p_neighbour ‖ p_sample) over the nearest in feature space (Margatina et al. 2021).

    Samples that look alike and are predicted differently lie near the boundary (Algorithm 1). The neighbours of a
    sample are the `neighbours` nearest others of the group, by Euclidean distance.
    """
    if len(signals) == 1:
        return Picks(torch.zeros(1, dtype=torch.int64))
    nearest = nearest_others(signals.features, min(neighbours, len(signals) - 1))
    p, q = probabilities(signals.logits)
    # log1p keeps the digits of sure predictions; what is impossible but for rounding has a finite logarithm, too.
    log_p = torch.where(p > 0.5, torch.log1p(-q), F.log_softmax(signals.logits.double(), 1).clamp(min=-1e300))
    parts = torch.arange(len(p), device=p.device).split(max(1, at_once().elements // (nearest.shape[1] * p.shape[1])))
    divergence = [(p[nearest[own]] * (log_p[nearest[own]] - log_p[own, None])).sum(2).mean(1) for own in parts]
    return Picks(ranked(torch.cat(divergence), budget))


def deep_fool(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    context: Context,
    *,
    overshoot: float = 0.02,
    iterations: int = 50,
    classes: int = 10,
) -> Picks:
    """Choose the images that the smallest perturbation takes across the boundary (Ducoffe & Precioso 2018, DFAL)."""
    network, compute = context.network, context.compute
    network.to(compute.device)
    parts = torch.arange(len(signals)).split(at_once().images)
    quiet = None if len(signals) > 2 * at_once().images else True
    bar = Progress(context.split.batches(parts), total=len(parts), desc="DeepFool", disable=quiet)
    with evaluation_mode(network):
        norms = [perturbation(network, compute.inputs(images), overshoot, iterations, classes) for images, _, _ in bar]
    return Picks(ranked(-torch.cat(norms), budget))


def perturbation(network: nn.Module, inputs: Tensor, overshoot: float, iterations: int, classes: int) -> Tensor:
    """Return the Euclidean norms (b,) of DeepFool's perturbations of inputs (b, …) (Moosavi-Dezfooli et al. 2016).

    Algorithm 2: step to the nearest boundary of the linearised network, among the `classes` classes of largest logit,
    until the prediction changes at the input plus (1 + overshoot) times the steps so far. Infinite where no class can
    be reached. `inputs` and the network's weights stay as they are.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _perturbation(network, inputs.clone(), overshoot, iterations, classes)


def _perturbation(network: nn.Module, inputs: Tensor, overshoot: float, iterations: int, classes: int) -> Tensor:
    total = torch.zeros_like(inputs)
    unreachable = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    own = None
    going = torch.arange(len(inputs), device=inputs.device)
    for _ in range(iterations):
        x = (inputs[going] + (1 + overshoot) * total[going]).requires_grad_()
        logits = network(x.clone()).float()  # a copy, in which the first layer may work in place
        if own is None:
            own = logits.argmax(1)
            others = logits.topk(min(classes, logits.shape[1]), dim=1).indices
        same = logits.argmax(1) == own[going]
        step = _step(x, logits, own[going], others[going])
        found = torch.isfinite(step.flatten(1)).all(1)
        unreachable[going[same & ~found]] = True
        moving = same & found
        total[going[moving]] += step[moving]
        going = going[moving]
        if not len(going):
            break
    norms = (1 + overshoot) * total.flatten(1).norm(dim=1)
    return norms.masked_fill(unreachable, torch.inf)


def _step(x: Tensor, logits: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Return the step from x to the nearest of the linearised boundaries; not finite where none is there."""
    nearest = torch.full((len(x),), torch.inf, device=x.device)
    step = torch.full_like(x, torch.nan)
    gap = logits.gather(1, others) - logits.gather(1, own[:, None])
    for k in range(others.shape[1]):
        (normal,) = torch.autograd.grad(gap[:, k].sum(), x, retain_graph=k + 1 < others.shape[1])
        squared = normal.flatten(1).square().sum(1)
        distance = torch.where(squared > 0, gap[:, k].detach().abs() / squared.sqrt(), torch.inf)
        closer = (distance < nearest) & (others[:, k] != own)
        nearest[closer] = distance[closer]
        scale = gap[closer, k].detach().abs() / squared[closer]
        step[closer] = scale.view(-1, *[1] * (x.ndim - 1)) * normal[closer]
    return step


def resolve_cal(classes: int, features: int, *, neighbours: int) -> dict[str, object]:
    """Refuse what cannot be."""
    if neighbours < 1:
        raise UserError(f"neighbours must be a whole number of at least 1, not {neighbours}")
    return {"neighbours": int(neighbours)}


def resolve_deep_fool(
    classes_of_layer: int, features: int, overshoot: float, iterations: int, classes: int
) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 <= overshoot < float("inf"):
        raise UserError(f"overshoot must be 0 or more and finite, not {overshoot}")
    for name, value, least in (("iterations", iterations, 1), ("classes", classes, 2)):
        if value < least:
            raise UserError(f"{name} must be a whole number of at least {least}, not {value}")
    return {"overshoot": float(overshoot), "iterations": int(iterations), "classes": int(classes)}


CAL = Method("CAL", cal, resolve=resolve_cal)
DEEP_FOOL = Method("DeepFool", deep_fool, needs=(NETWORK,), resolve=resolve_deep_fool)
