"""Signs of life of whatever takes long: a bar on a terminal, a line each minute where output is none.

A thread looks after the loops under way, so that a step that takes minutes is no silence: on a terminal the innermost
bar is drawn anew every few seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class Rhythm:
    """Seconds between lines where output is no terminal, between drawings of a bar on one, between looks.

    A pause of `gap` seconds without a loop ends what the lines count as one piece of work.
    """

    line: float = 60.0
    drawing: float = 5.0
    look: float = 1.0
    gap: float = 10.0


RHYTHM = Rhythm()


class Progress(Generic[Item]):
    """A loop that shows it is alive: over items, or over whatever `update` counts, or neither, within a `with`.

    total: how many there are, where `len(items)` does not say; initial: how many were done before. disable: say
    nothing, of loops that take no time. n: how many are done.
    """

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        desc: str,
        total: int | None = None,
        initial: int = 0,
        disable: bool | None = False,
    ) -> None:
        if total is None and hasattr(items, "__len__"):
            total = len(items) or None
        self.items, self.desc, self.total, self.n = items, desc, total, initial
        self.began, self.first, self.said = time.monotonic(), initial, ""
        self.stream, self._bar, self.quiet = sys.stderr, None, bool(disable)
        if not self.quiet:
            self._bar = _bar(desc, total, initial) if _terminal() else None
            WATCH.add(self)

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items:
                yield item
                self.update()

    def __enter__(self) -> Progress[Item]:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, count: int = 1) -> None:
        """Count what was done."""
        self.n += count
        if self._bar is not None:
            self._bar.update(count)

    def set_postfix(self, **values: object) -> None:
        """Say more: names and values."""
        self.said = ", ".join(f"{name} {value}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix(refresh=False, **values)

    def close(self) -> None:
        """End it."""
        if not self.quiet:
            WATCH.remove(self)
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def draw(self) -> None:
        """Draw the bar anew, if there is one: its seconds go on."""
        if self._bar is not None:
            self._bar.refresh()

    def in_words(self, with_time: bool) -> str:
        """Return where it stands, with the time so far and to come if asked for."""
        count = f" {self.n:,} of {self.total:,}" if self.total is not None else f" {self.n:,}" if self.n else ""
        more = f" ({self.said})" if self.said else ""
        return f"{self.desc}{count}{more}{self._times() if with_time else ''}"

    def _times(self) -> str:
        took, done = time.monotonic() - self.began, self.n - self.first
        left = took / done * (self.total - self.n) if self.total and done else 0.0
        return f", {duration(took)}" + (f", about {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3 h 20 min, 5 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 72 * 60:
        return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
    return f"{round(minutes / 1440)} days"


def _terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # none, or closed
        return False


def _bar(desc: str, total: int | None, initial: int) -> object:
    from tqdm import tqdm

    shape = {} if total is not None else {"bar_format": "{desc}: {elapsed}{postfix}"}
    return tqdm(desc=desc, total=total, initial=initial, leave=False, **shape)


@dataclass
class Watch:
    """The loops under way, oldest first, and the thread that looks after them for as long as there are any."""

    loops: list[weakref.ref] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    thread: threading.Thread | None = None
    since: float = 0.0  # the last line, or the beginning of the work
    drawn: float = 0.0
    busy: float = 0.0  # when there last was a loop

    def add(self, loop: Progress) -> None:
        with self.lock:
            self.loops.append(weakref.ref(loop))
            if self.thread is None:
                self.since = self.drawn = self.busy = time.monotonic()
                self.thread = threading.Thread(target=self._look, name="alive", daemon=True)
                self.thread.start()

    def remove(self, loop: Progress) -> None:
        with self.lock:
            self.loops = [one for one in self.loops if one() not in (loop, None)]

    def _look(self) -> None:
        while True:
            time.sleep(RHYTHM.look)
            now = time.monotonic()
            with self.lock:
                loops = [loop for one in self.loops if (loop := one()) is not None]
                self.busy = now if loops else self.busy
                if now - self.busy >= RHYTHM.gap:
                    self.thread = None
                    return
            self._show(loops, now)
            del loops  # a loop that is given up is not kept alive here

    def _show(self, loops: list[Progress], now: float) -> None:
        if loops and now - self.drawn >= RHYTHM.drawing:
            self.drawn = now
            loops[-1].draw()
        if loops and now - self.since >= RHYTHM.line and not _terminal():
            self.since = now
            some = loops if len(loops) < 4 else [*loops[:2], loops[-1]]
            text = "; ".join(loop.in_words(number == 0) for number, loop in enumerate(some))
            with suppress(OSError, ValueError, AttributeError):  # nobody reads it
                some[0].stream.write(f"{text}\n")  # what it was at the beginning, whatever is redirected meanwhile
                some[0].stream.flush()


WATCH = Watch()


def _forget() -> None:
    """A process that is forked has none of the threads, and loops of its own."""
    global WATCH
    WATCH = Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
