"""Two objectives in order of priority, and the direct search that minimises them. It knows nothing of networks.

What is minimised is f = (f₁, f₂): f₁ first, and f₂ among all that come within a tolerance of the best f₁. Masks are
points m of [−1, 1]ⁿ, of which coordinates of at least 0 are selected. After LexiFlow (Zhang et al., ICLR 2023), in the
form that LBCS gives it (Xia et al., ICML 2024, Section 3.2 and Algorithm 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcmat import seeds

Objectives = tuple[float, float]  # f₁ ≥ 0 and f₂


def thresholds(history: Sequence[Objectives], tolerance: float) -> Objectives:
    """Return (f̃₁, f̃₂) of a history H: f̃₁ = (1 + ε) min f₁, and f̃₂ = min f₂ among those with f₁ ≤ f̃₁.

    f̃₁ never rises as H grows. f̃₂ does not while f̃₁ stays, and may when it falls: what counted may do so no longer.
    """
    first = (1 + tolerance) * min(f1 for f1, _ in history)
    return first, min(f2 for f1, f2 in history if f1 <= first)


def alike(new: Objectives, old: Objectives, bounds: Objectives) -> bool:
    """Tell whether m' =_H m: in each objective they are equal, or both at most at the threshold."""
    return all(a == b or max(a, b) <= bound for a, b, bound in zip(new, old, bounds, strict=True))


def precedes(new: Objectives, old: Objectives, bounds: Objectives) -> bool:
    """Tell whether m' ≺_H m: smaller in an objective in which m is above the threshold, all earlier ones being =_H."""
    for i in range(len(bounds)):
        if new[i] < old[i] and old[i] > bounds[i]:
            return alike(new[:i], old[:i], bounds[:i])
    return False


def accepts(new: Objectives, old: Objectives, bounds: Objectives) -> bool:
    """Tell whether m' takes the place of m: m' ≺_H m, or m' =_H m and m' ≺ m, plainly lexicographic."""
    return precedes(new, old, bounds) or (alike(new, old, bounds) and new < old)


def best_index(history: Sequence[Objectives], tolerance: float) -> int:
    """Return the position of argmin f₂ over M₁ = {f₁ ≤ (1 + ε) min f₁}; of equal f₂ the lowest f₁, then the first."""
    first, _ = thresholds(history, tolerance)
    return min(range(len(history)), key=lambda t: (history[t][0] > first, history[t][1], history[t][0]))


def is_nondominated(history: Sequence[Objectives], new: Objectives) -> bool:
    """Tell whether nothing in the history is as good as `new` in both objectives. Others are never the best."""
    return not any(f1 <= new[0] and f2 <= new[1] for f1, f2 in history)


@dataclass(frozen=True)
class Rules:
    """How to search. Lengths are L₂ in the coordinates of m.

    tolerance: ε, relative. step: δ at the start; at every restart r more, the number of restarts. least_step: δ_lower.
    stall_limit: e at which δ shrinks; None: 2ⁿ⁻¹ as in the paper, which no search lives to see. bias: the mean of the
    normal variates that directions are drawn from: 0 makes them uniform on the sphere.
    """

    tolerance: float
    step: float
    least_step: float = 0.0
    stall_limit: int | None = None
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class State:
    """Where a search stands, t = len(history) proposals after its start, those that need no training among them.

    start: m₀. incumbent: m, (n,). value: f(m); None at the start and after a restart, when m is yet to be evaluated.
    step: δ. tried: directions so far; opposite: whether m + δu has failed, and m − δu is next. stalls: e, the
    directions that failed both ways since δ last shrank. success: t', the t at which m was found.
    """

    start: Tensor
    incumbent: Tensor
    step: float
    value: Objectives | None = None
    history: tuple[Objectives, ...] = ()
    tried: int = 0
    opposite: bool = False
    stalls: int = 0
    success: int = 0
    restarts: int = 0


def initial_state(start: Tensor, rules: Rules) -> State:
    """Return the state before the first evaluation, that of the start."""
    return State(start, start, rules.step)


def direction(size: int, bias: float, generator: torch.Generator) -> Tensor:
    """Return a random unit vector (size,): normal variates of mean `bias`, normalised."""
    u = torch.randn(size, generator=generator, dtype=torch.float64) + bias
    return u / u.norm()


def ask(state: State, rules: Rules, seed: int) -> Tensor:
    """Return the point to evaluate next: m + δu, else m − δu, clipped to [−1, 1]; or m itself if it has no value."""
    if state.value is None:
        return state.incumbent
    u = direction(len(state.incumbent), rules.bias, seeds.generator(seed, "direction", state.tried))
    return (state.incumbent + (-state.step if state.opposite else state.step) * u).clamp(-1, 1)


def tell(state: State, point: Tensor, value: Objectives, rules: Rules, seed: int) -> State:
    """Return the state after the point that was asked for turned out to have `value`, which joins the history first."""
    history = (*state.history, value)
    if state.value is None or accepts(value, state.value, thresholds(history, rules.tolerance)):
        return replace(
            state, incumbent=point, value=value, history=history, tried=state.tried + 1, opposite=False,
            success=len(history),
        )  # fmt: skip
    if not state.opposite:
        return replace(state, history=history, opposite=True)
    state = replace(state, history=history, tried=state.tried + 1, opposite=False, stalls=state.stalls + 1)
    if state.stalls == rules.stall_limit:
        state = replace(state, stalls=0, step=shrunk(state.step, state.success, len(history)))
    return restarted(state, rules, seed) if state.step < rules.least_step else state


def shrunk(step: float, success: int, t: int) -> float:
    """Return δ √((t' + 1) / (t + 1))."""
    return step * math.sqrt((success + 1) / (t + 1))


def restarted(state: State, rules: Rules, seed: int) -> State:
    """Return the state that goes on from m ~ N(m₀, I), clipped, with δ = δ_init + r."""
    r = state.restarts + 1
    away = torch.randn(len(state.start), generator=seeds.generator(seed, "restart", r), dtype=torch.float64)
    point = (state.start + away).clamp(-1, 1)
    return replace(state, incumbent=point, value=None, step=rules.step + r, stalls=0, restarts=r)
