"""Runs done one after the other, by any number of processes at once: each run by exactly one of them.

Whoever works on a run holds a lock of the operating system on a file in SAVE_PATH/.locks. It goes with its process,
however that ends, so that a dead process's runs are taken over by the others, from its checkpoints. On a file system
that machines share this needs one with locks (NFS 4 has them).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lcmat import journal, locks, records
from lcmat.alive import Progress
from lcmat.errors import UserError
from lcmat.files import clear_unfinished
from lcmat.runs import checkpoints
from lcmat.runs.job import Job
from lcmat.runs.status import claim_of, noted
from lcmat.training import DivergedError

# Seconds between looks at what other processes work on.
PATIENCE = 2.0


def work(
    jobs: list[Job],
    tell: Callable[[int, Job, dict, bool], None],
    may_start: Callable[[Job], bool] = lambda job: True,
    leaves: bool = False,
) -> tuple[list[dict], dict[int, DivergedError]]:
    """Do all jobs that are not recorded yet; return the records, in order, and by number what diverged.

    Runs that other processes work on are waited for. tell(number, job, record, known) is called when the record of job
    `number` (from 0) is there; `known`: it was not made here. A run that diverges is left out, with a line on stderr.
    may_start: asked before a job is begun or waited for; one that may not is left. leaves: runs that other processes
    work on are not waited for, but what these make for other runs is.
    """
    for save_path, cache_path in {(j.setup.settings.save_path, j.setup.settings.cache_path) for j in jobs}:
        clear_left_behind(save_path, cache_path)
    found: dict[int, dict] = {}
    failed: dict[int, DivergedError] = {}
    pending = dict(enumerate(jobs))
    waiting = Waiting()
    while pending:
        before = len(pending)
        for number, job in list(pending.items()):
            if _recorded(job) is None and not may_start(job):
                del pending[number]
                continue
            try:
                record, known = record_of(job)
            except DivergedError as error:
                failed[number] = error
                del pending[number]
                if len(jobs) > 1:
                    print(f"no record of {in_brief(job)}: {error}", file=sys.stderr)
                continue
            if record is not None:
                found[number] = record
                del pending[number]
                tell(number, job, record, known)
        if len(pending) == before:
            # Seen twice: whoever only looks whether a lock is held holds it for a moment.
            if leaves and waiting.since is not None and all(locks.is_held(claim_of(job)) for job in pending.values()):
                break
            waiting.go_on(list(pending.values()))
        else:
            waiting.since = None
    return [found[number] for number in sorted(found)], failed


class Waiting:
    """Waiting for runs that other processes work on: said once, and after a minute with the locks' files."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.said: set[str] = set()

    def go_on(self, jobs: list[Job]) -> None:
        """Wait for a while."""
        self.since = time.monotonic() if self.since is None else self.since
        self._say("", f"waiting for {len(jobs)} runs that other processes work on")
        if time.monotonic() - self.since >= locks.SAID_AFTER:
            paths = dict.fromkeys(str(path) for path in map(lock_in_the_way, jobs) if path is not None)
            for path in paths:
                self._say(path, f"still waiting for another process, which holds {path}; {locks.HANGS}")
        with Progress(desc=f"waiting for {len(jobs)} runs that other processes work on"):
            time.sleep(PATIENCE)

    def _say(self, about: str, text: str) -> None:
        if about not in self.said:
            print(text, file=sys.stderr)
        self.said.add(about)


def lock_in_the_way(job: Job) -> Path | None:
    """Return the lock that another process holds on a run or on what it needs, or None."""
    claim = claim_of(job)
    return job.kind.busy(job.setup, job.run) or (claim if locks.is_held(claim) else None)


def clear_left_behind(save_path: Path, cache_path: Path) -> None:
    """Remove what killed processes leave and no process needs: unfinished files, and the files of locks."""
    kept = [save_path, *(folder for depth in ("*/", "*/*/", "*/*/*/") for folder in save_path.glob(depth))]
    for folder in (*kept, *cache_path.glob("*/")):
        clear_unfinished(folder)
    for folder in (save_path / ".locks", *cache_path.glob("*/")):
        locks.clear(folder)
    for note in (save_path / ".locks").glob("*.running"):
        if not locks.is_held(note.with_suffix(".lock")):
            note.unlink(missing_ok=True)


def raise_if_any_diverged(jobs: list[Job], failed: dict[int, DivergedError]) -> None:
    """Raise UserError if any of the jobs diverged: what is written without them is not all that was asked for."""
    if failed:
        number, error = next(iter(failed.items()))
        if len(jobs) == 1:
            raise error
        others = f" and {len(failed) - 1} more of {len(jobs)} runs" if len(failed) > 1 else ""
        raise UserError(f"{in_brief(jobs[number])}{others} diverged and have no record; the first: {error}")


def in_brief(job: Job) -> str:
    """Return which run a job is, in words."""
    return f"{job.config['selection']} fraction {job.config['fraction']:g} seed {job.run.seed}"


def record_of(job: Job) -> tuple[dict | None, bool]:
    """Return the job's record, and whether it was there already; do the job, unless another process works on it."""
    record = _recorded(job)
    if record is not None:
        _tidy(job)  # its process may have died before it could
        return record, True
    if job.kind.busy(job.setup, job.run):
        return None, False
    with claimed(job) as mine:
        if not mine:
            return None, False
        record = _recorded(job)  # another may just have finished it
        if record is not None:
            return record, True
        with noted(job), journal.kept(journal_of(job), job.setup.settings.log, job.setup.settings.resume):
            record = job.kind.make(job.setup, job.run)
        _tidy(job)
        return record, False


def journal_of(job: Job) -> Path:
    """Return the file that a run's numbers are kept in, by dataset, network, method, size, seed and hash."""
    path = job.path
    return job.setup.settings.cache_path / "log" / path.parent.parent.name / path.parent.name / f"{path.stem}.jsonl"


def _tidy(job: Job) -> None:
    """Remove the checkpoints of a run that is recorded."""
    if checkpoints.are_left(job.setup):
        checkpoints.remove(job.setup, job.kind.checkpoints(job.setup, job.run).own)


def _recorded(job: Job) -> dict | None:
    return None if job.setup.settings.overwrite else records.read_record(job.path)


def claimed(job: Job) -> AbstractContextManager[bool]:
    """Return a context that holds the claim on a run, and says whether that could be had."""
    return locks.claimed(claim_of(job))


def in_words(record: dict, known: bool) -> str:
    """Return a line about a record: what was run, its accuracies, and the seconds of its stages unless known before."""
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in record["seconds"].items() if value)
    return (
        f"{record['selection']} fraction {record['fraction']:g} seed {record['seed']} "
        f"({record['subset_size']:,} images) {record['test_model']}: {record['test_accuracy']:.2f}% final, "
        f"{record['best_test_accuracy']:.2f}% best; " + ("already recorded" if known else seconds)
    )
