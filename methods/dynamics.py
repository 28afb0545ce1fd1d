"""What was seen while the network was pretrained: Forgetting and CCS."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lcmat.errors import UserError, lookup
from lcmat.selection import Method, Picks
from lcmat.selection.difficulty import SCORES, difficulty, forgetting_counts, needs_of
from lcmat.selection.ranking import TOO_LARGE, ranked
from lcmat.signals import Signals
from lcmat.signals.needs import DYNAMICS_CORRECTNESS, DYNAMICS_PROBABILITY_MARGIN


def forgetting(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
    """Choose what was forgotten most often: right in one epoch and wrong in the next (Toneva et al., ICLR 2019).

    What was never right counts as forgotten infinitely often. Counts are small integers, so most samples tie; ties
    are broken at random, for the order of a file may mean something.
    """
    count, never = forgetting_counts(signals)
    count[never] = torch.inf
    shuffled = torch.randperm(len(signals), generator=generator).to(count.device)
    return Picks(shuffled[ranked(count[shuffled], budget)])


# The entry of the dynamics that a margin is.
MARGINS = {"probability": "probability_margin", "logit": "margin"}


def ccs(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    beta: float = 0.3,
    bins: int = 50,
    margin: str = "probability",
    score: str = "AUM",
) -> Picks:
    """Choose evenly over the range of difficulty, without the hardest (Zheng et al., ICLR 2023, Algorithm 1).

    Difficulty is the area under the margin, the mean over epochs of score_y − max_{c≠y} score_c: low is hard. Scores
    are probabilities as in the paper's code, or logits as where the measure comes from (Pleiss et al., NeurIPS 2020).
    Other measures: `score` (`lcmat.selection.difficulty`). The share `beta` of the hardest is dropped (fewer, if the
    budget needs them); the rest falls into `bins` bins of equal width, from each of which equally many are drawn at
    random, what a small bin lacks coming from the others.
    """
    area = signals.dynamics[MARGINS[margin]].double().mean(0) if score == "AUM" else -difficulty(signals, score)
    if not bool(torch.isfinite(area).all()):
        raise UserError(TOO_LARGE)
    dropped = min(int(beta * len(area) + 1e-9), len(area) - budget)  # 0.29 · 100 is a little less than 29
    kept = area.sort(stable=True).indices[dropped:].sort().values
    bin_of = _bins(area[kept], bins)
    members = [kept[(bin_of == b).nonzero()[:, 0]] for b in bin_of.unique()]
    members.sort(key=len)  # smallest first: what it lacks is shared among those that follow
    chosen, wanted = [], budget
    for position, member in enumerate(members):
        share = min(len(member), wanted // (len(members) - position))
        chosen.append(member[torch.randperm(len(member), generator=generator)[:share].to(member.device)])
        wanted -= share
    return Picks(torch.cat(chosen))


def _bins(values: Tensor, count: int) -> Tensor:
    """Return in which of `count` bins of equal width over their range the values (n,) lie."""
    low, high = values.min(), values.max()
    if low == high:
        return torch.zeros_like(values, dtype=torch.int64)
    return ((values - low) / (high - low) * count).long().clamp(max=count - 1)


def resolve_ccs(classes: int, features: int, *, beta: float, bins: int, margin: str, score: str) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 0 <= beta < 1:
        raise UserError(f"beta must be at least 0 and below 1, not {beta}")
    if bins < 1:
        raise UserError(f"bins must be a whole number of at least 1, not {bins}")
    score, margin = lookup("score", str(score), SCORES), lookup("margin", str(margin), MARGINS)
    # Of another score than AUM, the margin is not read.
    margin = margin if score == "AUM" else CCS.unrecorded["margin"]
    return {"beta": float(beta), "bins": int(bins), "margin": margin, "score": score}


def needs_of_ccs(options: Mapping[str, object]) -> tuple[str, ...]:
    """Return what CCS's score is computed from."""
    if lookup("score", str(options.get("score", "AUM")), SCORES) != "AUM":
        return needs_of(options["score"])
    return (f"dynamics.{MARGINS[lookup('margin', str(options.get('margin', 'probability')), MARGINS)]}",)


FORGETTING = Method("Forgetting", forgetting, needs=(DYNAMICS_CORRECTNESS,))
CCS = Method(
    "CCS", ccs, needs=(DYNAMICS_PROBABILITY_MARGIN,), nested=False, resolve=resolve_ccs, needs_under=needs_of_ccs,
    unrecorded={"margin": "logit", "score": "AUM"},  # records made before there was a choice are of logits
)  # fmt: skip
