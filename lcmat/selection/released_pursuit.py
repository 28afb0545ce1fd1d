"""The matching pursuit of the released GradMatch: λ = 1 whatever the gradients' size, weights by NNLS at the end alone.

Lines: github.com/SJShin-AI/LCMat at 3d74891, LCMat_main/deepcore/methods/gradmatch.py.
"""

from __future__ import annotations

import torch
from scipy.optimize import nnls
from torch import Tensor

from lcmat.selection.matching_pursuit import products
from lcmat.selection.ranking import first_largest

# λ (line 30).
PENALTY = 1.0


def released_pursuit(a: Tensor, h: Tensor, target: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Choose up to `budget` of n vectors g_i = a_i ⊗ h_i that together come near to the target.

    a (n, C), h (n, D), target (C, D). Each step adds the vector of largest ⟨g, residual⟩ (line 60), where the residual
    is that of (K + λ)x = ⟨g, target⟩ (lines 76-78), of the first one without λ (line 71). The weights are at last
    argmin over w ≥ 0 of ‖(K + λ)w − ⟨g, target⟩‖ (line 80), or 1 of a single one (line 83), and the vectors of weight 0
    are left out (line 263). Returns indices in the order chosen, and weights.
    """
    left = torch.ones(len(a), dtype=torch.bool, device=a.device)
    aim, residual = products(a, h, target), target
    gram, factor = (a.new_zeros(budget, budget) for _ in range(2))
    chosen: list[int] = []
    for t in range(budget):
        pick = first_largest(products(a, h, residual).masked_fill(~left, -torch.inf))
        chosen.append(pick)
        left[pick] = False
        gram[t, : t + 1] = gram[: t + 1, t] = (a[chosen] @ a[pick]) * (h[chosen] @ h[pick])
        row = torch.linalg.solve_triangular(factor[:t, :t], gram[:t, t, None], upper=False)[:, 0]
        factor[t, :t], factor[t, t] = row, (gram[t, t] + PENALTY - row @ row).sqrt()
        if t == 0:
            x = aim[chosen] / gram[0, 0]
        else:
            x = torch.cholesky_solve(aim[chosen, None], factor[: t + 1, : t + 1])[:, 0]
        residual = target - (a[chosen] * x[:, None]).T @ h[chosen]
    indices = torch.tensor(chosen, device=a.device)
    if budget == 1:
        return indices, a.new_ones(1)
    matrix = gram + PENALTY * torch.eye(budget, dtype=a.dtype, device=a.device)
    weights = torch.from_numpy(nnls(matrix.cpu().numpy(), aim[indices].cpu().numpy())[0]).to(a)
    return indices[weights > 0], weights[weights > 0]
