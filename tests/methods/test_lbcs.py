"""LBCS: relations and thresholds against hand and definition, the search against known optima, the inner loop against
the usual training loop, files of trials that survive kills, and what of the data the search can reach."""

import copy
import functools
import gc
import itertools
import json
import math
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import methods.lbcs
import nets
from lcmat import Signals, data, memory_limit
from lcmat.bilevel import inner_loop, lexicographic, trials
from lcmat.bilevel.inner_loop import mean_loss, prepared, train_full_batch
from lcmat.bilevel.lexicographic import (
    Rules,
    accepts,
    alike,
    ask,
    best_index,
    initial_state,
    precedes,
    tell,
    thresholds,
)
from lcmat.bilevel.trials import TrialFile, read_trials, refine
from lcmat.block_sizes import sized
from lcmat.command_line import grids, options
from lcmat.command_line.method_flags import check_options, options_for, options_of
from lcmat.command_line.settings import settings_of
from lcmat.commands import _reports
from lcmat.data.splits import FileSplit, TensorSplit
from lcmat.errors import UserError
from lcmat.reports.figures import search_figure
from lcmat.runs import pretrained
from lcmat.runs.job import Run
from lcmat.runs.selection import Selection, selection_key
from lcmat.runs.setup import Settings, make_setup
from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.selection.subset import Subset
from lcmat.training import Compute, DivergedError, Recipe, predictions, train
from methods import get, select
from tests import oracles
from tests.harness import ROOT, call, places
from tests.networks import TinyNet

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


class Killed(BaseException):
    """Stands for a signal that ends the process."""


# ---- the relations --------------------------------------------------------------------------------------------------

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


values = st.tuples(st.integers(1, 5).map(float), st.integers(1, 5))


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


# ---- the thresholds of a history ------------------------------------------------------------------------------------


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


# ---- the direct search ----------------------------------------------------------------------------------------------

RULES = Rules(tolerance=0.2, step=0.5)


def start_of(n: int, k: int, seed: int = 0) -> Tensor:
    """A random start mask of k among n as the released code has it: 0.2 and −0.5."""
    point = torch.full((n,), -0.5, dtype=torch.float64)
    point[torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k]] = 0.2
    return point


def fed(state: lexicographic.State, rules: Rules, answers: list[tuple[float, int]]) -> lexicographic.State:
    """Go on with these values for the points asked for."""
    for value in answers:
        state = tell(state, ask(state, rules, 3), value, rules, 3)
    return state


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


# ---- whole searches on problems with a known answer -----------------------------------------------------------------


def loss_of_missing(essential: int, price: float, calls: list | None = None) -> Callable[[Tensor, int], float]:
    """f₁ = 1 + price for each of the first samples that is missing; no other matters."""

    def objective(chosen: Tensor, trial: int) -> float:
        if calls is not None:
            calls.append((chosen.tolist(), trial))
        return 1 + price * (essential - int((chosen < essential).sum()))

    return objective


@pytest.mark.parametrize("seed", range(4))
def test_the_search_reaches_the_optimum(seed: int) -> None:
    """Four of sixteen samples are needed, and each that is missing costs more than the tolerance allows."""
    found = refine(loss_of_missing(4, 0.5), start_of(16, 8, seed), Rules(0.2, 2.0), seed=seed, trials=1000)
    assert found.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(4))
def test_the_search_spends_its_tolerance(seed: int) -> None:
    """Nine of fourteen count, each for 0.05: with all of them seen, five may be missing within 0.26, and no more."""
    objective = loss_of_missing(9, 0.05)
    found = refine(objective, torch.full((14,), 0.2), Rules(0.26, 2.0), seed=seed, trials=1000)
    assert len(found) == 4
    assert (found < 9).all()
    found = refine(objective, torch.full((14,), 0.2), Rules(0.0, 2.0), seed=seed, trials=1000)
    assert found.tolist() == list(range(9))


@settings(derandomize=True, max_examples=30, deadline=None)
@given(data=st.data())
def test_the_answer_is_the_best_of_all_sets_tried(data: st.DataObject) -> None:
    """Against all of them, with losses that follow no rule."""
    seed = data.draw(st.integers(0, 10**6))
    tolerance = data.draw(st.sampled_from([0.0, 0.1, 0.5, 2.0]))
    tried = []

    def objective(chosen: Tensor, trial: int) -> float:
        draw = np.random.default_rng([seed, trial])
        tried.append((float(draw.integers(4, 12)), len(chosen), chosen.tolist()))
        return tried[-1][0]

    found = refine(objective, start_of(30, 12), Rules(tolerance, 1.5), seed=seed, trials=40, repeatable=False)
    assert len(tried) == 40
    within = [one for one in tried if one[0] <= (1 + tolerance) * min(f1 for f1, _, _ in tried)]
    assert found.tolist() == min(within, key=lambda one: (one[1], one[0]))[2]


@pytest.mark.parametrize("bias", [0.0, 0.5, -0.5])
@pytest.mark.parametrize("slack", [1, 3])
def test_sizes_never_reach_the_limit_and_refusals_are_no_trials(bias: float, slack: int) -> None:
    """Directions that lead to larger sets, a loss that rewards them; a limit of k + slack is refused itself."""
    calls = []

    def objective(chosen: Tensor, trial: int) -> float:
        calls.append(len(chosen))
        return 100 - len(chosen)

    start = start_of(60, 20)
    found = refine(objective, start, Rules(0.1, 1.0, bias=bias), seed=1, trials=200, limit=20 + slack)
    assert len(calls) == 200
    assert 20 <= max(calls) < 20 + slack
    assert 2 <= len(found) < 20 + slack


def test_a_set_of_forbidden_size_is_told_as_the_released_code_does() -> None:
    state = initial_state(start_of(60, 20), RULES)
    assert trials.known(state, start_of(60, 20), 20, True) == (1000, 20)
    assert trials.known(state, start_of(60, 23), 20, True) == (10_000, 23)
    assert trials.known(state, start_of(60, 19), 20, True) is None
    assert trials.known(state, start_of(60, 1), 20, True)[0] > 1000
    assert trials.known(state, start_of(60, 60), None, True) is None


def test_the_incumbents_set_is_not_trained_on_again_where_that_teaches_nothing(tmp_path: Path) -> None:
    calls, file = [], TrialFile(tmp_path / "t.jsonl", {"tolerance": 0.2}, resume=False)
    refine(loss_of_missing(4, 0.5, calls), start_of(16, 8), Rules(0.2, 0.3), seed=0, trials=50, file=file)
    assert [trial for _, trial in calls] == list(range(50))
    incumbent, lines = None, read_trials(tmp_path / "t.jsonl")[1]
    for (chosen, _), line in zip(calls, lines, strict=True):
        assert chosen != incumbent
        incumbent = chosen if line["accepted"] else incumbent
    assert sum(line["untrained"] for line in lines) > 10
    calls.clear()
    refine(loss_of_missing(4, 0.5, calls), start_of(16, 8), Rules(0.2, 1e-6), seed=0, trials=50, repeatable=False)
    assert len(calls) == 50
    assert len({tuple(chosen) for chosen, _ in calls}) == 1


