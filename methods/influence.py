"""Influential: leave out what changes the trained parameters least (Yang et al., Dataset Pruning, ICLR 2023)."""

from collections.abc import Callable

import torch
from torch import Tensor

from lcmat import memory_limit
from lcmat.distances.vectors import symmetric
from lcmat.effort import effort
from lcmat.errors import UserError
from lcmat.last_layer import gradient_factors, parameters_per_class, probabilities
from lcmat.selection import Method, Picks
from lcmat.selection.ranking import TOO_LARGE, first_largest
from lcmat.signals import Signals

# A mean curvature below this is none.
TINY = 1e-280
# Samples whose part of the Hessian is summed at once.
ROWS = 2048


def influential(
    signals: Signals,
    budgets: list[int],
    generator: torch.Generator,
    groups: list[Tensor],
    *,
    damping: float = 0.01,
    swaps: int = 100,
) -> list[Picks]:
    """Keep `budget` samples such that the removed set R has the smallest ‖Σ_{i∈R} H⁻¹ g_i‖₂.

    H is the Hessian of the mean loss of *all* samples in the last layer, plus `damping` times the mean of its diagonal
    on the diagonal. Both are taken in an orthonormal basis of the (C−1)(d+1) directions whose entries sum to zero over
    the classes, since H and g vanish in the others; so the mean is trace(H)/((C−1)(d+1)), C/(C−1) times that over all
    C(d+1) parameters. The paper leaves the damping open.
    Greedy choice of the kept set, and of the removed set, each time the sample that leaves the smallest norm; then up
    to `swaps` best exchanges of a kept for a removed sample while these lower it; the better of the two counts.
    Of more than 20,000 samples, only the smaller of the two sets is grown.
    """
    _check_memory(signals, max(len(group) for group in groups))
    influence = _influence(signals, damping)
    return [Picks(keep(influence(group), budget, swaps)) for group, budget in zip(groups, budgets, strict=True)]


def _check_memory(signals: Signals, samples: int) -> None:
    """Raise UserError where the influences of the largest group do not fit into what is free."""
    width = (signals.logits.shape[1] - 1) * parameters_per_class(signals)
    size = (2 if width > effort().exact_parameters else 1) * samples * width * 8
    if size > memory_limit.free(signals.labels.device):
        raise UserError(
            f"Influential needs {size / 1e9:.1f} GB for the influences of {samples:,} samples at once, which is more "
            f"than is free; select class by class, or with another method"
        )


def keep(vectors: Tensor, budget: int, swaps: int) -> Tensor:
    """Return which `budget` of n vectors (n, D) to keep so that the sum of the others is small."""
    n = len(vectors)
    total = vectors.sum(0)
    gram = None
    if memory_limit.fits(n**2 * vectors.element_size(), memory_limit.OF_A_MATRIX, vectors.device):
        gram = symmetric(n, lambda index, start: vectors[index] @ vectors[start:].T)
    tries = []
    if n <= effort().both_ways or budget <= n - budget:
        tries.append(_greedy(vectors, gram, total, budget, subtract=True))
    if n <= effort().both_ways or budget > n - budget:
        removed = _greedy(vectors, gram, torch.zeros_like(total), n - budget, subtract=False)
        left = torch.ones(n, dtype=torch.bool, device=vectors.device)
        left[removed] = False
        tries.append(left.nonzero()[:, 0])
    tries = [_swapped(vectors, gram, kept, swaps) for kept in tries]
    norms = [float((total - vectors[kept].sum(0)).norm()) for kept in tries]
    return tries[-1] if norms[-1] < norms[0] * (1 - 1e-6) else tries[0]  # often both ways end in the same set


def _greedy(vectors: Tensor, gram: Tensor | None, rest: Tensor, count: int, subtract: bool) -> Tensor:
    """Take `count` vectors off `rest` (or add them to it), each time the one that leaves the smallest norm."""
    sign = -1.0 if subtract else 1.0
    squared_norm = vectors.square().sum(1)
    inner = vectors @ rest
    left = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    taken = []
    for _ in range(count):
        pick = first_largest((-2 * sign * inner - squared_norm).masked_fill(~left, -torch.inf))
        taken.append(pick)
        left[pick] = False
        inner += sign * (vectors @ vectors[pick] if gram is None else gram[pick])
    return torch.tensor(taken, dtype=torch.int64, device=vectors.device)


