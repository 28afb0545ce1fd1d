"""Work done by several processes of one command, which hears from all of them. None is left when it ends."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from lcmat.errors import UserError

# Seconds in which a process that is ended may tidy up.
PATIENCE = 5.0


@dataclass(frozen=True)
class Died:
    """A process that ended before its work: its number from 0, and its exit code (negative: the signal)."""

    process: int
    code: int


def side_by_side(count: int, function: Callable[..., None], *arguments: object) -> Iterator[object]:
    """Call function(say, *arguments) in so many fresh processes; yield whatever these say, as it comes.

    What they print comes as text, line by line; how one dies, as `Died`. A UserError ends all, and is raised here.
    function: of a module, as all that is given and said must go from process to process.
    """
    context = multiprocessing.get_context("spawn")  # after a fork, neither PyTorch's threads nor a GPU work
    running: dict[Connection, tuple[int, multiprocessing.process.BaseProcess]] = {}
    try:
        for number in range(count):
            ours, theirs = context.Pipe(duplex=False)  # one for each: a queue that all share hangs when one is killed
            process = context.Process(target=_run, args=(theirs, function, arguments), name=f"{number}")
            process.start()
            theirs.close()
            running[ours] = number, process
        while running:
            for pipe in wait(list(running)):
                try:
                    said = pipe.recv()
                except EOFError:
                    number, process = running.pop(pipe)
                    process.join()
                    if process.exitcode:
                        yield Died(number, process.exitcode)
                    continue
                if isinstance(said, UserError):
                    raise said
                yield said
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(PATIENCE)
            process.kill()
            process.join()


def _run(pipe: Connection, function: Callable[..., None], arguments: tuple) -> None:
    """Do one process's part: say what happens through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the command ends the others
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by this, so that they tidy up
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def say(what: object) -> None:
        with lock:
            pipe.send(what)

    sys.stdout = sys.stderr = _Lines(say)
    try:
        function(say, *arguments)
    except UserError as error:
        say(error)
    except Exception:
        say(traceback.format_exc())
        pipe.close()
        os._exit(1)


def _end_with_parent() -> None:
    """Do not go on when the command was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _Lines(io.TextIOBase):
    """Where a process prints: each line is said. It is no terminal, so that no progress bar is drawn."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.rest = say, ""

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.say(line)
        return len(text)
