"""How every program begins and ends: warnings and errors in one line, exit codes, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lcmat.errors import UserError, of_the_disk, one_line
from lcmat.waiting import give_way


def warn_in_one_line() -> None:
    """Print warnings on stderr, each text in one line and one time."""
    said = set()

    def show(message: Warning, *_: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            print(f"warning: {one_line(message)}", file=sys.stderr)

    warnings.showwarning = show


def run_command_line(main: object, argv: Sequence[str] | None = None) -> int:
    """Call main(argv) and return its exit code, with one line on stderr unless that is 0.

    2 for bad input, 3 for what the disk or the memory refuses, 130 after Ctrl-C, 141 where nobody reads the output.
    """
    program, asked = Path(sys.argv[0]).name, []
    try:
        with contextlib.suppress(AttributeError, ValueError):  # names of files need not be text, nor terminals in UTF-8
            sys.stdout.reconfigure(errors="backslashreplace")
        with _on_ctrl_c(lambda: asked.append(True) or signal.default_int_handler(signal.SIGINT, None)):
            code = main(list(sys.argv[1:] if argv is None else argv)) or 0
            sys.stdout.flush()  # here, where it can be said that it fails
        return code
    except UserError as error:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(_interrupted(), file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if (trouble := of_the_disk(error)) is None:
            raise
        print(f"{program}: error: {one_line(trouble)}", file=sys.stderr)
        if error.filename is None:
            _discard_output()
        return 3
    except Exception as error:
        if re.search("allocate memory|out of memory|not enough memory", str(error)) or isinstance(error, MemoryError):
            print(
                f"{program}: error: the memory does not suffice for what was asked for; ask for less", file=sys.stderr
            )
            return 3
        if not asked:
            raise
        print(_interrupted(), file=sys.stderr)  # a library that is interrupted may make something else of it
        return 130


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While what a command needs is imported, which takes seconds, let Ctrl-C end the process at once.

    Nothing has begun, and libraries that are interrupted in the middle of this fail in ways of their own.
    """

    def stop() -> None:
        os.write(2, f"{_interrupted()}\n".encode())
        os._exit(130)

    give_way()  # before PyTorch is loaded
    with _on_ctrl_c(stop):
        yield


@contextlib.contextmanager
def _on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Do something on Ctrl-C for a while, unless that is ignored, as in the background."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted() -> str:
    return f"{Path(sys.argv[0]).name}: interrupted; the same command goes on with --resume"


def _discard_output() -> None:
    """Let nothing be written any more to where it cannot be: Python tries that again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
