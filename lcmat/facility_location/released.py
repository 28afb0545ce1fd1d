"""The greedy of the code released with LCMat, number for number: similarities and gains in float32.

Lines: github.com/SJShin-AI/LCMat at 3d74891, LCMat_main/deepcore/methods/.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lcmat import seeds
from lcmat.distances.matrix import Matrix
from lcmat.facility_location.approximate import covering
from lcmat.facility_location.cover import Cover, check_budget

# The released similarity is this less the distance; a sample without a pick has similarity 0 (submodular_function.py 36).
TEN = 10.0
# What one operation in float32 rounds by, as a share of its result; rows of a block of gains.
ROUNDING, ROWS = 2.0**-24, 512


def cover_in_float32(distances: Tensor, budget: int, constant: float | None) -> Cover:
    """Choose `budget` of n samples by their distances (n, n) in float32, as the released `NaiveGreedy` does.

    constant: the similarity is this less the distance; None: the largest distance. Costs and cluster sizes are those of
    the distances, in float64; a bound is not known.
    """
    check_budget(budget, len(distances))
    most = distances.max() if constant is None else constant
    picks = naive_greedy(most - distances, budget)
    cover = covering(Matrix(distances), picks, seeds.generator(0, "never drawn from"))
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
