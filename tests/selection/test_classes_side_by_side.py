"""Class-balanced selection by several workers: the picks of one, memory shared out, and how it ends."""

import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

import methods
from lcmat import Signals, UserError, memory_limit, workers
from lcmat.selection import Method, Picks, select, select_with
from tests.every_method import chosen, every_method, make
from tests.problems import random_problem


@pytest.fixture
def four_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and there are four workers, whatever the machine has."""

    def begin() -> None:
        monkeypatch.setattr(workers, "cores", lambda: 4)
        torch.set_num_threads(4)

    return begin


@every_method
@pytest.mark.parametrize("size", [{"fraction": 0.3}, {"budget": 9}], ids=["fraction", "budget"])
def test_picks_are_those_of_one_class_after_the_other(method: str, size: dict, four_workers: Callable) -> None:
    """All that a subset holds, bit by bit, of classes of very different sizes, an absent one among them."""
    problem = make([3, 40, 0, 7, 25, 12], seed=5)
    torch.set_num_threads(1)
    expected = chosen(method, problem, **size)
    four_workers()
    found = chosen(method, problem, **size)
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("method", ["Craig", "AdaCore", "LCMat-S", "FacilityLocation"])
@pytest.mark.parametrize("memory", [1, "100kB", "1GB"])
def test_neither_memory_nor_workers_decide_picks(method: str, memory: int | str, four_workers: Callable) -> None:
    """Whether a class's matrix fits into a worker's share or not."""
    problem = random_problem(3, 200, 6, 4)
    torch.set_num_threads(1)
    expected = methods.select(problem.signals, method, fraction=0.2)
    four_workers()
    found = methods.select(problem.signals, method, fraction=0.2, memory=memory)
    assert np.array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.costs, expected.costs, rtol=1e-12)


def signals_of(sizes: list[int]) -> Signals:
    """Signals of classes of these sizes."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    draw = torch.Generator().manual_seed(0)
    return Signals(
        torch.randn(len(labels), 3, generator=draw), torch.randn(len(labels), len(sizes), generator=draw), labels
    )


def made_of(work: Callable[[int], None]) -> Method:
    """A method that takes the first of each class, and does some work with its number."""

    def pick(signals: Signals, budget: int, generator: torch.Generator) -> Picks:
        work(int(signals.labels[0]))
        return Picks(torch.arange(budget))

    return Method("Made", pick)


def test_the_largest_class_comes_first_and_the_outcome_in_order(four_workers: Callable) -> None:
    """So that no worker begins a long one when the others are done."""
    four_workers()
    begun, seen = [], threading.Lock()

    def work(number: int) -> None:
        with seen:
            begun.append(number)
        time.sleep(0.05)  # the first four begin before the fifth

    subset = select_with(made_of(work), signals_of([2, 9, 4, 30, 4, 7]), fraction=0.5)
    assert set(begun[:4]) == {3, 1, 5, 2}
    assert subset.classes.tolist() == sorted(subset.classes.tolist())


def test_workers_share_the_memory(four_workers: Callable) -> None:
    """Each of four has a quarter of the limit, each of two a half; one alone, all of it."""
    four_workers()
    found = []

    def work(number: int) -> None:
        found.append(max(share for share in range(1, 1001) if memory_limit.fits(share * 1000, 1.0)))

    for classes, share in ((6, 250), (2, 500), (1, 1000)):
        found.clear()
        select_with(made_of(work), signals_of([4] * classes), fraction=0.5, memory=10**6)
        assert found == [share] * classes
    with memory_limit.limited(1000):
        assert memory_limit.fits(1000, 1.0)


@pytest.mark.parametrize(("memory", "expected"), [("1GB", 4), ("300kB", 2), (1, 1)])
def test_workers_are_as_few_as_their_blocks_fit_into_memory(
    memory: int | str, expected: int, four_workers: Callable
) -> None:
    """A class's 32² distances take 32 kB, a few times: of a quarter of the limit."""
    four_workers()
    working, most, seen = 0, 0, threading.Lock()

    def work(number: int) -> None:
        nonlocal working, most
        with seen:
            working += 1
            most = max(most, working)
        time.sleep(0.05)
        with seen:
            working -= 1

    select_with(made_of(work), signals_of([32] * 8), fraction=0.5, memory=memory)
    assert most == expected


def test_an_error_in_one_class_stops_all(four_workers: Callable) -> None:
    """The error is that of the class; the others do not go on."""
    four_workers()
    ended = []

    def work(number: int) -> None:
        if number == 2:
            raise UserError("class 2 is odd")
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.append(number)

    with pytest.raises(UserError, match="class 2 is odd"):
        select_with(made_of(work), signals_of([5] * 9), fraction=0.5)
    assert len(ended) <= 3 + workers.AHEAD * 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_progress_is_over_classes(four_workers: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar, that counts every class."""
    four_workers()
    bars = []

    class Bar(select.Progress):
        """Keeps itself."""

        def __init__(self, *values: object, **options: object) -> None:
            super().__init__(*values, **options)
            bars.append(self)

    monkeypatch.setattr(select, "Progress", Bar)
    select_with(made_of(lambda number: None), signals_of([9] * 6), fraction=0.5)
    assert [(bar.n, bar.total) for bar in bars if bar.total] == [(6, 6)]
