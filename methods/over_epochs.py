"""How predictions change over the epochs of pretraining: DUAL, Dyn-Unc, TDDS and EVA."""

import math

import torch
from torch import Tensor

from lcmat.errors import UserError
from lcmat.method_options import check_numbers
from lcmat.selection import Method, Picks
from lcmat.selection.difficulty import EARLY, WINDOW, dual_score, own_probability, std_over_epochs, window_mean
from lcmat.selection.ranking import ranked
from lcmat.signals import Signals
from lcmat.signals.needs import DYNAMICS_CHANGE, DYNAMICS_ERROR_NORM, DYNAMICS_LOSS

# DUAL's sampling: the sum a + b of the Beta distribution less 1, and how many top scores its centre is the mean of.
CONCENTRATION, TOP = 15.0, 10
# TDDS: epochs and window that its paper takes where so large a share is removed.
TDDS_SETTINGS = {0.3: (90, 10), 0.5: (70, 10), 0.7: (60, 20), 0.8: (20, 10), 0.9: (10, 5)}


def dyn_unc(signals: Signals, budget: int, generator: torch.Generator, *, window: int = 10) -> Picks:
    """Choose the largest mean over windows of epochs of std(p_y) within a window (He et al., CVPRW 2024)."""
    return Picks(ranked(window_mean(own_probability(signals), window, std_over_epochs), budget))


def dual(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    window: int = WINDOW,
    epochs: int = EARLY,
    sampling: bool = True,
    power: float = 4.0,
) -> Picks:
    """Choose by uncertainty times difficulty in the first epochs, drawn towards easy samples (Cho et al., ICML 2025).

    The score is the mean over windows of std(p_y) (1 − mean p_y). Samples are drawn without replacement, by
    probabilities ∝ score · Beta(μ; a, b), μ the mean p_y of these epochs: b = 15 (1 − μ̄)(1 − r^power) and a = 16 − b
    for the share r that is removed and the mean μ̄ over the ten highest scores. Without `sampling` these are chosen.
    """
    probability = own_probability(signals)[:epochs]
    score = dual_score(probability, window, epochs)
    if not sampling:
        return Picks(ranked(score, budget))
    centre, removed = probability.mean(0), 1 - budget / len(signals)
    easy = float(centre[ranked(score, TOP)].mean())
    b = CONCENTRATION * (1 - easy) * (1 - removed**power)
    log_weight = score.log() + _log_beta_shape(centre, CONCENTRATION + 1 - b, b)
    # Successive draws by these weights are the order of log weight + Gumbel noise; what weighs nothing comes last.
    noise = torch.rand(len(signals), generator=generator, dtype=torch.float64).to(score.device)
    gumbel = -(-noise.clamp(min=1e-300).log()).log()
    drawn = ranked(torch.where(score > 0, log_weight + gumbel, -torch.inf), int((score > 0).sum()))
    rest = (score <= 0).nonzero()[:, 0]
    rest = rest[ranked(gumbel[rest], len(rest))]
    return Picks(torch.cat([drawn, rest])[:budget])


def _log_beta_shape(x: Tensor, a: float, b: float) -> Tensor:
    """Return log x^(a−1) (1−x)^(b−1): the density's logarithm but for a constant, finite at the ends."""
    smallest = torch.finfo(x.dtype).tiny
    return (a - 1) * x.clamp(min=smallest).log() + (b - 1) * torch.log1p(-x).clamp(min=math.log(smallest))


def tdds(
    signals: Signals,
    budget: int,
    generator: torch.Generator,
    *,
    epochs: int | None = None,
    window: int | None = None,
    newest: float = 0.9,
) -> Picks:
    """Choose the largest variation of how much predictions change (Zhang et al., CVPR 2024, TDDS).

    K_t = Σ_c |p_t log(p_t / p_{t−1})|. A window of J epochs has J − 1 of them, and the norm of their differences from
    their mean; the score is Σ_k newest (1 − newest)^(T−J−k) times that of window k = 0 … T−J. T epochs and J are the
    paper's for the nearest share removed unless given; no more than there are.
    """
    change = signals.dynamics["change"].double().contiguous()
    if bool((change < 0).any()):
        raise UserError("dynamics 'change' hold a value below 0; they must be sums of |p log(p / p')|")
    removed = 1 - budget / len(signals)
    usual = TDDS_SETTINGS[min(TDDS_SETTINGS, key=lambda share: abs(share - removed))]
    last = min(epochs or usual[0], len(change))
    size = min(window or usual[1], last)
    score = torch.zeros_like(change[0])
    for first in range(last - size + 1):
        part = change[first + 1 : first + size]
        if len(part):
            score = (1 - newest) * score + newest * (part - part.mean(0)).norm(dim=0)
    return Picks(ranked(score, budget))


def eva(signals: Signals, budget: int, generator: torch.Generator, *, window: int = 10) -> Picks:
    """Choose the largest variance of ‖p − onehot(y)‖ in an early window plus that in a late one (Hong et al., MM 2024).

    The windows are the first and the last `window` epochs, or halves where there are fewer.
    """
    error = signals.dynamics["error_norm"].double().contiguous()
    size = min(window, (len(error) + 1) // 2)
    return Picks(
        ranked(std_over_epochs(error[:size]).square() + std_over_epochs(error[len(error) - size :]).square(), budget)
    )


def resolve_window(classes: int, features: int, *, window: int) -> dict[str, object]:
    """Refuse what cannot be."""
    check_numbers({"window": window}, at_least_one=("window",))
    return {"window": window}


def resolve_dual(classes: int, features: int, **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    check_numbers(options, at_least_one=("window", "epochs"), positive=("power",))
    return options


def resolve_tdds(classes: int, features: int, **options: object) -> dict[str, object]:
    """Refuse what cannot be."""
    given = {name: value for name, value in options.items() if value is not None}
    check_numbers(given, at_least_one=("epochs",), at_least_two=("window",))
    if not 0 < options["newest"] <= 1:
        raise UserError(f"newest must lie above 0 and at most at 1, not {options['newest']}")
    return options


DYN_UNC = Method("Dyn-Unc", dyn_unc, needs=(DYNAMICS_LOSS,), resolve=resolve_window)
DUAL = Method("DUAL", dual, needs=(DYNAMICS_LOSS,), nested=False, resolve=resolve_dual)
TDDS = Method("TDDS", tdds, needs=(DYNAMICS_CHANGE,), nested=False, resolve=resolve_tdds)
EVA = Method("EVA", eva, needs=(DYNAMICS_ERROR_NORM,), resolve=resolve_window)
