"""Work shared out between threads: results, limits, and how it ends."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from lcmat import workers
from lcmat.block_sizes import at_once, sized


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers, whatever the machine has."""
    monkeypatch.setattr(workers, "cores", lambda: 4)
    torch.set_num_threads(4)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, which a process that was started in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def of_pool() -> set[threading.Thread]:
    """The threads of a pool that are there."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("worker ")}


def test_results_come_in_order_each_from_one_thread_of_several() -> None:
    """However long each takes; as many work at once as there are cores, each with one thread of PyTorch."""
    together = threading.Barrier(4, timeout=10)

    def work(number: int) -> tuple[int, int, int]:
        if number < 4:
            together.wait()  # breaks unless four are here at once
        time.sleep(0.01 * (number % 3))
        return number, torch.get_num_threads(), workers.allowed()

    assert list(workers.in_order(work, range(20))) == [(number, 1, 1) for number in range(20)]
    assert not of_pool()
    assert torch.get_num_threads() == 4


def test_few_pieces_of_work_share_all_threads() -> None:
    """Two workers of two threads each."""
    assert list(workers.in_order(lambda _: torch.get_num_threads(), range(2))) == [2, 2]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_single_piece_or_thread_needs_no_worker(threads: int) -> None:
    """All is done where it is asked for."""
    torch.set_num_threads(threads)
    items = range(1 if threads == 4 else 9)
    assert set(workers.in_order(lambda _: threading.current_thread(), items)) == {threading.current_thread()}


def test_workers_are_no_more_than_cores_and_one_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota of two cores counts, whatever PyTorch thinks; signals on a GPU are worked on one after the other."""
    assert (workers.allowed(), workers.allowed("cuda")) == (4, 1)
    monkeypatch.setattr(workers, "cores", lambda: 2)
    assert workers.allowed() == 2


def test_pytorch_has_one_thread_while_workers_have_the_rest() -> None:
    """And both again what they had."""
    with workers.threads_for_workers() as count:
        assert (count, torch.get_num_threads(), workers.allowed()) == (4, 1, 4)
        assert list(workers.in_order(lambda _: torch.get_num_threads(), range(9))) == [1] * 9
    assert (torch.get_num_threads(), workers.allowed()) == (4, 4)


def test_what_holds_around_holds_in_workers() -> None:
    """Limits and sizes of blocks are those of whoever asked."""
    with sized(exact_rows=3):
        assert list(workers.in_order(lambda _: at_once().exact_rows, range(9))) == [3] * 9


def test_little_is_done_ahead_of_what_is_taken() -> None:
    """Results that nobody takes yet do not pile up."""
    begun = []
    with closing(workers.as_done(begun.append, range(1000))) as results:
        next(results)
        time.sleep(0.1)
        assert len(begun) <= 4 * workers.AHEAD
    assert not of_pool()


class Died(BaseException):
    """What no handler of errors expects."""


@pytest.mark.parametrize("error", [ValueError, MemoryError, SystemExit, Died])
def test_what_one_raises_is_raised_and_stops_the_others(error: type[BaseException]) -> None:
    """Nothing hangs, and no thread is left, however long the others would have gone on."""

    def work(number: int) -> None:
        if number == 2:
            raise error("of the third")
        while True:
            time.sleep(0.001)

    started = time.monotonic()
    with pytest.raises(error, match="of the third"):
        list(workers.in_order(work, range(9)))
    assert time.monotonic() - started < 5
    assert not of_pool()
    assert torch.get_num_threads() == 4


def test_ctrl_c_stops_all(interruptible: None) -> None:
    """While all workers are in the middle of something; also where the tests run in the background."""

    def work(number: int) -> None:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        while True:
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        list(workers.in_order(work, range(9)))
    assert not of_pool()


def test_a_thread_that_cannot_be_started_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives two threads and no more."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "worker 2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        list(workers.in_order(lambda number: number, range(9)))
    assert not of_pool()
