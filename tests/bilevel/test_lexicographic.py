"""The lexicographic order of (loss, size) and the direct search over masks, by hand and by brute force."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcmat.bilevel import lexicographic
from lcmat.bilevel.lexicographic import Rules, accepts, alike, ask, best_index, initial_state, precedes, thresholds
from tests import oracles
from tests.searches import RULES, fed, start_of, values

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# f(m'), f(m), then whether m' =_H m, m' ≺_H m, and m' takes m's place, under the thresholds (1.2, 50). By hand.
BOUNDS = (1.2, 50)
TABLE = {
    "both above in f1, lower f1": ((1.3, 90), (1.4, 10), False, True, True),
    "both above in f1, higher f1": ((1.4, 10), (1.3, 90), False, False, False),
    "both above in f1, equal f1, smaller but not needed": ((1.3, 10), (1.3, 20), True, False, True),
    "both above in f1, equal f1, smaller and needed": ((1.3, 60), (1.3, 70), False, True, True),
    "both above in f1, equal f1, larger": ((1.3, 70), (1.3, 60), False, False, False),
    "both above in f1, equal f1, larger within": ((1.3, 50), (1.3, 40), True, False, False),
    "comes within f1, larger": ((1.1, 90), (1.3, 10), False, True, True),
    "leaves f1's tolerance, smaller": ((1.3, 10), (1.1, 90), False, False, False),
    "leaves it by a hair, smaller": ((math.nextafter(1.2, 2), 55), (1.0, 60), False, False, False),
    "on the edge of f1, smaller": ((1.2, 55), (1.0, 60), False, True, True),
    "from the edge of f1, lower f1, larger": ((1.0, 60), (1.2, 55), False, False, False),
    "beyond the edge by a hair comes within": ((1.2, 60), (math.nextafter(1.2, 2), 55), False, True, True),
    "both within f1, smaller, above f2": ((1.1, 55), (1.0, 60), False, True, True),
    "both within f1, smaller, to the edge of f2": ((1.1, 50), (1.0, 51), False, True, True),
    "both within f1, smaller, from the edge of f2": ((1.1, 45), (1.0, 50), True, False, False),
    "both within f1, larger, lower f1": ((1.0, 60), (1.1, 50), False, False, False),
    "both within f1, larger, both above f2": ((0.9, 61), (1.1, 60), False, False, False),
    "both within f1, equal size, lower f1": ((1.0, 60), (1.1, 60), True, False, True),
    "both within f1, equal size, higher f1": ((1.1, 60), (1.0, 60), True, False, False),
    "within both, lower f1, smaller": ((0.9, 45), (1.1, 48), True, False, True),
    "within both, lower f1, larger": ((0.9, 48), (1.1, 45), True, False, True),
    "within both, higher f1, smaller": ((1.1, 45), (0.9, 48), True, False, False),
    "on both edges, lower f1": ((1.1, 50), (1.2, 50), True, False, True),
    "equal, above both": ((1.3, 60), (1.3, 60), True, False, False),
    "equal, within both": ((1.1, 40), (1.1, 40), True, False, False),
    "equal, on both edges": ((1.2, 50), (1.2, 50), True, False, False),
}


@pytest.mark.parametrize("case", TABLE)
def test_relations_by_hand(case: str) -> None:
    new, old, *expected = TABLE[case]
    assert [alike(new, old, BOUNDS), precedes(new, old, BOUNDS), accepts(new, old, BOUNDS)] == expected


@settings(derandomize=True, max_examples=500, deadline=None)
@given(new=values, old=values, bounds=values)
def test_relations_are_their_definitions(new: tuple, old: tuple, bounds: tuple) -> None:
    """With quantifiers, as the paper has them; and no two masks take each other's place, nor any its own."""
    same = [new[i] == old[i] or (new[i] <= bounds[i] and old[i] <= bounds[i]) for i in (0, 1)]
    before = any(new[i] < old[i] and old[i] > bounds[i] and all(same[j] for j in range(i)) for i in (0, 1))
    plain = any(new[i] < old[i] and all(new[j] == old[j] for j in range(i)) for i in (0, 1))
    assert alike(new, old, bounds) == all(same)
    assert precedes(new, old, bounds) == before
    assert accepts(new, old, bounds) == (before or (all(same) and plain))
    assert not (accepts(new, old, bounds) and accepts(old, new, bounds))


def test_thresholds_by_hand() -> None:
    history = [(2.0, 30), (1.0, 100), (1.25, 70), (1.1, 80), (1.3, 10)]
    assert thresholds(history, 0.25) == (1.25, 70)  # the edge counts as within
    assert thresholds(history, 0.2) == (1.2, 80)
    assert thresholds(history, 0.0) == (1.0, 100)
    assert thresholds(history, 1.0) == (2.0, 10)
    assert thresholds(history[:1], 0.2) == (2.4, 30)


histories = st.lists(values, min_size=1, max_size=30)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(history=histories, tolerances=st.lists(st.floats(0, 2), min_size=2, max_size=2).map(sorted))
def test_thresholds_are_monotone(history: list, tolerances: list[float]) -> None:
    """In time: f̃₁ never rises, and f̃₂ does not unless f̃₁ falls. In the tolerance: f̃₁ rises and f̃₂ falls."""
    course = [thresholds(history[: t + 1], tolerances[0]) for t in range(len(history))]
    for (first, second), (later, last) in itertools.pairwise(course):
        assert later <= first
        assert last <= second or later < first
    tight, loose = (thresholds(history, tolerance) for tolerance in tolerances)
    assert tight[0] <= loose[0]
    assert tight[1] >= loose[1]


