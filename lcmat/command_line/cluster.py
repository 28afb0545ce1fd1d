"""Workers of a grid on a cluster: submitted by submitit, which writes batch scripts, logs and requeues; how they stand.

submitit is optional (requirements-cluster.txt) and imported when it is needed. What it writes lies in a folder of the
grid, SAVE_PATH/.workers/GRID. There each worker also holds a lock for as long as it runs, with a note, as whoever works
on a run does: a note without its lock is of a worker that was killed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from lcmat import locks
from lcmat.errors import UserError, one_line, shown
from lcmat.runs.status import last_line, logged_in, note_of, noted_at

# How often a worker that ran out of time is begun again: each time it goes on, so that only one that hangs gets there.
REQUEUES = 100
# What the launcher says itself, and how a user says it.
OURS = {
    "array": "--workers says how many there are",
    **dict.fromkeys(("nodes", "ntasks", "ntasks_per_node"), "a worker is one task; --workers says how many there are"),
    **dict.fromkeys(("output", "error", "open_mode"), "logs are written beside the records"),
    **dict.fromkeys(("signal", "wrap", "no_requeue"), "a worker that is interrupted is queued again"),
}
# Slurm's own forms of a time: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S.
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


def parameters_of(text: str | None) -> dict[str, str]:
    """Return what `--slurm key=value,key=value` says: options of sbatch by name. Commas in brackets are a value's own.

    Raises UserError for what is no such text, for what the launcher says itself, and where there is no time.
    """
    found: dict[str, str] = {}
    for part in re.split(r",(?![^\[]*\])", text or ""):
        key, equals, value = part.strip().partition("=")
        key = key.removeprefix("--").replace("-", "_")
        if not (equals and value and value.isprintable() and re.fullmatch(r"[a-z][a-z0-9_]*", key)):
            raise UserError(f"--slurm looks like partition=gpu,gres=gpu:1,time=02:00:00; {shown(part)} is no key=value")
        if key in OURS:
            raise UserError(f"--slurm takes no {key}: {OURS[key]}")
        if key in found:
            raise UserError(f"--slurm says {key} twice")
        found[key] = value
    if "time" not in found:
        raise UserError("--slurm says how long a worker may run before it is queued again, such as time=02:00:00")
    minutes_of(found["time"])
    return found


def minutes_of(time: str) -> int:
    """Return the minutes, rounded up, of a time as Slurm writes it, such as 90, 02:00:00 or 1-12."""
    parts = TIME.fullmatch(time)
    if parts is not None:
        days, *numbers = (int(parts[name] or 0) for name in ("days", "first", "second", "third"))
        hours = parts["days"] is not None or parts["third"] is not None
        seconds = sum(n * unit for n, unit in zip(numbers, (3600, 60, 1) if hours else (60, 1, 0), strict=True))
        if 0 < (total := 86400 * days + seconds) <= 366 * 86400:
            return -(-total // 60)
    raise UserError(f"--slurm: a time looks like 90 (minutes), 02:00:00 or 1-12:00:00, not {shown(time)}")


def in_words(parameters: dict[str, str]) -> str:
    """Return parameters as sbatch takes them."""
    return " ".join(f"--{name.replace('_', '-')}={value}" for name, value in parameters.items())


def submit(
    worker: Callable[[], None], count: int, folder: Path, parameters: dict[str, str], cluster: str = "slurm"
) -> list[str]:
    """Submit so many workers as one array; return their ids. What earlier ones failed of is forgotten.

    worker: called in each, and by its method `checkpoint` asked what is to be called when it is queued again. folder:
    where submitit and the workers write. cluster: "slurm", or what else submitit knows. Raises UserError where submitit
    or Slurm is missing, and for what Slurm refuses.
    """
    submitit = _submitit()
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise UserError("there is no sbatch here: submit where Slurm is, or give --launcher local")
    for path in failed_workers(folder)[1]:
        for ending in (".running", ".failed"):
            path.with_suffix(ending).unlink(missing_ok=True)
    rest = {name: value for name, value in parameters.items() if name != "time"}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(
            name=f"lcmat-{folder.name}",
            timeout_min=minutes_of(parameters["time"]),
            slurm_array_parallelism=count,
            slurm_additional_parameters={"requeue": True, **rest},
            # Since version 22.05 of Slurm srun does not take this over from sbatch.
            slurm_srun_args=[f"--cpus-per-task={rest['cpus_per_task']}"] if "cpus_per_task" in rest else [],
        )
        with executor.batch():
            jobs = [executor.submit(worker) for _ in range(count)]
    except RuntimeError as error:  # so submitit passes on what sbatch says
        raise UserError(f"Slurm refuses the workers: {one_line(error)}") from None
    return [job.job_id for job in jobs]


@contextmanager
def at_work() -> Iterator[None]:
    """Say, for as long as this worker runs, that it does; and if it fails, why."""
    paths = _submitit().JobEnvironment().paths
    claim = paths.folder / f"{paths.job_id}.lock"
    with logged_in(paths.stderr), locks.claimed(claim), noted_at(claim):
        yield


def failed_workers(folder: Path) -> tuple[int, dict[Path, str]]:
    """Return how many of a grid's workers run; and of those that failed since the last submission, the log's last line.

    The latter by the path of their locks, which their ids name.
    """
    running, failed = 0, {}
    notes = (note for note in folder.glob("*") if note.suffix in (".running", ".failed"))
    for path in sorted({note.with_suffix(".lock") for note in notes}):
        if locks.is_held(path):
            running += 1
        elif (note := note_of(path.with_suffix(".failed")) or note_of(path.with_suffix(".running"))) is not None:
            failed[path] = last_line(note)
    return running, failed


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--launcher slurm needs submitit: pip install -r requirements-cluster.txt -c constraints.txt"
        ) from None
    return submitit
