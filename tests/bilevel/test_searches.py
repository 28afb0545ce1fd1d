"""Whole searches on problems whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcmat.bilevel import trials
from lcmat.bilevel.lexicographic import Rules, initial_state
from lcmat.bilevel.trials import TrialFile, read_trials, refine
from lcmat.training import DivergedError
from tests import oracles
from tests.searches import RULES, loss_of_missing, start_of

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


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
