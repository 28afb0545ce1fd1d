"""The greedy of the code released with LCMat, number for number: similarities and gains in float32.

Lines: github.com/SJShin-AI/LCMat at 3d74891, LCMat_main/deepcore/methods/.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lcmat.distances import Matrix
from lcmat.errors import UserError
from lcmat.facility_location.approximate import covering
from lcmat.facility_location.cover import Cover, check_budget
from lcmat.facility_location.lazy import NOT_FINITE

# The released similarity is this less the distance, and starts at 0 (submodular.py 157, submodular_function.py 36).
TEN = 10.0
# What one operation in float32 rounds by, as a share of its result; rows of a block of gains.
ROUNDING, ROWS = 2.0**-24, 512


def only_exact(float32: bool, greedy: object) -> None:
    """Raise UserError for another greedy in float32 than the exact one."""
    if float32 and str(greedy).casefold() != "exact":
        raise UserError(f"float32 is for the exact greedy alone, not for --greedy {greedy}")


def cover_in_float32(distances: Tensor, budget: int, generator: torch.Generator, ten: bool) -> Cover:
    """Choose `budget` of n samples by their distances (n, n) in float32, as the released `NaiveGreedy` does.

    ten: similarities are 10 − D, else max D − D. Costs and cluster sizes are those of the distances, or of 10 where
    that is less, in float64; a bound is not known. `generator` is drawn from if n · budget distances are too many.
    Raises UserError if the largest distance is not finite and no similarity starts at 0.
    """
    check_budget(budget, len(distances))
    distances = distances.clamp(max=TEN) if ten else distances
    most = TEN if ten else float(distances.max())
    if not math.isfinite(most):
        raise UserError(NOT_FINITE)
    cover = covering(Matrix(distances), naive_greedy(most - distances, budget), generator)
    return replace(cover, exact=True)  # its picks are nested


@torch.inference_mode()
def naive_greedy(similarity: Tensor, budget: int) -> Tensor:
    """Return `budget` positions, each the first of the largest gain Σ_i max(0, s_i − current_i), in float32.

    From submodular_optimizer.py 23-40 and submodular_function.py 36, 60 and 74. A gain there is summed row by row in
    float32, and that decides between candidates. Here sums in float64, kept up to date, say which candidates could be
    the largest within float32's rounding, and only theirs are summed so.
    """
    n = len(similarity)
    current = torch.zeros(n, dtype=similarity.dtype, device=similarity.device)
    highest = similarity.amax(1)
    gains, slack = _sums(similarity, current), 1e-12 * n * float(highest.abs().max())
    left = torch.ones(n, dtype=torch.bool, device=similarity.device)
    picks = []
    while len(picks) < budget:
        if bool((highest <= current).all()):  # no gain is left, so that the first ones tie
            rest = left.nonzero()[: budget - len(picks), 0]
            return torch.tensor([*picks, *rest.tolist()], device=similarity.device)
        best = gains.masked_fill(~left, -torch.inf).max()
        among = (left & (gains >= best - 2 * n * ROUNDING * best.abs() - slack)).nonzero()[:, 0]
        pick = int(among[0] if len(among) == 1 else among[_largest_in_float32(similarity[:, among], current)])
        picks.append(pick)
        left[pick] = False
        new = torch.maximum(current, similarity[:, pick])
        closer = (new > current).nonzero()[:, 0]
        gains -= _sums(similarity[closer], current[closer]) - _sums(similarity[closer], new[closer])
        current = new
    return torch.tensor(picks, device=similarity.device)


def _sums(similarity: Tensor, current: Tensor) -> Tensor:
    """Return Σ max(0, s − current) over the rows, of differences in float32, in float64."""
    total = torch.zeros(similarity.shape[1], dtype=torch.float64, device=similarity.device)
    for rows, own in zip(similarity.split(ROWS), current.split(ROWS), strict=True):
        total += (rows - own[:, None]).clamp_(min=0).sum(0, dtype=torch.float64)
    return total


def _largest_in_float32(similarity: Tensor, current: Tensor) -> int:
    """Return the first column of the largest gain, summed row by row in float32 as NumPy does."""
    gains = (similarity - current[:, None]).clamp_(min=0).cpu().numpy()
    return int(np.add.accumulate(gains, 0)[-1].argmax())
