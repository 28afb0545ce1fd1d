"""What LCMat-S should compute, in the plainest way: everything formed, nothing factored, nothing fast.

Written from the paper's definitions (Eq. 8-12) alone and sharing no code with the library, so that a mistake there is
not repeated here. For cross-entropy and a linear last layer with input h~ = [h, 1], p = softmax(logits) and
a = p - onehot(y), the gradient is g = a (x) h~ and the Hessian's diagonal lambda = p(1-p) (x) h~^2, both flattened row
by row to C(d+1).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import mpmath
import numpy as np
import torch
from scipy.spatial.distance import cdist

# How far a pick's gain may fall short of the best, as a share of the cost L(S) still left before the pick. A gain is a
# sum of m_i - D_ij >= 0 over the samples it helps, so a relative error e in the distances moves it by at most 2e L(S),
# and its summation by less. (A share of n * max D would hide any fault once the far samples are covered.) Exact
# mathematical ties, such as of two mutually nearest uncovered samples, fall inside.
# Both sides read the very same matrix: only summing rounds, some hundred terms of 2.2e-16 each.
TIE_MATRIX = 1e-13
# Each side forms its own distances, of some hundred dimensions: relative errors of about 1e-14, but more where the
# library takes a squared distance out of an inner product and cancels: then the digits lost come on top.
TIE_SIGNALS = 1e-12


def one_thread() -> Iterator[None]:
    """A fixture's body: torch on one thread. Thousands of tiny selections on two busy cores take ten times as long
    with two threads, which mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- curvature ------------------------------------------------------------------------------------------------------


