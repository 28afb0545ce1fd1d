"""Run a table or figure from a YAML file of configs/ and write it; several processes may share the work.

--processes N, or --launcher local --workers N: N of this machine, which share its cores, started and ended by this
command. --launcher slurm --workers N --slurm KEY=VALUE,…: an array of Slurm, which this command only submits.

python -m lcmat grid configs/table1_digits.yaml [--plan] [flags of main.py, which win over the file's]
"""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lcmat import distributed, records
from lcmat.alive import duration
from lcmat.command_line import cluster, estimate, grids, planning, plans, program
from lcmat.command_line.processes import Died, side_by_side
from lcmat.commands import _reports
from lcmat.commands._folders import report
from lcmat.commands._registry import REGISTRY
from lcmat.commands._workers import Diverged, Recorded, Share, Worker, deadline_of, grid_of, share_of_work
from lcmat.errors import UserError
from lcmat.runs import Job, queue
from lcmat.runs.status import STATES, status_of
from lcmat.training import DivergedError


def main(argv: list[str]) -> int:
    """Say what is to be done, do it, and write tables and figures."""
    program.warn_in_one_line()
    grid = grid_of(argv)
    return distributed.as_one(lambda: _run_planned(grid, argv))


def _run_planned(grid: grids.Grid, argv: list[str]) -> int:
    with planning.planned(grid.lines, REGISTRY) as jobs:
        return _run(grid, jobs, argv)


def _run(grid: grids.Grid, planned: list[Job], argv: list[str]) -> int:
    save_path = planned[0].setup.settings.save_path
    known, damaged = plans.known_below(save_path)
    report(damaged)
    first = grid.lines[0]
    if first.status:
        _say_status(grid, planned)
        return 0
    left = plans.announce(grid.title, planned, known, plans.Beside(grid.takes, first.processes))
    if left and first.launcher == "slurm" and not first.report:
        _submit(grid, save_path, min(first.processes, left), argv)
        return 0
    if first.plan:
        return 0
    deadline = deadline_of(grid, planned)
    failed = {} if first.report else _work(grid, planned, deadline, argv)
    if deadline is not None and not any(records.read_record(job.path) for job in planned):
        return 0
    paths = _reports.write(grid.name, grid.title, grid.reports, planned, save_path)
    print("\n" + "\n".join(str(path) for path in paths))
    queue.raise_if_any_diverged(planned, failed)
    return 0


def _say_status(grid: grids.Grid, planned: list[Job]) -> None:
    """Print how many runs and workers are in which state, and a line for each run that runs, and each that failed."""
    status = status_of(planned)
    counts = ", ".join(f"{status.count(state)} {state}" for state in STATES)
    print(f"{grid.title}: {len(planned)} runs, {counts}")
    for number, note in status.notes.items():
        print(f"{status.states[number]}: {queue.in_brief(planned[number])}: {note}")
    running, failed = cluster.failed_workers(_workers_folder(grid, planned[0].setup.settings.save_path))
    if running or failed:
        print(f"workers: {running} running, {len(failed)} failed")
    for path, why in failed.items():
        print(f"failed: worker {path.stem}: {why}")


def _workers_folder(grid: grids.Grid, save_path: Path) -> Path:
    return save_path / ".workers" / grid.name


def _submit(grid: grids.Grid, save_path: Path, count: int, argv: list[str]) -> None:
    """Submit the workers of an array, or with --plan say what that would be."""
    folder, parameters = _workers_folder(grid, save_path), cluster.parameters_of(grid.lines[0].slurm)
    what = f"{count} worker{'s' * (count > 1)}, each with {cluster.in_words(parameters)}; logs in {folder}"
    if grid.lines[0].plan:
        print(f"would submit {what}")
        return
    if any(line.precision == "auto" for line in grid.lines):
        print(
            "note: without --precision each worker takes its node's own; runs of another count apart",
            file=sys.stderr,
        )
    ids = cluster.submit(Worker.now(argv), count, folder, parameters)
    print(f"submitted {what}: {' … '.join(ids if len(ids) < 3 else (ids[0], ids[-1]))}")
    print("--status says where they are; after they have ended, --report writes tables and figures")


def _work(
    grid: grids.Grid, planned: list[Job], deadline: estimate.Deadline | None, argv: list[str]
) -> dict[int, DivergedError]:
    """Do the runs, with a line for each and the time that is left; return what diverged."""
    started, made, seen = time.monotonic(), 0, 0

    def tell(_: int, __: Job, record: dict, known: bool) -> None:
        nonlocal made, seen
        seen += 1
        if known:
            return
        made += 1
        if deadline is not None:
            deadline.learn(record)
        left = (len(planned) - seen) * (time.monotonic() - started) / made
        ahead = f"; about {duration(left)} left" if seen < len(planned) else ""
        print(f"[{seen}/{len(planned)}] {queue.in_words(record, known)}{ahead}", flush=True)

    processes = min(grid.lines[0].processes, sum(records.read_record(job.path) is None for job in planned))
    if processes > 1:
        failed = _work_side_by_side(processes, planned, argv, tell)
        done = sum(records.read_record(job.path) is not None for job in planned)
    else:
        found, failed = queue.work(planned, tell, *(() if deadline is None else (deadline.allows,)))
        done = len(found)
    left = len(planned) - done - len(failed)
    more = f"; {left} left for want of time, the same command goes on" if deadline is not None and left else ""
    by = "this process" if processes <= 1 else f"{processes} processes"
    print(f"{done} of {len(planned)} runs recorded, {made} of them by {by}{more}", file=sys.stderr)
    return failed


def _work_side_by_side(processes: int, planned: list[Job], argv: list[str], tell: Callable) -> dict[int, DivergedError]:
    """Let several processes do the runs, and tell of each when its record is there; return what diverged."""
    for number, job in enumerate(planned):
        if (record := records.read_record(job.path)) is not None:
            tell(number, job, record, True)
    failed, died, printed = {}, [], set()
    share = Share(time.time(), processes, max(1, torch.get_num_threads() // processes))
    for said in side_by_side(processes, share_of_work, argv, share):
        if isinstance(said, Recorded):
            tell(said.number, planned[said.number], said.record, False)
        elif isinstance(said, Diverged):
            failed[said.number] = DivergedError(said.why)
        elif isinstance(said, Died):
            died.append(said)
            print(f"process {said.process + 1} of {processes} died ({_in_words(said.code)})", file=sys.stderr)
        elif said not in printed:  # what all say, once
            printed.add(said)
            print(said, file=sys.stderr)
    left = sum(records.read_record(job.path) is None for job in planned) - len(failed)
    if died and left:
        raise UserError(
            f"{len(died)} of {processes} processes died, and {left} of {len(planned)} runs have no record; the same "
            f"command goes on, perhaps with fewer of them"
        )
    return failed


def _in_words(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
