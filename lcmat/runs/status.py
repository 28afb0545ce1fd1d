"""Where the runs of a grid stand: recorded, running (where, since when), failed (why), waiting.

Beside the lock on a run, in SAVE_PATH/.locks, whoever works on it says so in a note; the note of a process that died
counts for nothing, since the lock went with it, unless it names a log, whose last line says why. A run that diverged
leaves a note that says why, until it is recorded.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from lcmat import locks, records
from lcmat.errors import one_line
from lcmat.files import write_text
from lcmat.runs.job import Job

STATES = ("recorded", "running", "failed", "waiting")
_log: ContextVar[str | None] = ContextVar("log", default=None)


@dataclass(frozen=True)
class Status:
    """The runs in each state, by number, and a note on those that run or failed."""

    states: list[str]
    notes: dict[int, str] = field(default_factory=dict)

    def count(self, state: str) -> int:
        """Return how many runs are in a state."""
        return self.states.count(state)


def claim_of(job: Job) -> Path:
    """Return the file whose lock whoever works on a run holds."""
    return job.setup.settings.save_path / ".locks" / f"{job.key}.lock"


def noted(job: Job) -> AbstractContextManager[None]:
    """Say in a note, for as long as this process works on a run, that it does; and if it fails, why."""
    return noted_at(claim_of(job))


@contextmanager
def noted_at(claim: Path) -> Iterator[None]:
    """Say it beside the lock that whoever works holds, and which log this process writes, if any."""
    running, failed = claim.with_suffix(".running"), claim.with_suffix(".failed")
    about = {"host": platform.node(), "process": os.getpid()}
    about |= {} if _log.get() is None else {"log": _log.get()}
    _write(running, {**about, "since": time.time()})
    try:
        yield
    except Exception as error:
        _write(failed, {**about, "why": " ".join(str(error).split())[:300], "since": time.time()})
        raise
    else:
        failed.unlink(missing_ok=True)
    finally:
        running.unlink(missing_ok=True)


@contextmanager
def logged_in(path: Path) -> Iterator[None]:
    """Let the notes that are written meanwhile say which file what this process prints goes to."""
    token = _log.set(str(path))
    try:
        yield
    finally:
        _log.reset(token)


def last_line(note: dict) -> str:
    """Return the last line of the log that a note names, of its last ten one that tells of an error; and where."""
    log = Path(str(note.get("log")))
    with suppress(OSError):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()][-10:]
        said = next((line for line in reversed(lines) if "error" in line.lower()), (lines or ["it said nothing"])[-1])
        return f"{one_line(said)} ({log})"
    return f"it left no log ({log})"


def failed_since(job: Job, seconds: float) -> bool:
    """Tell whether a run failed after a time, in seconds since 1970, by the clock of whoever worked on it."""
    since = (note_of(claim_of(job).with_suffix(".failed")) or {}).get("since")
    return isinstance(since, int | float) and since >= seconds


def status_of(jobs: list[Job]) -> Status:
    """Return where each of the jobs stands now; nothing is waited for or changed."""
    states, notes = [], {}
    for number, job in enumerate(jobs):
        claim = claim_of(job)
        if records.read_record(job.path) is not None:
            states.append("recorded")
        elif locks.is_held(claim):
            states.append("running")
            notes[number] = _in_words(note_of(claim.with_suffix(".running")))
        elif (note := note_of(claim.with_suffix(".failed"))) is not None:
            states.append("failed")
            notes[number] = str(note.get("why"))
        elif "log" in (note := note_of(claim.with_suffix(".running")) or {}):
            states.append("failed")
            notes[number] = f"its worker was killed: {last_line(note)}"
        else:
            states.append("waiting")
    return Status(states, notes)


def _write(path: Path, note: dict[str, object]) -> None:
    with suppress(OSError):  # a note is no reason to lose a run
        write_text(path, json.dumps(note) + "\n")


def note_of(path: Path) -> dict | None:
    """Return what a note says, or None where there is none."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _in_words(note: dict | None) -> str:
    if note is None or not isinstance(note.get("since"), int | float):
        return "by a process that left no note"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note["since"]))
    return f"on {note.get('host')}, process {note.get('process')}, since {since}"
