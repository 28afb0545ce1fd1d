"""Signals of values that are not finite, or that are missing, are refused by name."""

import numpy as np
import pytest

from lcmat import Signals, UserError
from methods import select
from tests import oracles
from tests.problems import random_problem

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)
# Small fractions of small classes round to nothing, which the library says; one test below checks that it does.
pytestmark = pytest.mark.filterwarnings("ignore:.*rounds to no sample")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["features", "logits"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(field: str, value: float, dtype: type) -> None:
    problem = random_problem(0)
    fields = {"features": problem.features.astype(dtype), "logits": problem.logits.astype(dtype)}
    fields[field][17, 2] = value
    with pytest.raises(UserError, match=rf"{field}.*sample 17"):
        Signals(labels=problem.labels, **fields)


def test_opposite_infinities_are_refused() -> None:
    problem = random_problem(0)
    problem.features[3, 0], problem.features[9, 0] = np.inf, -np.inf
    with pytest.raises(UserError, match="features"):
        problem.signals  # noqa: B018


def test_missing_signals_are_named() -> None:
    problem = random_problem(0)
    with pytest.raises(UserError, match="features"):
        select(Signals(logits=problem.logits, labels=problem.labels), fraction=0.1)
    with pytest.raises(UserError, match="logits"):
        select(Signals(features=problem.features, labels=problem.labels), fraction=0.1)
    assert len(select(Signals(labels=problem.labels), "Uniform", budget=10)) == 10