def softmax_parts(logits: np.ndarray, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """p and 1 - p, each with full relative precision: 1 - p is the sum of the *other* classes, never a difference."""
    z = np.asarray(logits, dtype=dtype)
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    total = powers.sum(axis=1)
    p = powers / total[:, None]
    rest = np.empty_like(p)
    for c in range(p.shape[1]):
        rest[:, c] = np.delete(powers, c, axis=1).sum(axis=1) / total
    return p, rest


def residuals(logits: np.ndarray, labels: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """a = p - onehot(y); at the label itself -(1 - p)."""
    p, rest = softmax_parts(logits, dtype)
    a = p.copy()
    for i, y in enumerate(np.asarray(labels)):
        a[i, y] = -rest[i, y]
    return a


def extended(features: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """h~ = [h, 1]."""
    h = np.asarray(features, dtype=dtype)
    return np.concatenate([h, np.ones((len(h), 1), dtype=dtype)], axis=1)


def gradients(features: np.ndarray, logits: np.ndarray, labels: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """g, (n, C(d+1))."""
    a, h = residuals(logits, labels, dtype), extended(features, dtype)
    return np.stack([np.outer(a[i], h[i]).ravel() for i in range(len(h))])


def hessians(features: np.ndarray, logits: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """lambda, (n, C(d+1))."""
    p, rest = softmax_parts(logits, dtype)
    h = extended(features, dtype)
    return np.stack([np.outer(p[i] * rest[i], h[i] ** 2).ravel() for i in range(len(h))])


def dominant(diagonal: np.ndarray, K: int) -> np.ndarray:
    """The K dimensions in which lambda varies most, largest first, ties to the lower dimension."""
    return np.argsort(-np.var(diagonal, axis=0), kind="stable")[:K]


def distances(features: np.ndarray, logits: np.ndarray, labels: np.ndarray, rho: float, K: int | None) -> np.ndarray:
    """D of Eq. 10 between all samples given (one class, or everything when unbalanced)."""
    g, diagonal = gradients(features, logits, labels), hessians(features, logits)
    K = min(100, g.shape[1]) if K is None else K
    columns = diagonal[:, dominant(diagonal, K)]
    return cdist(g, g, "euclidean") + 0.5 * rho * cdist(columns, columns, "cityblock")


def head_loss(theta: torch.Tensor, h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one sample as a function of the last layer's parameters [W, b], flattened to (C(d+1),)."""
    weight = theta.reshape(-1, len(h) + 1)
    return torch.nn.functional.cross_entropy((weight[:, :-1] @ h + weight[:, -1])[None], y[None])


def autograd_gradients(head: torch.nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Per-sample gradients, one backward pass each."""
    rows = []
    for h, y in zip(features, labels, strict=True):
        loss = torch.nn.functional.cross_entropy(head(h[None]), y[None])
        of_weight, of_bias = torch.autograd.grad(loss, [head.weight, head.bias])
        rows.append(torch.cat([of_weight, of_bias[:, None]], dim=1).flatten())
    return torch.stack(rows).numpy()


def autograd_hessians(head: torch.nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Diagonals of the full per-sample Hessians."""
    theta = torch.cat([head.weight, head.bias[:, None]], dim=1).detach().flatten()
    rows = []
    for h, y in zip(features, labels, strict=True):
        full = torch.autograd.functional.hessian(lambda t, h=h, y=y: head_loss(t, h, y), theta)
        rows.append(torch.diagonal(full))
    return torch.stack(rows).numpy()


def backpack_both(head: torch.nn.Linear, features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Per-sample gradients and Hessian diagonals by BackPACK, whose mean reduction divides each sample's by N."""
    from backpack import backpack, extend
    from backpack.extensions import BatchDiagHessian, BatchGrad

    layer = extend(head)
    loss = extend(torch.nn.CrossEntropyLoss(reduction="mean"))(layer(features), labels)
    with backpack(BatchGrad(), BatchDiagHessian()):
        loss.backward()
    n = len(features)
    weight, bias = layer.weight, layer.bias
    g = torch.cat([weight.grad_batch, bias.grad_batch[:, :, None]], dim=2).reshape(n, -1) * n
    diagonal = torch.cat([weight.diag_h_batch, bias.diag_h_batch[:, :, None]], dim=2).reshape(n, -1) * n
    return g.detach().numpy(), diagonal.detach().numpy()


def exact_softmax(row: Sequence[float], digits: int = 60) -> tuple[list[mpmath.mpf], list[mpmath.mpf]]:
    """p and 1 - p of one row of logits to `digits` digits, whatever the gaps between them."""
    with mpmath.workdps(digits):
        powers = [mpmath.exp(mpmath.mpf(float(z)) - mpmath.mpf(float(max(row)))) for z in row]
        total = mpmath.fsum(powers)
        p = [e / total for e in powers]
        rest = [mpmath.fsum(powers[:c] + powers[c + 1 :]) / total for c in range(len(powers))]
    return p, rest


# ---- facility location ----------------------------------------------------------------------------------------------


def gain_of_each(D: np.ndarray, picks: Sequence[int]) -> np.ndarray:
    """By how much each sample, added to `picks`, would raise F: sum_i max(0, m_i - D_ij); m_i = c without picks."""
    nearest = D[:, list(picks)].min(axis=1) if len(picks) else np.full(len(D), D.max())
    return np.maximum(nearest[:, None] - D, 0).sum(axis=0)


def naive_greedy(D: np.ndarray, budget: int) -> list[int]:
    """Greedy facility location with all gains recomputed before each pick; ties as computed to the lowest index."""
    picks: list[int] = []
    for _ in range(budget):
        gains = gain_of_each(D, picks)
        gains[picks] = -np.inf
        picks.append(int(np.argmax(gains)))
    return picks


def cost(D: np.ndarray, picks: Sequence[int]) -> float:
    """L(S)."""
    return float(D[:, list(picks)].min(axis=1).sum())


def coverage(D: np.ndarray, picks: Sequence[int]) -> float:
    """F(S) with c = max D."""
    return float((D.max() - D[:, list(picks)]).max(axis=1).sum())


def best_coverage(D: np.ndarray, size: int) -> float:
    """F of the best subset of that size, by trying every one."""
    return max(coverage(D, subset) for subset in combinations(range(len(D)), size))


def cluster_sizes(D: np.ndarray, picks: Sequence[int]) -> np.ndarray:
    """How many samples each pick stands for: a pick for itself, any other for its nearest pick, ties to the earlier."""
    place = {int(j): k for k, j in enumerate(picks)}
    sizes = np.zeros(len(picks), dtype=np.int64)
    for i in range(len(D)):
        sizes[place[i] if i in place else int(np.argmin(D[i, list(picks)]))] += 1
    return sizes


def twins(rows: np.ndarray) -> np.ndarray:
    """A number for each row, the same for bitwise identical rows and only for them."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), len(seen)) for row in np.ascontiguousarray(rows)], dtype=np.int64)


def greedy_fault(D: np.ndarray, picks: Sequence[int], kind: np.ndarray, tie: float) -> str | None:
    """What, if anything, shows that `picks` were not made by greedy facility location on D.

    The greedy is replayed along the picks given: before each, the gains of all candidates are recomputed from D, and
    the pick's may fall short of the best by no more than tie * L(S). Where a tie is exact whatever the rounding, the
    pick must be the lowest index: among samples of one `kind` (identical ones), and among all that are left once each
    has an identical one among the picks (then no gain is above zero).
    """
    if len(set(map(int, picks))) != len(picks):
        return "a sample was picked twice"
    nearest = np.full(len(D), D.max())
    left = np.ones(len(D), dtype=bool)
    for step, j in enumerate(map(int, picks)):
        gains = np.maximum(nearest[:, None] - D, 0).sum(axis=0)
        best, allowed = gains[left].max(), tie * nearest.sum()
        if not gains[j] >= best - allowed:
            short = f"short by {best - gains[j]:.3g}, more than the {allowed:.3g} that rounding explains"
            return f"pick {step} ({j}) gains {gains[j]:.6g}, but {np.argmax(gains * left)} gains {best:.6g}: {short}"
        same = np.flatnonzero(left & (kind == kind[j]))
        if same[0] != j:
            return f"pick {step} is {j}, but {same[0]} is identical and comes first"
        if np.isin(kind[left], kind[~left]).all() and np.flatnonzero(left)[0] != j:
            return f"pick {step} is {j}, but nothing is left to gain and {np.flatnonzero(left)[0]} comes first"
        left[j] = False
        nearest = np.minimum(nearest, D[:, j])
    return None


def clearest_lead(D: np.ndarray, picks: Sequence[int]) -> float:
    """By how much each pick's gain beats all others' at least, as a share of the cost left; zero where two tie."""
    leads = []
    for step in range(len(picks)):
        gains = np.delete(gain_of_each(D, picks[:step]), list(picks[:step]))
        left = D[:, list(picks[:step])].min(axis=1).sum() if step else len(D) * D.max()
        if len(gains) > 1:
            best, second = np.sort(gains)[[-1, -2]]
            leads.append((best - second) / left)
    return min(leads, default=np.inf)


# ---- selection ------------------------------------------------------------------------------------------------------


def class_budget(size: int, fraction: float) -> int:
    """How many of a class of that size a fraction asks for: Python's rounding, at least one."""
    return max(1, round(fraction * size))


@dataclass
class Part:
    """One selection problem: a class, or everything. `members` are its samples' numbers, ascending."""

    members: np.ndarray
    D: np.ndarray
    kind: np.ndarray


def parts(
    features: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    rho: float,
    K: int | None = None,
    balanced: bool = True,
) -> list[Part]:
    """The selection problems of LCMat-S: one a class in ascending order of the label, or one over everything."""
    h, z, y = np.asarray(features), np.asarray(logits), np.asarray(labels)
    groups = [np.flatnonzero(y == label) for label in np.unique(y)] if balanced else [np.arange(len(y))]
    rows = np.concatenate([h.astype(np.float64), z.astype(np.float64), y[:, None].astype(np.float64)], axis=1)
    return [Part(m, distances(h[m], z[m], y[m], rho, K), twins(rows[m])) for m in groups]


def split(indices: np.ndarray, problems: Sequence[Part]) -> list[np.ndarray]:
    """A selection's indices, problem by problem, as positions among each problem's members."""
    inside = [indices[np.isin(indices, part.members)] for part in problems]
    assert np.array_equal(np.concatenate(inside), indices), (
        "the selection does not go class by class in ascending order"
    )
    return [np.searchsorted(part.members, chosen) for part, chosen in zip(problems, inside, strict=True)]


def over_parts(
    problems: Sequence[Part], indices: np.ndarray, measure: Callable[[np.ndarray, Sequence[int]], float]
) -> float:
    """A measure of a selection (cost, coverage), summed over its problems."""
    return sum(measure(part.D, picks) for part, picks in zip(problems, split(indices, problems), strict=True))


def check_selection(
    problems: Sequence[Part], indices: np.ndarray, budgets: Sequence[int], tie: float = TIE_SIGNALS
) -> list[np.ndarray]:
    """Assert that a selection is what greedy facility location picks in each problem; its picks, problem by problem."""
    picked = split(indices, problems)
    for number, (part, picks, budget) in enumerate(zip(problems, picked, budgets, strict=True)):
        assert len(picks) == budget, f"part {number}: {len(picks)} picks, not {budget}"
        fault = greedy_fault(part.D, picks, part.kind, tie)
        assert fault is None, f"part {number}: {fault}"
    return picked