def test_a_search_that_stands_still_ends_and_says_so() -> None:
    calls = []
    with pytest.warns(UserWarning, match="LBCS ends after 1 of 50 trials; give it a larger step"):
        found = refine(loss_of_missing(4, 0.5, calls), start_of(16, 8), Rules(0.2, 1e-6), seed=0, trials=50)
    assert len(calls) == 1
    assert found.tolist() == calls[0][0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_diverged_trainings_are_never_the_answer(bad: float, tmp_path: Path) -> None:
    file = TrialFile(tmp_path / "t.jsonl", {"tolerance": 0.2}, resume=False)

    def objective(chosen: Tensor, trial: int) -> float:
        return bad if trial % 2 == 0 else 1.0 + len(chosen) / 1000

    found = refine(objective, start_of(40, 20), Rules(0.2, 1.0), seed=0, trials=20, file=file)
    _, lines = read_trials(tmp_path / "t.jsonl")
    assert [one["f1"] for one in lines[::2]] == [10_000.0] * 10
    assert len(found) in {one["f2"] for one in lines[1::2]}


@pytest.mark.parametrize("finite", [3e4, 1e30])
def test_a_finite_loss_counts_no_more_than_one_that_is_not(finite: float) -> None:
    """Else what is not finite would be the better of two that diverged; and if all do, there is no answer."""
    sets, values = [], []

    def objective(chosen: Tensor, trial: int) -> float:
        sets.append(chosen.tolist())
        values.append(math.nan if trial % 3 == 0 else finite)
        return values[-1] if trial < 29 else 5.0

    assert refine(objective, start_of(40, 20), Rules(0.2, 1.0), seed=0, trials=30).tolist() == sets[-1]
    with pytest.raises(DivergedError, match="every training of LBCS diverged; lower inner_lr"):
        refine(objective, start_of(40, 20), Rules(0.2, 1.0), seed=0, trials=29)


# ---- files of trials ------------------------------------------------------------------------------------------------

SEARCH = {"search": "abc", "samples": 40, "init_size": 20, "tolerance": 0.2}


def searched(path: Path, resume: bool = False, dies_at: int | None = None, calls: list | None = None) -> list[int]:
    """Make a small search with a file of trials; the objective may die."""

    def objective(chosen: Tensor, trial: int) -> float:
        if trial == dies_at:
            raise Killed
        if calls is not None:
            calls.append(trial)
        return 1 + math.sin(float((chosen + 1).sum())) ** 2

    file = TrialFile(path, SEARCH, resume)
    return refine(objective, start_of(40, 20), Rules(0.2, 0.8), seed=5, trials=30, file=file).tolist()


def without_seconds(path: Path) -> list[dict]:
    search, lines = read_trials(path)
    return [search, *({k: v for k, v in one.items() if k != "seconds"} for one in lines)]


def test_each_trial_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    searched(path)
    search, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert search == SEARCH
    assert [one["trial"] for one in lines] == list(range(1, 31))
    names = {"trial", "f1", "f2", "accepted", "incumbent", "untrained", "seconds", "crc32"}
    assert all(set(one) == names for one in lines)
    incumbent = None
    for one in lines:
        incumbent = [one["f1"], one["f2"]] if one["accepted"] else incumbent
        assert one["incumbent"] == incumbent
        assert one["seconds"] >= 0
    assert lines[0]["accepted"]
    assert 1 < sum(one["accepted"] for one in lines) < 30


@pytest.mark.parametrize("dies_at", [0, 1, 2, 7, 29])
def test_a_killed_search_goes_on_bit_for_bit(dies_at: int, tmp_path: Path) -> None:
    expected = searched(tmp_path / "whole" / "t.jsonl")
    with pytest.raises(Killed):
        searched(tmp_path / "killed.jsonl", dies_at=dies_at)
    assert len(read_trials(tmp_path / "killed.jsonl")[1]) == dies_at
    calls = []
    assert searched(tmp_path / "killed.jsonl", resume=True, calls=calls) == expected
    assert calls == list(range(dies_at, 30)), "trials were made twice, or left out"
    assert without_seconds(tmp_path / "killed.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")
    calls.clear()
    assert searched(tmp_path / "killed.jsonl", resume=True, calls=calls) == expected
    assert calls == []


RESTARTING = Rules(0.2, 1.0, least_step=0.5, stall_limit=1)


def restarting(path: Path, resume: bool = False, dies_at: int | None = None) -> tuple[list[int], dict]:
    """Make a search whose step falls below the least one again and again; return its answer and what it trained on."""
    tried = {}

    def objective(chosen: Tensor, trial: int) -> float:
        if trial == dies_at:
            raise Killed
        value = 1 + math.sin(float((chosen + 1).sum())) ** 2
        tried[tuple(chosen.tolist())] = value
        return value

    file = TrialFile(path, SEARCH, resume)
    return refine(objective, start_of(40, 20), RESTARTING, seed=5, trials=60, file=file).tolist(), tried


def test_a_search_that_restarts_goes_on_to_its_last_trial(tmp_path: Path) -> None:
    """The point after a restart is unknown until its training, which is then accepted; the answer is that of all."""
    found, tried = restarting(tmp_path / "t.jsonl")
    lines = read_trials(tmp_path / "t.jsonl")[1]
    assert len(lines) == 60
    restarts = [number for number, one in enumerate(lines[:-1]) if one["incumbent"] is None]
    assert len(restarts) > 1
    assert not any(lines[number]["accepted"] for number in restarts)
    for after in (lines[number + 1] for number in restarts if lines[number + 1]["untrained"] == 0):
        assert after["accepted"]
        assert after["incumbent"] == [after["f1"], after["f2"]]
    bound = 1.2 * min(tried.values())
    assert len(found) == min(len(chosen) for chosen, value in tried.items() if value <= bound)
    assert tried[tuple(found)] <= bound


@pytest.mark.parametrize("dies_at", [1, 7, 8, 9, 27, 59])
def test_a_killed_search_that_restarts_goes_on_bit_for_bit(dies_at: int, tmp_path: Path) -> None:
    expected, _ = restarting(tmp_path / "whole" / "t.jsonl")
    with pytest.raises(Killed):
        restarting(tmp_path / "killed.jsonl", dies_at=dies_at)
    assert restarting(tmp_path / "killed.jsonl", resume=True)[0] == expected
    assert without_seconds(tmp_path / "killed.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")


def test_lbcs_restarts_where_its_step_is_too_small(context: Context, tmp_path: Path) -> None:
    """Trained networks, and the course of the search drawn."""
    how = {"budget": 20, "trials": 30, "step": 1.0, "inner_steps": 2, "stall_limit": 1, "least_step": 0.5}
    subset = select(labels_only(), "LBCS", context=replace(context, log=tmp_path / "t.jsonl"), **how)
    lines = read_trials(tmp_path / "t.jsonl")[1]
    assert len(lines) == 30
    assert any(one["incumbent"] is None for one in lines)
    assert len(subset) in {one["f2"] for one in lines}
    assert len(search_figure(lines, 0.2, "restarts", tmp_path, "restarts")) == 2


@pytest.mark.parametrize("rest", ["half", "whole but for its end", "noise", "another number"])
def test_half_lines_are_ignored(rest: str, tmp_path: Path) -> None:
    expected = searched(tmp_path / "whole" / "t.jsonl")
    text = (tmp_path / "whole" / "t.jsonl").read_text()
    lines = text.splitlines(keepends=True)
    end = {
        "half": lines[11][:20],
        "whole but for its end": lines[11].rstrip("\n"),
        "noise": "\0\0\0\0\n" + lines[11],
        "another number": lines[12],
    }[rest]
    (tmp_path / "cut.jsonl").write_text("".join(lines[:11]) + end)
    assert len(read_trials(tmp_path / "cut.jsonl")[1]) == 10
    calls = []
    assert searched(tmp_path / "cut.jsonl", resume=True, calls=calls) == expected
    assert calls == list(range(10, 30))
    assert without_seconds(tmp_path / "cut.jsonl") == without_seconds(tmp_path / "whole" / "t.jsonl")


def test_a_file_is_begun_anew_unless_the_search_is_to_go_on(tmp_path: Path) -> None:
    calls = []
    searched(tmp_path / "t.jsonl")
    searched(tmp_path / "t.jsonl", calls=calls)
    assert len(calls) == 30
    assert len(read_trials(tmp_path / "t.jsonl")[1]) == 30


def test_other_searches_and_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    searched(path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"t\.jsonl holds the trials of another search"):
        TrialFile(path, {**SEARCH, "search": "abd"}, resume=True)
    assert path.read_bytes() == before
    lines = path.read_text().splitlines(keepends=True)
    changed = json.loads(lines[4]) | {"f2": 1}
    del changed["crc32"]  # as in files of before
    path.write_text("".join([*lines[:4], json.dumps(changed) + "\n", *lines[5:]]))
    with pytest.raises(UserError, match="trial 4 is none of this search"):
        searched(path, resume=True)
    for content in (b"", b"\xff\xfe", b"[]\n", b"{}\n", b"not json\n"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.jsonl"):
            TrialFile(path, SEARCH, resume=True)


# ---- the inner loop -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split() -> TensorSplit:
    """The first 300 digits."""
    return data.load("digits").train.take(torch.arange(300))


@pytest.fixture(scope="module")
def context(split: TensorSplit, compute: Compute) -> Context:
    """What LBCS gets: images and networks."""
    return Context(
        split, compute, fresh_network=TinyNet, recipe=Recipe(epochs=1, batch=32, lr=0.05, scheduler="constant")
    )


@functools.cache
def labels_only(n: int = 300) -> Signals:
    """Signals that hold nothing but labels."""
    return Signals(labels=data.load("digits").train.labels[:n])


def slowly(network: nn.Module, split: TensorSplit, compute: Compute, index: Tensor, steps: int, lr: float) -> float:
    """The same trial by the usual training loop and a pass over all samples."""
    recipe = Recipe(epochs=steps, batch=len(index), optimizer="Adam", lr=lr, weight_decay=0, scheduler="constant")
    train(network, split.take(index), recipe, compute, seed=0)
    with torch.no_grad():
        parts = [F.cross_entropy(z, y, reduction="none") for z, y, _ in predictions(network, split, compute, batch=70)]
    return float(torch.cat(parts).double().mean())


@pytest.mark.parametrize("name", ["LeNet", "SVHN-CNN-small", "ResNet10"])
@pytest.mark.filterwarnings("ignore:LeNet enlarges")
def test_a_trial_is_that_of_the_usual_training_loop(name: str, split: TensorSplit, compute: Compute) -> None:
    """Which takes the samples in another order, so that sums round otherwise."""

    def network() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return nets.build(name, 10, 1, 8)

    index = torch.arange(0, 300, 9)
    own, images = network(), prepared(split, compute)
    before = mean_loss(own.to(memory_format=torch.channels_last), images)
    train_full_batch(own, *images.take(index), 4, 1e-3, compute, seed=0)
    loss = mean_loss(own, images)
    assert own.training
    assert abs(loss - before) > 1e-3
    assert loss == pytest.approx(slowly(network(), split, compute, index, 4, 1e-3), rel=1e-4)


def test_images_are_normalised_once_or_whenever_they_are_needed(
    split: TensorSplit, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    counted = Compute.inputs
    monkeypatch.setattr(Compute, "inputs", lambda self, images: (calls.append(len(images)), counted(self, images))[1])
    held = prepared(split, compute)
    assert sum(calls) == 300
    with sized(images=128):
        found = [(mean_loss(TinyNet(0), held), *held.take(torch.tensor([5, 2])))]
    assert sum(calls) == 300, "images were normalised again"
    assert torch.equal(held.inputs, counted(compute, split.images))
    with memory_limit.limited(1):
        anew = prepared(split, compute)
    assert anew.inputs is None
    with sized(images=128):
        found.append((mean_loss(TinyNet(0), anew), *anew.take(torch.tensor([5, 2]))))
    assert calls[-4:] == [128, 128, 44, 2]
    assert sum(calls) == 602
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1:], found[1][1:], strict=True))