def test_the_second_threshold_may_rise_when_the_first_falls() -> None:
    history = [(1.0, 100), (0.5, 130)]
    assert [thresholds(history[:t], 0.2)[1] for t in (1, 2)] == [100, 130]


@settings(derandomize=True, max_examples=300, deadline=None)
@given(history=histories, tolerance=st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]))
def test_the_answer_is_the_smallest_within_tolerance_of_the_best(history: list, tolerance: float) -> None:
    best = min(f1 for f1, _ in history)
    within = [(f2, f1, t) for t, (f1, f2) in enumerate(history) if f1 <= best * (1 + tolerance)]
    assert best_index(history, tolerance) == min(within)[2]


WORST = (9.0, 99)


def test_the_start_comes_first_then_a_direction_and_its_opposite() -> None:
    start = start_of(20, 5)
    state = initial_state(start, RULES)
    assert torch.equal(ask(state, RULES, 3), start)
    state = fed(state, RULES, [(1.0, 5)])
    there = ask(state, RULES, 3)
    assert float((there - start).norm()) == pytest.approx(0.5)  # nothing is clipped
    state = fed(state, RULES, [WORST])
    back = ask(state, RULES, 3)
    assert torch.allclose((there + back) / 2, start)
    state = fed(state, RULES, [WORST])
    assert (state.stalls, state.tried, state.opposite) == (1, 2, False)
    other = ask(state, RULES, 3)
    assert not torch.allclose(other, there)
    assert not torch.allclose(other, back)


def test_a_success_moves_the_incumbent_and_takes_a_new_direction() -> None:
    state = fed(initial_state(start_of(20, 5), RULES), RULES, [(1.0, 5)])
    point = ask(state, RULES, 3)
    state = fed(state, RULES, [(1.1, 4)])
    assert torch.equal(state.incumbent, point)
    assert (state.value, state.success, state.stalls, state.opposite) == ((1.1, 4), 2, 0, False)
    back = fed(state, RULES, [WORST, (1.1, 3)])
    assert (back.value, back.success, back.stalls) == ((1.1, 3), 4, 0)


def test_the_history_counts_before_the_comparison() -> None:
    """A loss so low that the incumbent is no longer within tolerance takes its place, however large the set is."""
    state = fed(initial_state(start_of(20, 5), RULES), RULES, [(1.0, 5), (0.5, 15)])
    assert state.value == (0.5, 15)
    state = fed(initial_state(start_of(20, 5), RULES), RULES, [(1.0, 5), (0.9, 15)])
    assert state.value == (1.0, 5)


def test_points_stay_in_their_box() -> None:
    rules = Rules(0.2, step=50.0)
    state = fed(initial_state(start_of(20, 5), rules), rules, [(1.0, 5)])
    for _ in range(4):
        point = ask(state, rules, 3)
        assert float(point.abs().max()) == 1.0
        state = fed(state, rules, [WORST])


def test_directions_are_uniform_on_the_sphere_unless_biased() -> None:
    def drawn(bias: float) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        return torch.stack([lexicographic.direction(50, bias, draw) for _ in range(400)])

    uniform, biased = drawn(0.0), drawn(-0.1)
    assert torch.allclose(uniform.norm(dim=1), torch.ones(400, dtype=torch.float64))
    assert torch.allclose(biased.norm(dim=1), torch.ones(400, dtype=torch.float64))
    # The mean of 20,000 coordinates of variance 1/50: a standard deviation of 0.001.
    assert abs(float(uniform.mean())) < 0.005
    assert float(biased.mean()) == pytest.approx(-0.1 / math.sqrt(50), abs=0.005)


def test_the_step_shrinks_when_the_stall_limit_fires() -> None:
    """After a success at t' = 2: both ways fail three times, t = 8, so that δ becomes 0.5 √(3/9); then again at 14."""
    rules = replace(RULES, stall_limit=3)
    state = fed(initial_state(start_of(20, 5), rules), rules, [(1.0, 5), (1.0, 4)])
    state = fed(state, rules, [WORST] * 5)
    assert (state.stalls, state.step) == (2, 0.5)
    state = fed(state, rules, [WORST])
    assert state.stalls == 0
    assert state.step == pytest.approx(0.5 * math.sqrt(3 / 9))
    state = fed(state, rules, [WORST] * 6)
    assert state.step == pytest.approx(0.5 * math.sqrt(3 / 9) * math.sqrt(3 / 15))
    assert float((ask(state, rules, 3) - state.incumbent).norm()) == pytest.approx(state.step)


def test_the_step_never_shrinks_without_a_limit() -> None:
    state = fed(initial_state(start_of(20, 5), RULES), RULES, [(1.0, 5)] + [WORST] * 200)
    assert (state.step, state.stalls) == (0.5, 100)


def test_below_the_least_step_the_search_restarts_around_its_start() -> None:
    rules = replace(RULES, stall_limit=1, least_step=0.25)
    start = start_of(2000, 500)
    state = fed(initial_state(start, rules), rules, [(1.0, 500)])
    for r in (1, 2):
        while state.restarts < r:
            state = fed(state, rules, [WORST])
        assert state.step == 0.5 + r
        assert state.value is None
        point = state.incumbent
        assert torch.equal(ask(state, rules, 3), point)
        away = (point - start)[point.abs() < 1]  # of those that are not clipped
        # m₀ + N(0, 1) within [−1, 1]: of 0.2 and −0.5, more than four in ten are.
        assert 0.3 < len(away) / 2000 < 0.7
        assert 0.4 < float(away.std()) < 0.7
        state = fed(state, rules, [(5.0 - r, 900)])
        assert state.value == (5.0 - r, 900), "the new point stands, whatever it is worth"
    assert not torch.equal(*(lexicographic.restarted(replace(state, restarts=r), rules, 3).incumbent for r in (0, 1)))
