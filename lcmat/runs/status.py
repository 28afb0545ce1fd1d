"""Where the runs of a grid stand: recorded, running (where, since when), failed (why), waiting.

Beside the lock on a run, in SAVE_PATH/.locks, whoever works on it says so in a note; the note of a process that died
counts for nothing, since the lock went with it. A run that diverged leaves a note that says why, until it is recorded.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lcmat import locks, records
from lcmat.files import write_text
from lcmat.runs.job import Job

STATES = ("recorded", "running", "failed", "waiting")


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


@contextmanager
def noted(job: Job) -> Iterator[None]:
    """Say in a note, for as long as this process works on a run, that it does; and if it fails, why."""
    running, failed = claim_of(job).with_suffix(".running"), claim_of(job).with_suffix(".failed")
    _write(running, {"host": platform.node(), "process": os.getpid(), "since": time.time()})
    try:
        yield
    except Exception as error:
        _write(failed, {"host": platform.node(), "why": " ".join(str(error).split())[:300], "since": time.time()})
        raise
    else:
        failed.unlink(missing_ok=True)
    finally:
        running.unlink(missing_ok=True)


def status_of(jobs: list[Job]) -> Status:
    """Return where each of the jobs stands now; nothing is waited for or changed."""
    states, notes = [], {}
    for number, job in enumerate(jobs):
        claim = claim_of(job)
        if records.read_record(job.path) is not None:
            states.append("recorded")
        elif locks.is_held(claim):
            states.append("running")
            notes[number] = _in_words(_read(claim.with_suffix(".running")))
        elif (note := _read(claim.with_suffix(".failed"))) is not None:
            states.append("failed")
            notes[number] = str(note.get("why"))
        else:
            states.append("waiting")
    return Status(states, notes)


def _write(path: Path, note: dict[str, object]) -> None:
    with suppress(OSError):  # a note is no reason to lose a run
        write_text(path, json.dumps(note) + "\n")


def _read(path: Path) -> dict | None:
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