def test_images_in_files_will_do(split: TensorSplit, compute: Compute, tmp_path: Path) -> None:
    """As an image folder too large for memory has them."""
    paths = [Path(str(i)) for i in range(len(split))]
    files = FileSplit(paths, split.labels, lambda path: split.images[int(path.name)], (1, 8, 8), tmp_path, workers=0)
    one, other = prepared(split, compute), prepared(files, compute)
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.labels, other.labels)


def loss_function(context: Context, starts: list[nn.Module], seed: int = 0) -> methods.lbcs.TrainingLoss:
    images = prepared(context.split, context.compute)
    return methods.lbcs.TrainingLoss(images, starts, context, 3, 1e-2, seed)


def test_one_network_makes_the_loss_a_function_of_the_set(context: Context) -> None:
    """Dropout included, so that accepting a mask is no luck; other sets have other losses."""
    objective = loss_function(context, [TinyNet(0, extra=True)])
    state = {k: v.clone() for k, v in objective.starts[0].state_dict().items()}
    torch.manual_seed(1)
    one = objective(torch.arange(30), 0)
    torch.manual_seed(2)
    assert objective(torch.arange(30), 7) == one
    assert objective(torch.arange(31), 0) != one
    assert all(torch.equal(v, state[k]) for k, v in objective.starts[0].state_dict().items()), "the start was trained"


