"""Runs done one after the other, by any number of processes at once: each run by exactly one of them.

Whoever works on a run holds a lock of the operating system on a file in SAVE_PATH/.locks. It goes with its process,
however that ends, so that a dead process's runs are taken over by the others, from its checkpoints. On a file system
that machines share this needs one with locks (NFS 4 has them).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from lcmat import records
from lcmat.errors import UserError
from lcmat.runs import checkpoints
from lcmat.runs.job import Job
from lcmat.training import DivergedError

# Seconds between looks at what other processes work on.
PATIENCE = 2.0


def work(
    jobs: list[Job],
    tell: Callable[[int, Job, dict, bool], None],
    may_start: Callable[[Job], bool] = lambda job: True,
) -> tuple[list[dict], dict[int, DivergedError]]:
    """Do all jobs that are not recorded yet; return the records, in order, and by number what diverged.

    Runs that other processes work on are waited for. tell(number, job, record, known) is called when the record of job
    `number` (from 0) is there; `known`: it was not made here. A run that diverges is left out, with a line on stderr.
    may_start: asked before a job is begun or waited for; one that may not is left.
    """
    found: dict[int, dict] = {}
    failed: dict[int, DivergedError] = {}
    pending = dict(enumerate(jobs))
    waiting = False
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
            if not waiting:
                print(f"waiting for {len(pending)} runs that other processes work on", file=sys.stderr)
            waiting = True
            time.sleep(PATIENCE)
    return [found[number] for number in sorted(found)], failed


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
        record = job.kind.make(job.setup, job.run)
        _tidy(job)
        return record, False


def _tidy(job: Job) -> None:
    """Remove the checkpoints of a run that is recorded."""
    if checkpoints.are_left(job.setup):
        checkpoints.remove(job.setup, job.kind.checkpoints(job.setup, job.run).own)


def _recorded(job: Job) -> dict | None:
    return None if job.setup.settings.overwrite else records.read_record(job.path)


@contextmanager
def claimed(job: Job) -> Iterator[bool]:
    """Hold the claim on a run for a while; yield whether that could be had."""
    path = job.setup.settings.save_path / ".locks" / f"{job.key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Whoever opened the file before it is gone looks for the record first, and finds it.
        path.unlink(missing_ok=True)
        lock.release()


def in_words(record: dict, known: bool) -> str:
    """Return a line about a record: what was run, its accuracies, and the seconds of its stages unless known before."""
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in record["seconds"].items() if value)
    return (
        f"{record['selection']} fraction {record['fraction']:g} seed {record['seed']} "
        f"({record['subset_size']:,} images) {record['test_model']}: {record['test_accuracy']:.2f}% final, "
        f"{record['best_test_accuracy']:.2f}% best; " + ("already recorded" if known else seconds)
    )
