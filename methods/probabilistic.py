"""Probabilistic: inclusion probabilities learned by policy gradient (Zhou et al., ICML 2022)."""

import hashlib
import math
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lcmat import seeds
from lcmat.alive import Progress
from lcmat.errors import UserError
from lcmat.expected import array, each, fields, of, real
from lcmat.files import load_checkpoint, save_tensors
from lcmat.journal import note
from lcmat.selection import Context, Method, Picks
from lcmat.selection.context import TRAINING_RECIPE
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.training import DivergedError, Watch, predictions, train


def probabilistic(
    signals: Signals,
    budgets: list[int],
    generator: torch.Generator,
    groups: list[Tensor],
    context: Context,
    *,
    outer_steps: int = 100,
    inner_epochs: int = 20,
    step: float = 0.1,
) -> list[Picks]:
    """Minimise E_{m ~ Bernoulli(s)} L(θ*(m)) over 0 ≤ s ≤ 1, Σ_{group} s = budget; keep the largest s.

    Each of `outer_steps` draws a mask m, trains a network on it for `inner_epochs` (always from the same weights, so
    that losses differ by the mask alone) and takes the loss L over all samples. s goes against the policy gradient
    L ∇ log p(m|s) = L (m − s)/(s(1 − s)), here with the losses so far as baseline and scale, and times
    s(1 − s) (the natural gradient: its variance stays bounded where s is small), and is projected back.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    count = len(signals)
    s, losses = torch.zeros(count, dtype=torch.float64), []
    groups = [group.cpu() for group in groups]
    for group, budget in zip(groups, budgets, strict=True):
        s[group] = budget / len(group)
    if sum(budgets) == count:  # nothing to learn
        return [Picks(torch.randperm(budget, generator=generator)) for budget in budgets]
    identity = _identity(context, seed, budgets, outer_steps, inner_epochs, step)
    s, losses, before = _restored(context, identity, s, losses)
    context.took(before)
    began = time.monotonic() - before
    bar = Progress(range(len(losses), outer_steps), initial=len(losses), total=outer_steps, desc="Probabilistic",
               disable=None)  # fmt: skip
    for t in bar:
        mask = _drawn(s, seeds.generator(seed, "mask", t))
        losses.append(loss_after_training(context, mask, inner_epochs, seed))
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
        note("Probabilistic", t + 1, loss=losses[-1])
        s = _updated(s, mask, losses, step, groups, budgets)
        if context.checkpoint is not None:
            kept = {"identity": identity, "s": s, "losses": losses, "seconds": time.monotonic() - began}
            save_tensors(context.checkpoint, kept)
    order = torch.randperm(count, generator=seeds.generator(seed, "ties"))
    place = torch.empty_like(order)
    place[order] = torch.arange(count)
    picks = []
    for group, budget in zip(groups, budgets, strict=True):
        shuffled = place[group].argsort()  # what no mask has told apart is chosen at random
        picks.append(Picks(shuffled[ranked(s[group][shuffled], budget)]))
    return picks


def projected(s: Tensor, budget: int) -> Tensor:
    """Return the point of {0 ≤ s ≤ 1, Σ s = budget} nearest to s (n,), by bisection on the shift."""
    low, high = s.min() - 1, s.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (s - middle).clamp(0, 1).sum() > budget else (low, middle)
    return (s - high).clamp(0, 1)


def _updated(
    s: Tensor, mask: Tensor, losses: list[float], step: float, groups: list[Tensor], budgets: list[int]
) -> Tensor:
    known = torch.tensor(losses, dtype=torch.float64)
    known = known[torch.isfinite(known)]
    if len(known) < 2 or not math.isfinite(losses[-1]) or float(known.std()) == 0:
        return s
    advantage = (losses[-1] - float(known.mean())) / float(known.std())
    s = s - step * advantage * (mask.double() - s)
    for group, budget in zip(groups, budgets, strict=True):
        s[group] = projected(s[group], budget)
    return s


def _drawn(s: Tensor, draw: torch.Generator) -> Tensor:
    """Draw a mask (n,) of at least two samples, which BatchNorm needs."""
    mask = torch.rand(len(s), generator=draw, dtype=torch.float64) < s
    if int(mask.sum()) < 2:
        mask[torch.randperm(len(s), generator=draw)[:2]] = True
    return mask


def loss_after_training(context: Context, mask: Tensor, epochs: int, seed: int) -> float:
    """Return the mean cross-entropy over all samples of a network trained on the masked ones; ∞ if that diverged."""
    network = context.fresh_network(0)
    chosen = context.split.take(mask.nonzero()[:, 0])
    recipe = replace(context.recipe, epochs=epochs)
    try:
        train(network, chosen, recipe, context.compute, seed=seed, watch=Watch(label="inner"))
    except DivergedError:
        return float("inf")
    total = 0.0
    with torch.no_grad():
        for logits, labels, _ in predictions(network, context.split, context.compute):
            total += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
    return total / len(context.split) if math.isfinite(total) else float("inf")


def _identity(context: Context, seed: int, budgets: list[int], *options: float) -> str:
    """Return a hash of all that the search depends on."""
    what = (seed, budgets, options, context.recipe, str(context.compute.precision), context.split.fingerprint())
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _restored(context: Context, identity: str, s: Tensor, losses: list[float]) -> tuple[Tensor, list[float], float]:
    """Return s, the losses and the seconds that they took, as far as they are kept."""
    if not (context.resume and context.checkpoint is not None and context.checkpoint.exists()):
        return s, losses, 0.0
    loss = of(float)  # of a training that diverged it is infinite
    expected = {"identity": of(str), "s": array(None, kinds="F"), "losses": each(loss)}
    state = load_checkpoint(context.checkpoint, fields(expected, {"seconds": real(0)}))
    if state["identity"] != identity:
        raise UserError(f"checkpoint {context.checkpoint} is of another selection; remove it or leave --resume out")
    return state["s"], state["losses"], state.get("seconds", 0.0)


def resolve(classes: int, features: int, *, outer_steps: int, inner_epochs: int, step: float) -> dict[str, object]:
    """Refuse what cannot be."""
    for name, value in (("outer_steps", outer_steps), ("inner_epochs", inner_epochs)):
        if value < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {value}")
    if not 0 < step < float("inf"):
        raise UserError(f"step must be above 0 and finite, not {step}")
    return {"outer_steps": int(outer_steps), "inner_epochs": int(inner_epochs), "step": float(step)}


PROBABILISTIC = Method(
    "Probabilistic", probabilistic, needs=(TRAINING_RECIPE,), nested=False, picks_all_groups=True, resolve=resolve
)
