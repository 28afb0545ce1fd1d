"""Workers of a grid, which pull its runs under their locks: processes of one command, or tasks of an array of Slurm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from lcmat import memory_limit, records
from lcmat.command_line import Parser, cluster, estimate, grids, options, planning, program
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.errors import UserError, lookup
from lcmat.runs import Job, queue
from lcmat.runs.status import failed_since

# Beyond, they would only wait for each other.
MOST_WORKERS = 1_000
LAUNCHERS = ("local", "slurm")


def grid_of(argv: list[str]) -> grids.Grid:
    """Return the grid that a command line names; its first line's `launcher` and `processes` say who does the runs."""
    if argv and argv[0] in ("-h", "--help"):
        _parser().parse_args(["--help"])
    if not argv or argv[0].startswith("-"):
        raise UserError("name a file first: python -m lcmat grid configs/NAME.yaml [flags]")
    workers, words = _workers_of(argv[1:])
    grid = grids.read_grid(Path(argv[0]), words, _parser(), list(_reports.KNOWN))
    for args in grid.lines:
        args.resume = True if args.resume is None else args.resume
    first = grid.lines[0]
    if first.launcher is None:
        flag, first.launcher = "--processes", "local"
    else:
        flag, first.launcher = "--workers", lookup("launcher", first.launcher, LAUNCHERS)
        if workers is None or first.processes != 1:
            raise UserError("beside --launcher give --workers N, how many share the runs, and no --processes")
        first.processes = workers
    if not 1 <= first.processes <= MOST_WORKERS:
        raise UserError(f"{flag} must be 1 to {MOST_WORKERS:,}, not {first.processes}")
    if (first.processes > 1 or first.launcher == "slurm") and first.overwrite:
        raise UserError(f"with --overwrite each of several processes would do every run; give no {flag}")
    if first.launcher == "slurm":
        cluster.parameters_of(first.slurm)
    elif first.slurm is not None:
        raise UserError("--slurm is for --launcher slurm")
    return grid


def _parser() -> Parser:
    parser = options.build_parser("-m lcmat grid FILE")
    parser.description = "Run a grid of configs/ and write its tables and figures. Flags win over the file's."
    add = parser.add_argument_group("grids").add_argument
    add("--status", default=False, action="store_true", help="only say which are recorded, running, failed, waiting")
    add("--time_limit", metavar="TIME", help="start no run that would probably not end within it: 9m, 2h")
    add("--report", default=False, action="store_true", help="only write tables and figures")
    add("--launcher", metavar="NAME", help="slurm: an array of --workers N that share the runs; local: processes")
    add("--slurm", metavar="KEY=VALUE,…", help="of each of Slurm's workers: partition=gpu,gres=gpu:1,time=02:00:00")
    add("--processes", type=int, default=1, metavar="N", help="as --launcher local --workers N (default: 1)")
    return parser


def _workers_of(words: list[str]) -> tuple[int | None, list[str]]:
    """Return how many workers a launcher is to start, and the other words.

    Without a launcher, --workers are those that read images; with one, how many of these there are is for the file.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--launcher")
    if parser.parse_known_args(words)[0].launcher is None:
        return None, words
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workers", "-j", type=int)
    found, rest = parser.parse_known_args(words)
    return found.workers, rest


@dataclass(frozen=True)
class Recorded:
    """What a worker says: it has made the record of a run, by the run's number."""

    number: int
    record: dict


@dataclass(frozen=True)
class Diverged:
    """What a worker says: a run, by its number, diverged."""

    number: int
    why: str


@dataclass(frozen=True)
class Share:
    """What is a worker's: so many processes share the machine, of which it computes with so many threads.

    begun: since when, in seconds since 1970, runs that failed are left alone. leaves: it does not wait for runs that
    other workers are at.
    """

    begun: float
    processes: int = 1
    threads: int | None = None
    leaves: bool = False


def share_of_work(say: Callable[[object], None], argv: list[str], share: Share) -> tuple[int, int]:
    """Do runs of a grid that no other worker does, and say of each; return how many are recorded then, and not."""
    program.warn_in_one_line()
    grid = grid_of(argv)
    with planning.planned(grid.lines, REGISTRY) as jobs, memory_limit.shared_by(share.processes):
        torch.set_num_threads(min(share.threads or torch.get_num_threads(), torch.get_num_threads()))
        deadline = deadline_of(grid, jobs)

        def may_start(job: Job) -> bool:
            return not failed_since(job, share.begun) and (deadline is None or deadline.allows(job))

        def tell(number: int, _: Job, record: dict, known: bool) -> None:
            if deadline is not None and not known:
                deadline.learn(record)
            if not known:
                say(Recorded(number, record))

        found, failed = queue.work(jobs, tell, may_start, share.leaves)
        for number, error in failed.items():
            say(Diverged(number, str(error)))
        return len(found), len(jobs) - len(found)


def deadline_of(grid: grids.Grid, jobs: list[Job]) -> estimate.Deadline | None:
    """Return the time limit of a grid's work, which begins now, or None."""
    limit = grid.lines[0].time_limit
    if limit is None:
        return None
    save_path = jobs[0].setup.settings.save_path
    known = [record for protocol in ("whole", "continual") for record in records.read_records(save_path, protocol)[0]]
    return estimate.Deadline(estimate.seconds_of(limit), jobs, known)


@dataclass(frozen=True)
class Worker:
    """One of the identical workers of an array, as submitit calls it: the words of the grid, and when it was submitted.

    Where it was interrupted, it is called anew, and runs go on from their checkpoints.
    """

    argv: tuple[str, ...]
    submitted: float

    @classmethod
    def now(cls, argv: list[str]) -> Worker:
        """Return the worker of a submission that is made now."""
        return cls(tuple(argv), time.time())

    def __call__(self) -> None:
        """Do runs until none is left that nobody is at."""
        threads = int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) or None
        with cluster.at_work():
            done, left = share_of_work(_print, list(self.argv), Share(self.submitted, threads=threads, leaves=True))
        print(f"{done} of {done + left} runs recorded; {left} others are at, failed, or would not end in time")

    def checkpoint(self) -> object:
        """Return, for submitit, what is to be done when this is queued again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _print(said: object) -> None:
    """Print what a worker says, into its log."""
    print(queue.in_words(said.record, False) if isinstance(said, Recorded) else f"diverged: {said.why}", flush=True)
