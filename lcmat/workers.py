"""Work shared out between threads of Python, each of which computes with its share of the cores.

PyTorch's own threads wait for each other at the end of every small operation, by spinning: one that has lost its core
to another program holds up all. Here each piece of work is computed by one thread, and whoever is done takes the next.

Threads, not processes: what is worked on are operations on large tensors, which release the interpreter's lock, and
threads share the signals. Ten classes of 2,000 samples took two threads 4.0 to 4.4 s of processor time, one after the
other 3.5 s, and two processes 4.7 s, with 9 s more to start them and import PyTorch. (A fork is none: PyTorch's threads
would not be there.)
"""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from lcmat.hardware import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many pieces of work wait for each worker, while the results of others are taken.
AHEAD = 2
# How many workers there may be, where that is not how many threads PyTorch has.
_allowed: contextvars.ContextVar[int | None] = contextvars.ContextVar("allowed", default=None)


class _StopWork(BaseException):
    """Raised inside workers whose results nobody waits for any more."""


def allowed(device: torch.device | str = "cpu") -> int:
    """Return how many workers there may be here: threads of PyTorch that have a core; one where a GPU computes."""
    if torch.device(device).type != "cpu":
        return 1
    said, threads = _allowed.get(), torch.get_num_threads()
    if said is not None or threads == 1:
        return said or threads
    return min(threads, cores())


@contextmanager
def threads_for_workers(device: torch.device | str = "cpu", most: int | None = None) -> Iterator[int]:
    """Let PyTorch compute with one thread for a while, and workers with as many as it had; yield how many may work.

    most: no more workers than that; of a single one, PyTorch keeps its threads.
    """
    before, workers = torch.get_num_threads(), allowed(device)
    workers = workers if most is None else min(workers, most)
    token = _allowed.set(workers)
    torch.set_num_threads(before if workers == 1 else 1)
    try:
        yield workers
    finally:
        torch.set_num_threads(before)
        _allowed.reset(token)


def as_done(
    function: Callable[[Item], Result], items: Sequence[Item], most: int | None = None
) -> Iterator[tuple[int, Result]]:
    """Yield (number, function(item)) for all items, as they are done, begun in their order.

    most: how many workers there may be, by default as many as are allowed; of fewer items, each has more threads.
    What is raised for one item is raised here, and stops all; so does closing the iterator, and Ctrl-C.
    """
    most = allowed() if most is None else most
    workers = min(most, len(items))
    if workers < 2:
        yield from ((number, function(item)) for number, item in enumerate(items))
        return
    tasks: SimpleQueue[int | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, Result | None, BaseException | None]] = SimpleQueue()
    before, share = torch.get_num_threads(), max(1, allowed() // workers)

    def work() -> None:
        torch.set_num_threads(share)
        _allowed.set(share)
        with suppress(_StopWork):
            while (number := tasks.get()) is not None:
                try:
                    result = number, function(items[number]), None
                except BaseException as error:  # what ends a worker is raised where its results are waited for
                    result = number, None, error
                done.put(result)

    threads = [
        # Each knows the limits that hold here. Daemons: a process that ends in spite of them does not wait for them.
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name=f"worker {i}", daemon=True)
        for i in range(workers)
    ]
    try:
        for thread in threads:
            thread.start()
        given = min(len(items), AHEAD * workers)
        for number in range(given):
            tasks.put(number)
        for _ in items:
            number, result, error = _next(done)
            if error is not None:
                raise error
            yield number, result
            if given < len(items):
                tasks.put(given)
                given += 1
        _end(threads, tasks)
    except BaseException:
        _end(threads, tasks, at_once=True)
        raise
    finally:
        torch.set_num_threads(before)  # what a thread sets may hold for others


def in_order(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device | str = "cpu"
) -> Iterator[Result]:
    """Yield function(item) for all items in their order, computed by as many workers as are allowed for a device."""
    early: dict[int, Result] = {}
    wanted = 0
    with closing(as_done(function, items, allowed(device))) as results:
        for number, result in results:
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1


def _next(done: SimpleQueue) -> tuple:
    """Return what comes next; wake up now and then, for a Ctrl-C that reached another thread than this."""
    while True:
        try:
            return done.get(timeout=0.2)
        except Empty:
            continue


def _end(threads: list[threading.Thread], tasks: SimpleQueue, at_once: bool = False) -> None:
    """Wait for workers to end when they have nothing more to do; at once: at their next step in Python."""
    if at_once:
        while not tasks.empty():
            tasks.get()
    for _ in threads:
        tasks.put(None)
    for thread in threads:
        if at_once and thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_StopWork))
    for thread in threads:
        if thread.ident is not None:
            thread.join()