def test_other_numbers_of_networks(context: Context) -> None:
    """Of several, each trial draws one, by a seed; of none, each has its own. Both are repeatable."""
    several = loss_function(context, [TinyNet(0), TinyNet(1), TinyNet(2)])
    losses = [several(torch.arange(30), trial) for trial in range(12)]
    assert len(set(losses)) == 3
    assert losses == [several(torch.arange(30), trial) for trial in range(12)]
    own = loss_function(context, [])
    losses = [own(torch.arange(30), trial) for trial in range(5)]
    assert len(set(losses)) == 5
    assert losses == [own(torch.arange(30), trial) for trial in range(5)]


# ---- the method -----------------------------------------------------------------------------------------------------

QUICK = {"trials": 6, "inner_steps": 2, "inner_lr": 0.01}


def lbcs(context: Context, **more: object) -> Subset:
    return select(labels_only(), "LBCS", context=context, **{"budget": 40, **QUICK, **more})


def trained_sets(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Note all sets that are trained on from now on."""
    sets, original = [], methods.lbcs.TrainingLoss.__call__

    def noted(self: object, chosen: Tensor, trial: int) -> float:
        sets.append(chosen.tolist())
        return original(self, chosen, trial)

    monkeypatch.setattr(methods.lbcs.TrainingLoss, "__call__", noted)
    return sets


@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("init_balance", [None, True])
def test_the_budget_is_the_start_and_the_answer_is_a_set_that_was_tried(
    balanced: bool, init_balance: bool | None, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random as in the paper, or with as many of each class as any method takes; the answer is in order of classes."""
    sets = trained_sets(monkeypatch)
    subset = lbcs(context, balanced=balanced, init_balance=init_balance)
    assert len(sets) == 6
    assert len(sets[0]) == 40
    counts = np.bincount(labels_only().labels[sets[0]], minlength=10)
    share = class_budgets(np.bincount(labels_only().labels), budget=40)
    assert (counts.tolist() == share.tolist()) == (balanced and init_balance is True)
    assert sorted(subset.indices.tolist()) in sets
    assert subset.balanced == balanced
    assert not subset.nested
    assert (np.diff(subset.classes) >= 0).all() == balanced
    with pytest.raises(UserError, match="not nested"):
        subset.prefix(0.01)


def test_a_budget_for_each_class_is_where_it_starts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where classes are left out: what is returned was trained on, whichever classes it went to."""
    sets = trained_sets(monkeypatch)
    for budget in ([8] * 10, [20, 20, *[0] * 8], [1, 2, *[0] * 8]):
        sets.clear()
        subset = lbcs(context, budget=budget, init_balance=True, step=3.0)
        assert np.bincount(labels_only().labels[sets[0]], minlength=10).tolist() == budget
        assert sorted(subset.indices.tolist()) in sets


def test_another_methods_start_is_balanced(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that method chooses by itself, unless the option says otherwise; a random one is not."""
    asked = []
    original = methods.lbcs.select_with
    noted = lambda *a, **k: asked.append((a[0].name, k["budget"], k["balanced"])) or original(*a, **k)  # noqa: E731
    monkeypatch.setattr(methods.lbcs, "select_with", noted)
    generator = torch.Generator().manual_seed(0)
    labels = labels_only().labels
    signals = Signals(torch.randn(300, 5, generator=generator), torch.randn(300, 10, generator=generator), labels)
    share = class_budgets(np.bincount(labels), budget=40).tolist()
    for more, expected in (
        ({}, ("Moderate", share, True)),
        ({"init_balance": False}, ("Moderate", 40, False)),
        ({"init_selection": "Uniform"}, ("Uniform", 40, False)),
        ({"init_selection": "Uniform", "init_balance": True}, ("Uniform", share, True)),
    ):
        how = {**QUICK, "trials": 1, "init_selection": "Moderate", **more}
        select(signals, "LBCS", context=context, budget=40, **how)
        assert asked[-1] == expected


def test_f1_is_the_loss_on_all_samples(context: Context, split: TensorSplit, compute: Compute) -> None:
    """Of a fresh network that was trained on the chosen ones, written out."""
    chosen = torch.arange(0, 300, 7)
    loss = methods.lbcs.TrainingLoss(prepared(split, compute), [TinyNet(0)], context, 3, 0.01, 0)
    expected = copy.deepcopy(loss.starts[0])
    x, y = compute.inputs(split.images), split.labels
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(expected(x[chosen]), y[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        of_all, of_chosen = (float(F.cross_entropy(expected(x[i]), y[i])) for i in (slice(None), chosen))
    assert loss(chosen, 0) == pytest.approx(of_all, rel=1e-4)
    assert abs(of_all - of_chosen) > 0.05


@pytest.mark.parametrize("name", ["LeNet", "ResNet10"])
@pytest.mark.filterwarnings("ignore:LeNet enlarges")
def test_pieces_of_a_full_batch_give_its_gradient(
    name: str, split: TensorSplit, compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With BatchNorm, where a sample's gradient depends on the others, there is one piece."""
    found, sizes = [], []
    for size in (300, 7):
        torch.manual_seed(0)
        network = nets.build(name, 10, 1, 8)
        network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
        with sized(images=size):
            train_full_batch(network, *prepared(split, compute).take(torch.arange(30)), 3, 1e-3, compute, seed=0)
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
    assert (7 in sizes) == (name == "LeNet")


def test_a_full_batch_that_does_not_fit_is_told(
    split: TensorSplit, compute: Compute, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gradient needs is measured on two images: within a tenth of what PyTorch holds for all."""
    network, images = nets.build("ResNet10", 10, 1, 8), prepared(split, compute)
    held = 0

    def count(value: Tensor) -> Tensor:
        nonlocal held
        held += 0 if isinstance(value, nn.Parameter) else value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
        network(images.take(torch.arange(100))[0])
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(1.1 * held))
    inner_loop.check_memory(network, images, 100)
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(0.9 * held))
    inner_loop.check_memory(nets.build("MLP", 10, 1, 8), images, 100)
    with pytest.raises(UserError, match=r"100 samples at once need .* GB with BatchNorm.*--inner_model"):
        inner_loop.check_memory(network, images, 100)
    resnet = replace(context, fresh_network=lambda number: network)
    monkeypatch.setattr("lcmat.memory_limit.free", lambda device: int(0.3 * held))
    with pytest.raises(UserError, match="40 samples at once"):
        lbcs(resnet)


def test_trainings_are_counted_and_seeds_decide(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = trained_sets(monkeypatch)
    one = lbcs(context, trials=9, seed=1)
    first = list(sets)
    sets.clear()
    assert np.array_equal(one.indices, lbcs(context, trials=9, seed=1).indices)
    assert sets == first
    assert len(first) == 9
    sets.clear()
    lbcs(context, trials=9, seed=2)
    assert sets != first


def test_the_limit_holds_for_every_training(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = trained_sets(monkeypatch)
    lbcs(context, slack=2, bias=0.5, step=3.0, trials=15)
    assert len(sets) == 15
    assert max(map(len, sets)) < 42
    sets.clear()
    lbcs(context, bias=0.5, step=3.0, trials=15)
    assert max(map(len, sets)) >= 42, "the limit has to bind somewhere for the test to mean anything"


def test_samples_without_their_signal_are_dropped(split: TensorSplit, compute: Compute) -> None:
    """All that is learnt, with labels of which a third are wrong: the loss falls, and the set gets smaller."""
    labels = split.labels.clone()
    labels[::3] = (labels[::3] + 1) % 10
    noisy = Context(TensorSplit(split.images, labels), compute, fresh_network=TinyNet, recipe=Recipe())
    subset = select(
        Signals(labels=labels), "LBCS", context=noisy, budget=120, trials=60, inner_steps=10, inner_lr=0.02,
        tolerance=0.02,
    )  # fmt: skip
    assert len(subset) < 115


def test_the_usual_step_drops_a_sample_a_move() -> None:
    """Measured; and it is the released 8 where that was chosen."""
    assert methods.lbcs.usual_step(1000, 60_000, 0.2) == pytest.approx(7.9, abs=0.1)
    for n, k in ((60_000, 1000), (2000, 50)):
        start, dropped = start_of(n, k), []
        rules = Rules(0.2, 2 * methods.lbcs.usual_step(k, n, 0.2))
        state = fed(initial_state(start, rules), rules, [(1.0, k)])
        for number in range(200):
            point = ask(replace(state, tried=number), rules, 3)
            dropped.append(int(((point < 0) & (start >= 0)).sum()))
        assert np.mean(dropped) == pytest.approx(1, abs=0.25)
    assert math.isfinite(methods.lbcs.usual_step(2, 2, 0.2))


def test_published_settings_are_options(context: Context) -> None:
    """As the released code has them for Fashion-MNIST, from its own start values."""
    released = {"tolerance": 0.15, "bias": -0.1, "slack": 200, "step": 8.0, "stall_limit": 512, "inner_lr": 5e-3}
    subset = lbcs(context, **released, inside=0.2, outside=-0.5, networks=0)
    assert 2 <= len(subset) < 240
    defaults = get("LBCS").resolved(0, 0, {})
    assert defaults["tolerance"] == 0.2
    assert defaults["bias"] == 0
    assert defaults["slack"] is defaults["stall_limit"] is None
    assert (defaults["trials"], defaults["inner_steps"], defaults["inner_lr"]) == (500, 20, 1e-3)


WRONG = {
    "trials": (0, "trials must be a whole number of at least 1, not 0"),
    "trials of another kind": ({"trials": "many"}, "LBCS: trials must be a whole number, not 'many'"),
    "inner_steps": (0, "inner_steps must be a whole number of at least 1"),
    "networks": (-1, "networks must be a whole number of at least 0"),
    "pretrain_epochs": (-1, "pretrain_epochs must be a whole number of at least 0"),
    "pretraining of none": ({"pretrain_epochs": 2, "networks": 0}, "give networks, at least 1"),
    "tolerance": (-0.1, "tolerance must be 0 or more and finite, not -0.1"),
    "infinite tolerance": ({"tolerance": math.inf}, "tolerance must be 0 or more and finite"),
    "step": (0.0, "step must be above 0 and finite"),
    "step of another kind": ({"step": "large"}, "step must be a number, not large"),
    "step nan": ({"step": math.nan}, "step must be above 0 and finite"),
    "least_step": (-1.0, "least_step must be 0 or more"),
    "inner_lr": (0.0, "inner_lr must be above 0"),
    "bias": (math.nan, "bias must be finite"),
    "inside": (0.0, "inside must lie above 0 and at most at 1"),
    "outside": (0.0, "outside must lie below 0 and at least at -1"),
    "slack": (0, "slack must be a whole number of at least 1, not 0"),
    "slack of another kind": ({"slack": 2.5}, "slack must be a whole number of at least 1, not 2.5"),
    "slack True": ({"slack": True}, "slack must be a whole number"),
    "stall_limit": (0, "stall_limit must be a whole number of at least 1"),
    "init_selection": ("LCMat", "did you mean LCMat-S"),
    "init_selection of itself": ({"init_selection": "lbcs"}, "cannot start from LBCS"),
    "init_selection of everything": ({"init_selection": "Full"}, "cannot start from Full"),
    "init_selection of another kind": (
        {"init_selection": 3},
        "the selection method must be a name, such as 'Uniform', not 3",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_impossible_options_are_refused_in_one_line(case: str, context: Context) -> None:
    value, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        lbcs(context, **(value if isinstance(value, dict) else {case: value}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- the start from another method ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signals() -> Signals:
    """Signals of a kind for the 300 digits: pixels, and a random last layer."""
    images = data.load("digits").train.images[:300].flatten(1).float() / 255
    draw = torch.Generator().manual_seed(0)
    return Signals(features=images, logits=images @ torch.randn(64, 10, generator=draw), labels=labels_only().labels)


@pytest.mark.parametrize("method", ["LCMat-S", "herding", "Probabilistic"])
@pytest.mark.parametrize("balanced", [True, False], ids=["balanced", "unbalanced"])
def test_the_start_may_be_any_methods_subset(
    method: str, balanced: bool, context: Context, signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = trained_sets(monkeypatch)
    cheap = {"outer_steps": 2, "inner_epochs": 1} if method == "Probabilistic" else {}
    if cheap:
        own = replace(get(method), pick=functools.partial(get(method).pick, **cheap))
        find = methods.get
        monkeypatch.setattr(methods, "get", lambda name: own if name == method else find(name))
    select(signals, "LBCS", budget=40, balanced=balanced, context=context, init_selection=method, **QUICK)
    if not cheap:
        expected = select(signals, method, budget=40, balanced=balanced)
        assert sets[0] == sorted(expected.indices.tolist())
    assert len(sets[0]) == 40


def test_what_the_start_needs_is_named_and_provided(context: Context) -> None:
    with pytest.raises(UserError, match="LBCS needs features"):
        lbcs(context, init_selection="LCMat-S")
    method = get("LBCS").under({"init_selection": "GraNd"})
    assert method.needs == ("training", *get("GraNd").needs)
    assert method.fields == {"training", "initialisations"}
    assert get("LBCS").under({}).needs == ("training",)
    assert get("Craig").under({"anything": 1}) == get("Craig")


def test_networks_to_start_with_are_trained_first_and_kept(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second training dies; a resumed selection makes that one and the third, and ends as an undisturbed one."""
    more = {"networks": 3, "pretrain_epochs": 2}
    whole = replace(context, checkpoint=tmp_path / "whole.pt", log=tmp_path / "whole" / "t.jsonl")
    expected = lbcs(whole, **more)
    original, made = methods.lbcs.train, []

    def dying(*words: object, **named: object) -> object:
        if len(made) == 1 and not resumed:
            raise Killed
        made.append(named["seed"])
        return original(*words, **named)

    monkeypatch.setattr(methods.lbcs, "train", dying)
    log = tmp_path / "killed" / "trials.jsonl"
    took = []
    killed = replace(context, checkpoint=tmp_path / "killed.pt", log=log, took=took.append)
    resumed = False
    with pytest.raises(Killed):
        lbcs(killed, **more)
    resumed = True
    found = lbcs(replace(killed, resume=True), **more)
    assert len(made) == len(set(made)) == 3
    assert np.array_equal(found.indices, expected.indices)
    assert without_seconds(killed.log) == without_seconds(whole.log)
    state = torch.load(killed.checkpoint, weights_only=True)
    trained = state["networks"]
    assert took[0] == 0 < took[1] < state["seconds"], "of the first network only"
    assert took[2:] == [0], "no trial had been made"
    fresh = [TinyNet(number).state_dict() for number in range(3)]
    assert not any(torch.equal(a["head.weight"], b["head.weight"]) for a, b in zip(trained, fresh, strict=True))


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_killed_selection_goes_on(stop: int, context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = replace(context, checkpoint=tmp_path / "whole.pt", log=tmp_path / "whole" / "trials.jsonl")
    expected = lbcs(whole)
    original, done = methods.lbcs.TrainingLoss.__call__, []

    def dying(self: object, chosen: Tensor, trial: int) -> float:
        if trial == stop and not resumed:
            raise Killed
        done.append(trial)
        return original(self, chosen, trial)

    monkeypatch.setattr(methods.lbcs.TrainingLoss, "__call__", dying)
    log = tmp_path / "killed" / "trials.jsonl"
    killed, resumed = replace(context, checkpoint=tmp_path / "killed.pt", log=log), False
    with pytest.raises(Killed):
        lbcs(killed)
    resumed = True
    found = lbcs(replace(killed, resume=True))
    assert done == list(range(6))
    assert np.array_equal(found.indices, expected.indices)
    assert without_seconds(killed.log) == without_seconds(whole.log)


def test_a_longer_search_goes_on_from_the_shorter_ones_file(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another record, beside its own; and a shorter one takes what a longer one found."""
    sets = trained_sets(monkeypatch)
    whole = lbcs(replace(context, log=tmp_path / "whole" / "8.jsonl"), trials=8)
    lbcs(replace(context, log=tmp_path / "5.jsonl"), trials=5)
    (tmp_path / "6.jsonl").write_text("no search\n")
    sets.clear()
    longer = lbcs(replace(context, log=tmp_path / "8.jsonl", resume=True), trials=8)
    assert len(sets) == 3
    assert np.array_equal(longer.indices, whole.indices)
    assert len(read_trials(tmp_path / "8.jsonl")[1]) == 8
    assert len(read_trials(tmp_path / "5.jsonl")[1]) == 5
    sets.clear()
    lbcs(replace(context, log=tmp_path / "7.jsonl", resume=True), trials=7)
    assert sets == []
    lbcs(replace(context, log=tmp_path / "4.jsonl"), trials=4)
    assert len(sets) == 4, "without resume nothing is taken"


@pytest.mark.parametrize("more", [{"batch": 7}, {"lr": 0.7}, {"weight_decay": 0.7}], ids=str)
def test_a_recipe_that_no_training_follows_does_not_matter(more: dict, context: Context, tmp_path: Path) -> None:
    """The inner loop has its own; networks that are trained first follow it."""
    other = replace(context, recipe=replace(context.recipe, **more))
    for number, how in enumerate(({}, {"pretrain_epochs": 1})):
        log = tmp_path / str(number) / "trials.jsonl"
        lbcs(replace(context, log=log), trials=2, **how)
        if how:
            with pytest.raises(UserError, match="another search"):
                lbcs(replace(other, log=log, resume=True), trials=2, **how)
        else:
            lbcs(replace(other, log=log, resume=True), trials=2)


def test_flags_that_lbcs_does_not_read_leave_its_search_alone(bench: Callable) -> None:
    """The selection's key; and the released code's whole numbers are the same settings as ours with a point."""
    keys, runs = [], {}
    for more in ({}, {"pretrain_epochs": 1}):
        for batch in (64, 32):
            own, how = bench(), {**QUICK, **more}
            own = replace(own, settings=replace(own.settings, selection_recipe=Recipe(epochs=1, batch=batch)))
            run = Run(get("LBCS").under(how), 0, budget=50, options=how)
            keys.append(selection_key(Selection().configuration(own, run)))
    assert keys[0] == keys[1]
    assert keys[2] != keys[3]
    for value in (0, 0.0, 8, 8.0):
        runs[repr(value)] = json.dumps(get("LBCS").resolved(0, 0, {"bias": value, "step": value or 1}))
    assert runs["0"] == runs["0.0"] != runs["8"] == runs["8.0"]


OTHERS = {
    "seed": {"seed": 9},
    "budget": {"budget": 41},
    "tolerance": {"tolerance": 0.3},
    "learning rate": {"inner_lr": 0.02},
    "bias": {"bias": -0.1},
    "images": {},
    "network": {},
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("kept", ["checkpoint", "log"])
def test_trials_of_another_selection_are_refused(case: str, kept: str, context: Context, tmp_path: Path) -> None:
    own = replace(context, **{kept: tmp_path / "kept"})
    lbcs(own, trials=2)
    other = replace(own, resume=True)
    if case == "images":
        other = replace(other, split=TensorSplit(255 - own.split.images, own.split.labels))
    if case == "network":
        other = replace(other, fresh_network=lambda number: TinyNet(number + 1))
    with pytest.raises(UserError, match=r"kept .*another (search|selection); remove it or leave --resume out"):
        lbcs(other, trials=2, **OTHERS[case])
    assert len(lbcs(replace(own, resume=True), trials=3)) > 0, "the same selection, but longer, goes on"


# ---- what the search can reach --------------------------------------------------------------------------------------


def reached(start: object) -> Iterator[object]:
    """Yield all objects that one leads to: by attributes, items, closures, defaults; not by what modules hold."""
    seen, left = set(), [start]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | types.ModuleType):
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, types.FunctionType):
            left += [cell.cell_contents for cell in one.__closure__ or ()] + list(one.__defaults__ or ())
        else:
            left += gc.get_referents(one)


@pytest.fixture
def bench(digits: data.Dataset, compute: Compute, tmp_path: Path) -> Callable:
    """A bench on digits with a small network."""

    def make(dataset: data.Dataset = digits, folder: str = "one"):
        settings = Settings(
            model="Net", recipe=Recipe(epochs=1, batch=64), test_interval=0, save_path=tmp_path / folder / "result",
            cache_path=tmp_path / folder / "cache",
        )  # fmt: skip
        return make_setup(dataset, compute, lambda name, dataset: TinyNet(0), settings)

    return make


def test_nothing_leads_from_the_context_to_the_test_images(bench: Callable, digits: data.Dataset) -> None:
    own = bench()
    run = Run(get("LBCS"), 0, budget=50, options=QUICK)
    pointers = {part.data_ptr() for part in (own.dataset.test.images, own.dataset.test.labels)}

    def leads_to_test(start: object) -> bool:
        return any(isinstance(one, Tensor) and one.data_ptr() in pointers for one in reached(start))

    made = pretrained.context_of(own, run, "key", own.settings.save_path / "t.jsonl")
    assert not leads_to_test(made)
    assert not leads_to_test(methods.lbcs.TrainingLoss(prepared(made.split, made.compute), [], made, 1, 0.1, 0))
    assert leads_to_test(own), "the test would not see it"
    assert leads_to_test(lambda: own)


@pytest.mark.parametrize("more", [{}, {"networks": 0}, {"networks": 2, "pretrain_epochs": 1}], ids=str)
def test_trials_are_the_same_whatever_the_test_set(bench: Callable, digits: data.Dataset, more: dict) -> None:
    test = digits.test
    other = replace(digits, test=TensorSplit(255 - test.images, test.labels.flip(0)))
    run = Run(get("LBCS"), 0, budget=50, options={**QUICK, **more})
    found = []
    for name, dataset in (("one", digits), ("other", other)):
        own = bench(dataset, name)
        record = Selection().make(own, run)
        (path,) = own.settings.save_path.glob("*/LBCS/*.jsonl")
        found.append((without_seconds(path)[1:], record["subset_size"], record["test_accuracy"]))
    assert found[0][:2] == found[1][:2]
    assert found[0][2] != found[1][2]


# ---- through the pipeline and the command line ----------------------------------------------------------------------


DIGITS = [
    "--dataset", "digits", "--model", "MLP", "--selection", "LBCS", "--trials", "8", "--epochs", "2", "--batch", "32",
    "--test_interval", "0", "--option", "inner_steps=3", "inner_lr=0.01",
]  # fmt: skip


def test_a_run_leaves_a_record_and_its_trials_beside_it(tmp_path: Path) -> None:
    assert call(*DIGITS, *places(tmp_path), "--init_size", "60", "--tolerance", "0.3", "--seed", "0") == 0
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/fraction*-seed0-*.json")
    record = json.loads(path.read_text())
    search, lines = read_trials(path.with_suffix(".jsonl"))
    assert (search["init_size"], search["samples"], search["tolerance"]) == (60, 1297, 0.3)
    assert len(lines) == 8
    assert record["config"]["budget"] == 60
    assert record["config"]["options"]["trials"] == 8
    assert record["config"]["options"]["tolerance"] == 0.3
    answer = lines[best_index([(one["f1"], one["f2"]) for one in lines], 0.3)]
    assert record["subset_size"] == answer["f2"] == len(np.load(path.with_suffix(".npz"))["indices"])
    assert not list((tmp_path / "cache" / "checkpoints").glob("*"))
    assert call(*DIGITS, *places(tmp_path), "--budget", "60", "--tolerance", "0.3", "--seed", "0") == 0
    assert len(list(tmp_path.glob("result/digits-MLP/LBCS/*.json"))) == 1, "the budget has another name, no other hash"


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*DIGITS, "--init_size", "60"]
    assert call(*words, *places(tmp_path / "whole")) == 0
    original = methods.lbcs.TrainingLoss.__call__

    def dying(self: object, chosen: Tensor, trial: int) -> float:
        if trial == 5:
            raise KeyboardInterrupt
        return original(self, chosen, trial)

    with monkeypatch.context() as patched:
        patched.setattr(methods.lbcs.TrainingLoss, "__call__", dying)
        assert call(*words, *places(tmp_path / "killed")) == 130
    (log,) = tmp_path.glob("killed/result/*/LBCS/*.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 1 + 5
    log.write_text("".join(json.dumps(one | ({"seconds": 1000.0} if "trial" in one else {})) + "\n" for one in lines))
    assert call(*words, *places(tmp_path / "killed"), "--resume") == 0
    one, other = (next((tmp_path / name).glob("result/*/LBCS/*.json")) for name in ("whole", "killed"))
    assert one.name == other.name
    assert without_seconds(one.with_suffix(".jsonl")) == without_seconds(other.with_suffix(".jsonl"))
    records = [json.loads(path.read_text()) for path in (one, other)]
    assert records[0]["test_accuracy"] == records[1]["test_accuracy"]
    assert records[0]["seconds"]["select"] < 5000 < records[1]["seconds"]["select"] < 10_000, "earlier trials count"
    assert np.array_equal(*(np.load(path.with_suffix(".npz"))["indices"] for path in (one, other)))


def test_a_start_from_signals_through_the_command_line(tmp_path: Path) -> None:
    words = [*DIGITS, *places(tmp_path), "--selection_epochs", "1", "--fraction", "0.05"]
    assert call(*words, "--init_selection", "lcmat-s") == 0
    assert call(*words, "--selection", "LCMat-S", "--option", "rho=0.1") == 0
    record, other = (
        json.loads(next(tmp_path.glob(f"result/digits-MLP/{name}/*.json")).read_text()) for name in ("LBCS", "LCMat-S")
    )
    assert record["config"]["options"]["init_selection"] == "LCMat-S"
    assert record["needs"] == ["features", "logits", "training"]
    network = record["config"]["selection_network"]
    assert {k: v for k, v in network.items() if k != "training"} == other["config"]["selection_network"]
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/*.jsonl")
    assert read_trials(path)[1][0]["f2"] == other["subset_size"]


def test_the_inner_network_may_be_another(tmp_path: Path) -> None:
    assert call(*DIGITS, *places(tmp_path), "--init_size", "40", "--trials", "2", "--inner_model", "lenet") == 0
    (path,) = tmp_path.glob("result/digits-MLP/LBCS/*.json")
    record = json.loads(path.read_text())
    assert record["test_model"] == record["selection_model"] == "MLP"
    assert record["config"]["selection_network"]["training"]["model"] == "LeNet"


BAD_INPUT = {
    "trials": (["--trials", "0"], "trials must be a whole number of at least 1, not 0"),
    "tolerance": (["--tolerance", "-1"], "tolerance must be 0 or more and finite, not -1"),
    "start": (["--init_selection", "Craigg"], "did you mean Craig"),
    "start from itself": (["--init_selection", "LBCS"], "cannot start from LBCS"),
    "start size": (["--init_size", "0"], "budget must be between 1 and 1297"),
    "start size too large": (["--init_size", "1298"], "budget must be between 1 and 1297"),
    "inner network": (["--inner_model", "LeNett"], "did you mean LeNet"),
    "option": (["--option", "LBCS.slak=3"], "did you mean slack"),
    "value": (["--option", "slack=-3"], "slack must be a whole number of at least 1"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line_and_writes_nothing(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    assert call("--dataset", "digits", "--model", "MLP", "--selection", "LBCS", *words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.strip().splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_signals_alone_are_too_little(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "s.npz", features=np.zeros((20, 2)), logits=np.zeros((20, 2)), labels=np.arange(20) % 2)
    assert call("--signals", tmp_path / "s.npz", "--selection", "LBCS", *places(tmp_path)) == 2
    assert "LBCS needs more than signals" in capsys.readouterr().err


# ---- figures and experiments ----------------------------------------------------------------------------------------


def test_the_course_of_a_search_is_drawn(tmp_path: Path, script: Callable) -> None:
    path = tmp_path / "digits-MLP" / "LBCS" / "fraction0.05-seed0-abc.jsonl"
    searched(path)
    done = script(["-m", "lcmat", "lbcs", tmp_path])
    assert done.returncode == 0, done.stderr
    _, lines = read_trials(path)
    answer = lines[best_index([(one["f1"], one["f2"]) for one in lines], 0.2)]
    assert f"30 trials in 0 s, {sum(one['accepted'] for one in lines)} accepted" in done.stdout
    assert f"from 20 to {answer['f2']} samples" in done.stdout
    ordered, mean = sorted(one["f1"] for one in lines), np.mean([one["f2"] for one in lines])
    assert f"tried: f₁ from {ordered[0]:.4f} to {ordered[-1]:.4f}, {mean:.0f} samples in the mean" in done.stdout
    name = "digits-MLP-LBCS-fraction0.05-seed0-abc"
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {f"{name}.png", f"{name}.pdf"}
    assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert not (path.parent / f"{path.stem}.png").exists()


def test_a_search_that_still_runs_and_a_diverged_one_can_be_drawn(tmp_path: Path) -> None:
    lines = [{"trial": 1, "f1": 1.5, "f2": 20, "accepted": True, "incumbent": [1.5, 20], "seconds": 1.0}]
    assert len(search_figure(lines, 0.2, "one trial", tmp_path, "one")) == 2
    lines.append({"trial": 2, "f1": 10_000.0, "f2": 19, "accepted": False, "incumbent": [1.5, 20], "seconds": 1.0})
    assert all(path.stat().st_size > 5000 for path in search_figure(lines, 0.2, "two trials", tmp_path, "two"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        (["."], "no trial of a search at .; run main.py --selection LBCS first"),
        (["text.txt"], "text.txt is no file of trials"),
    ],
)
def test_nothing_to_draw(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lcmat.commands import lbcs as command

    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("hello\n")
    assert options.run_command_line(command.main, words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


CONFIGS = sorted((ROOT / "configs").glob("lbcs_table2_*.yaml"))
ROBUSTNESS = ROOT / "configs" / "lbcs_robustness_fashionmnist.yaml"


def lines_of(path: Path) -> list:
    """The command lines of a grid."""
    parser = options.build_parser("test")
    return grids.read_grid(path, [], parser, list(_reports.KNOWN)).lines


def test_there_is_an_experiment_for_each_dataset_of_table_2() -> None:
    assert [path.stem.removeprefix("lbcs_table2_") for path in CONFIGS] == ["cifar10", "fashionmnist", "svhn"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_experiments_hold_what_can_be_run(path: Path) -> None:
    """Every name and option is known, sizes are those of Table 2, and the table's methods are all there."""
    (args,) = lines_of(path)
    assert args.budget == [1000, 2000, 3000, 4000]
    assert (args.trials, args.tolerance) == (500, 0.2)
    table = {"Uniform", "EL2N", "GraNd", "Influential", "Moderate", "CCS", "Probabilistic", "LBCS"}
    assert table <= set(args.selection)
    chosen = [get(name) for name in args.selection]
    settings_of(args)
    check_options(chosen, list(options_of(args, flags=False)))
    for method in chosen:
        method.resolved(10, 84, options_for(method, options_of(args)))
    assert {args.model, args.inner_model or args.model} <= set(nets.names())
    assert args.dataset in data.names()


def test_experiments_share_their_settings() -> None:
    """The part of Table 2 that was run, and robustness, have those of the whole, but for precision and threads."""
    (whole,) = lines_of(ROOT / "configs" / "lbcs_table2_fashionmnist.yaml")
    apart = {"selection", "budget", "seed", "given", "config", "label_noise", "long_tail", "init_selection"}
    for path in (ROOT / "configs" / "lbcs_fashionmnist.yaml", ROBUSTNESS):
        for line in lines_of(path):
            differ = {name for name, value in vars(line).items() if value != getattr(whole, name)} - apart
            assert differ <= ({"precision", "threads"} if path != ROBUSTNESS else set())
    assert [(line.label_noise, line.long_tail) for line in lines_of(ROBUSTNESS)] == [(0.3, None), (None, 100)]


def test_init_size_is_a_key_of_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("init_size: [5, 6]\n")
    assert options.parse(["--config", str(tmp_path / "c.yaml")]).budget == [5, 6]
    args = options.parse(["--config", str(tmp_path / "c.yaml"), "--fraction", "0.1"])
    assert (args.budget, args.fraction) == (None, [0.1])


def test_warnings_do_not_pass_unseen() -> None:
    """A search of this file that stands still would make its tests mean less."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refine(loss_of_missing(4, 0.5), start_of(16, 8), Rules(0.2, 2.0), seed=0, trials=100)