def _swapped(vectors: Tensor, gram: Tensor | None, kept: Tensor, swaps: int) -> Tensor:
    """Exchange kept for removed samples, the best exchange first, while the norm of the removed sum falls."""
    kept = kept.clone()
    squared_norm = vectors.square().sum(1)
    removed = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    removed[kept] = False
    out = removed.nonzero()[:, 0]
    rest = vectors[out].double().sum(0)
    inner = vectors @ rest.to(vectors.dtype)
    for _ in range(swaps if len(out) else 0):
        # ‖rest − v_i + v_j‖² − ‖rest‖² for i back into the kept set and j out of it
        back, away = squared_norm[out] - 2 * inner[out], squared_norm[kept] + 2 * inner[kept]
        i, j = (side.topk(min(effort().shortlist, len(side)), largest=False).indices for side in (back, away))
        between = vectors[out[i]] @ vectors[kept[j]].T if gram is None else gram[out[i]][:, kept[j]]
        change = back[i, None] + away[j] - 2 * between
        best = int(change.argmin())
        row, column = i[best // len(j)], j[best % len(j)]
        moved = rest - vectors[out[row]].double() + vectors[kept[column]].double()
        if not float(moved.norm()) < float(rest.norm()) * (1 - 1e-9):
            break
        rest = moved
        inner = vectors @ rest.to(vectors.dtype) if gram is None else inner - gram[out[row]] + gram[kept[column]]
        out[row], kept[column] = kept[column].clone(), out[row].clone()
    return kept


def _influence(signals: Signals, damping: float) -> Callable[[Tensor], Tensor]:
    """Return a function from positions (b,) to the influences H⁻¹g, (b, D) in an orthonormal basis, up to a factor."""
    a, h = gradient_factors(signals)
    p, _ = probabilities(signals.logits)
    # a sums to zero over the classes, and H maps such vectors to such: one class less, in an orthonormal basis.
    basis = _zero_sum_basis(p.shape[1]).to(p)
    width = basis.shape[1] * h.shape[1]
    dtype = torch.float64 if width <= effort().double_parameters else torch.float32
    if width <= effort().exact_parameters:
        inverse = _damped_inverse(_hessian(p, h, basis), damping).to(dtype)
        return lambda i: _outer((a[i] @ basis).to(dtype), h[i].to(dtype)) @ inverse
    # The eigenvectors of a Kronecker product are those of its factors; in their basis it is divided by.
    values_p, vectors_p = torch.linalg.eigh(_mean_class_hessian(p, basis))
    values_h, vectors_h = torch.linalg.eigh(h.T @ h / len(h))
    values = torch.outer(values_p.clamp(min=0), values_h.clamp(min=0)).flatten()
    values /= max(float(values.mean()), TINY)
    scale = 1 / (values + damping)
    return lambda i: (_outer((a[i] @ basis) @ vectors_p, h[i] @ vectors_h) * scale).to(dtype)


def _zero_sum_basis(classes: int) -> Tensor:
    """Return an orthonormal basis (C, C−1) of the vectors that sum to zero."""
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return torch.linalg.qr(centred[:, : classes - 1]).Q


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return (left[:, :, None] * right[:, None, :]).flatten(1)


def _mean_class_hessian(p: Tensor, basis: Tensor) -> Tensor:
    """Return the mean of diag(p) − ppᵀ over the samples, in the basis."""
    return basis.T @ (torch.diag(p.mean(0)) - p.T @ p / len(p)) @ basis


def _hessian(p: Tensor, h: Tensor, basis: Tensor) -> Tensor:
    """Return the Hessian of the mean loss, mean of (diag(p) − ppᵀ) ⊗ h̃h̃ᵀ, in the basis; block by block."""
    classes, width = basis.shape[1], h.shape[1]
    hessian = torch.zeros(classes, classes, width, width, dtype=h.dtype, device=h.device)
    for q, features in zip(p.split(ROWS), h.split(ROWS), strict=True):
        mean = q @ basis
        for k in range(classes):
            for l in range(k + 1):  # noqa: E741
                # Σ_c p_c (Q_ck − m_k)(Q_cl − m_l), which keeps its digits where one class is nearly sure.
                factor = (q * (basis[:, k] - mean[:, k, None]) * (basis[:, l] - mean[:, l, None])).sum(1)
                hessian[k, l].addmm_((features * factor[:, None]).T, features)
    for k in range(classes):
        hessian[:k, k] = hessian[k, :k]
    return hessian.permute(0, 2, 1, 3).reshape(classes * width, classes * width).div_(len(h))


def _damped_inverse(hessian: Tensor, damping: float) -> Tensor:
    """Return (H/m + damping I)⁻¹, m the mean of the diagonal: m times the inverse, which leaves all comparisons."""
    if not torch.isfinite(hessian).all():
        raise UserError(TOO_LARGE)
    hessian /= max(float(hessian.diagonal().mean()), TINY)  # H is 0 where every prediction is sure to all digits
    hessian.diagonal().add_(damping)
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))


def resolve(classes: int, features: int, *, damping: float, swaps: int) -> dict[str, object]:
    """Refuse what cannot be."""
    if not 1e-9 <= damping < float("inf"):
        raise UserError(f"damping must be at least 1e-9 and finite, not {damping}")
    if swaps < 0:
        raise UserError(f"swaps must be a whole number of 0 or more, not {swaps}")
    return {"damping": float(damping), "swaps": int(swaps)}


INFLUENTIAL = Method("Influential", influential, nested=False, picks_all_groups=True, resolve=resolve)
