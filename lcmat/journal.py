"""The course of a run in numbers: a line of JSON for each entry, always, and the same to TensorBoard where asked for.

Whoever does something long notes where it stands; whoever does a run says where that goes. No result depends on it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lcmat.errors import UserError

BOARDS = ("tensorboard",)


@dataclass(frozen=True, eq=False)
class Journal:
    """An open file of lines, and a TensorBoard writer or None."""

    file: IO[str]
    board: object | None


_kept: ContextVar[Journal | None] = ContextVar("journal", default=None)


def note(what: str, step: int, **values: float | None) -> None:
    """Note numbers at a step (an epoch, an iteration, a trial) of something that is under way; None: not known.

    Where nothing is kept, this does nothing; a full disk is no reason to lose a run.
    """
    journal = _kept.get()
    if journal is None:
        return
    known = {name: value for name, value in values.items() if value is not None}
    finite = {name: value if math.isfinite(value) else str(value) for name, value in known.items()}
    with suppress(OSError):
        journal.file.write(json.dumps({"time": round(time.time(), 3), "what": what, "step": step, **finite}) + "\n")
        journal.file.flush()
        if journal.board is not None:
            for name, value in known.items():
                journal.board.add_scalar(f"{what}/{name}", value, step)
            journal.board.flush()


def is_kept() -> bool:
    """Tell whether what is noted is kept: what costs something need not be found out otherwise."""
    return _kept.get() is not None


@contextmanager
def kept(path: Path, board: str | None, go_on: bool) -> Iterator[None]:
    """Keep what is noted meanwhile in a file, after what it has if `go_on`; board: of `BOARDS`, beside the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a" if go_on else "w", encoding="utf-8")
    except OSError:
        yield
        return
    writer = None if board is None else _writer(path.with_suffix(""))
    token = _kept.set(Journal(file, writer))
    try:
        yield
    finally:
        _kept.reset(token)
        with suppress(OSError):
            file.close()
        if writer is not None:
            writer.close()


def check_board(board: str | None) -> None:
    """Raise UserError unless what was asked for is installed."""
    if board is not None and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--log tensorboard needs that package: pip install -r requirements-log.txt, or leave it out")


def _writer(folder: Path) -> object:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))
