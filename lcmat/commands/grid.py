"""Run a table or figure from a YAML file of configs/ and write it; several processes may share the work.

--processes N: N of this machine, which share its cores, started and ended by this command.

python -m lcmat grid configs/table1_digits.yaml [--plan] [flags of main.py, which win over the file's]
"""

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lcmat import distributed, memory_limit, records
from lcmat.command_line import estimate, grids, options, planning, program
from lcmat.command_line.processes import Died, side_by_side
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.commands.tables import report
from lcmat.errors import UserError
from lcmat.hardware import PRECISIONS
from lcmat.runs import Job, queue
from lcmat.runs.job import record_path
from lcmat.runs.status import STATES, status_of
from lcmat.training import DivergedError

# Beyond, they would only wait for each other.
MOST_PROCESSES = 1_000


def main(argv: list[str]) -> int:
    """Say what is to be done, do it, and write tables and figures."""
    program.warn_in_one_line()
    grid = grid_of(argv)
    return distributed.as_one(lambda: _run_planned(grid, argv))


def _run_planned(grid: grids.Grid, argv: list[str]) -> int:
    with planning.planned(grid.lines, REGISTRY) as jobs:
        return _run(grid, jobs, argv)


def grid_of(argv: list[str]) -> grids.Grid:
    """Return the grid that a command line names."""
    parser = options.build_parser("-m lcmat grid FILE")
    parser.description = "Run a grid of configs/ and write its tables and figures. Flags win over the file's."
    group = parser.add_argument_group("grids")
    group.add_argument("--plan", default=False, action="store_true", help="only say what is to be done")
    group.add_argument(
        "--status",
        default=False,
        action="store_true",
        help="only say which are recorded, running, failed, waiting",
    )
    group.add_argument(
        "--time_limit", metavar="TIME", help="start no run that would probably not end within it: 9m, 2h"
    )
    group.add_argument("--report", default=False, action="store_true", help="only write tables and figures")
    group.add_argument(
        "--processes", type=int, default=1, metavar="N", help="processes that share the runs and the cores (default: 1)"
    )
    if argv and argv[0] in ("-h", "--help"):
        parser.parse_args(["--help"])
    if not argv or argv[0].startswith("-"):
        raise UserError("name a file first: python -m lcmat grid configs/NAME.yaml [flags]")
    grid = grids.read_grid(Path(argv[0]), argv[1:], parser, list(_reports.KNOWN))
    for args in grid.lines:
        args.resume = True if args.resume is None else args.resume
    if not 1 <= grid.lines[0].processes <= MOST_PROCESSES:
        raise UserError(f"--processes must be 1 to {MOST_PROCESSES:,}, not {grid.lines[0].processes}")
    if grid.lines[0].processes > 1 and grid.lines[0].overwrite:
        raise UserError("with --overwrite each of several processes would do every run; give no --processes")
    return grid


def _run(grid: grids.Grid, planned: list[Job], argv: list[str]) -> int:
    save_path = planned[0].setup.settings.save_path
    found = [records.read_records(save_path, protocol) for protocol in ("whole", "continual")]
    report([path for _, damaged in found for path in damaged])
    known = [record for some, _ in found for record in some]
    if grid.lines[0].status:
        _say_status(grid.title, planned)
        return 0
    _announce(grid, planned, known)
    if grid.lines[0].plan:
        return 0
    limit = grid.lines[0].time_limit
    deadline = None if limit is None else estimate.Deadline(estimate.seconds_of(limit), planned, known)
    failed = {} if grid.lines[0].report else _work(grid, planned, deadline, argv)
    if limit is not None and not any(records.read_record(job.path) for job in planned):
        return 0
    paths = _reports.write(grid.name, grid.title, grid.reports, planned, save_path)
    print("\n" + "\n".join(str(path) for path in paths))
    queue.raise_if_any_diverged(planned, failed)
    return 0


def _say_status(title: str, planned: list[Job]) -> None:
    """Print how many runs are in which state, and a line for each that runs or failed."""
    status = status_of(planned)
    counts = ", ".join(f"{status.count(state)} {state}" for state in STATES)
    print(f"{title}: {len(planned)} runs, {counts}")
    for number, note in status.notes.items():
        print(f"{status.states[number]}: {queue.in_brief(planned[number])}: {note}")


def _announce(grid: grids.Grid, planned: list[Job], known: list[dict]) -> None:
    """Print how much there is to do, and how long that may take."""
    left = [job for job in planned if records.read_record(job.path) is None]
    seconds, unknown = estimate.estimate(left, known)
    print(f"{grid.title}: {len(planned)} runs, {len(planned) - len(left)} recorded, {len(left)} to do")
    for setup in {id(job.setup.dataset): job.setup for job in planned}.values():
        print(planning.headline(setup))
    for precision, count in _recorded_otherwise(left).items():
        print(f"{count} of these {'is' if count == 1 else 'are'} recorded with --precision {precision}")
    if left:
        about = f"about {estimate.duration(seconds)} in one process, by the runs recorded" if seconds else ""
        if unknown:
            about += (
                f"{'; ' * bool(about)}{unknown} runs are of a kind that none is recorded of, so their time is unknown"
            )
        print(about, flush=True)


def _recorded_otherwise(left: list[Job]) -> dict[str, int]:
    """Return how many of the jobs have a record that differs in the precision alone, by that."""
    counts: dict[str, int] = {}
    for job in left:
        for name in PRECISIONS:
            other = record_path(job.setup, job.config | {"precision": name})
            if name != job.config["precision"] and records.read_record(other) is not None:
                counts[name] = counts.get(name, 0) + 1
    return counts


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
        ahead = f"; about {estimate.duration(left)} left" if seen < len(planned) else ""
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
    threads = max(1, torch.get_num_threads() // processes)
    for said in side_by_side(processes, share_of_work, argv, processes, threads):
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
            f"command goes on, perhaps with fewer --processes"
        )
    return failed


def share_of_work(say: Callable[[object], None], argv: list[str], processes: int, threads: int) -> None:
    """Do runs of a grid that no other process does, with a share of the cores and the memory, and say of each."""
    program.warn_in_one_line()
    grid = grid_of(argv)
    with planning.planned(grid.lines, REGISTRY) as jobs, memory_limit.shared_by(processes):
        torch.set_num_threads(threads)
        limit, allowed = grid.lines[0].time_limit, ()
        if limit is not None:
            known, _ = records.read_records(jobs[0].setup.settings.save_path)
            allowed = (estimate.Deadline(estimate.seconds_of(limit), jobs, known).allows,)

        def tell(number: int, _: Job, record: dict, known: bool) -> None:
            if not known:
                say(Recorded(number, record))

        _, failed = queue.work(jobs, tell, *allowed)
        for number, error in failed.items():
            say(Diverged(number, str(error)))


@dataclass(frozen=True)
class Recorded:
    """What a process says: it has made the record of a run, by the run's number."""

    number: int
    record: dict


@dataclass(frozen=True)
class Diverged:
    """What a process says: a run, by its number, diverged."""

    number: int
    why: str


def _in_words(code: int) -> str:
    return f"exit code {code}" if code > 0 else signal.Signals(-code).name
