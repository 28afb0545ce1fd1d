"""Run a table or figure from a YAML file of configs/ and write it; several processes may share the work.

python -m lcmat grid configs/table1_digits.yaml [--plan] [flags of main.py, which win over the file's]
"""

import sys
import time
from pathlib import Path

from lcmat import records
from lcmat.command_line import estimate, grids, options, planning
from lcmat.commands import _reports
from lcmat.commands._registry import REGISTRY
from lcmat.commands.tables import report
from lcmat.errors import UserError
from lcmat.hardware import PRECISIONS
from lcmat.runs import queue
from lcmat.runs.job import Job, record_path
from lcmat.training import DivergedError


def main(argv: list[str]) -> int:
    """Say what is to be done, do it, and write tables and figures."""
    options.warn_in_one_line()
    parser = options.build_parser("-m lcmat grid FILE")
    parser.description = "Run a grid of configs/ and write its tables and figures. Flags win over the file's."
    group = parser.add_argument_group("grids")
    group.add_argument("--plan", default=False, action="store_true", help="only say what is to be done")
    group.add_argument(
        "--time_limit", metavar="TIME", help="start no run that would probably not end within it: 9m, 2h"
    )
    group.add_argument("--report", default=False, action="store_true", help="only write tables and figures")
    if argv and argv[0] in ("-h", "--help"):
        parser.parse_args(["--help"])
    if not argv or argv[0].startswith("-"):
        raise UserError("name a file first: python -m lcmat grid configs/NAME.yaml [flags]")
    grid = grids.read_grid(Path(argv[0]), argv[1:], parser, list(_reports.KNOWN))
    for args in grid.lines:
        args.resume = True if args.resume is None else args.resume
    with planning.planned(grid.lines, REGISTRY) as jobs:
        return _run(grid, jobs)


def _run(grid: grids.Grid, planned: list[Job]) -> int:
    save_path = planned[0].setup.settings.save_path
    found = [records.read_records(save_path, protocol) for protocol in ("whole", "continual")]
    report([path for _, damaged in found for path in damaged])
    known = [record for some, _ in found for record in some]
    _announce(grid, planned, known)
    if grid.lines[0].plan:
        return 0
    limit = grid.lines[0].time_limit
    deadline = None if limit is None else estimate.Deadline(estimate.seconds_of(limit), planned, known)
    failed = {} if grid.lines[0].report else _work(planned, deadline)
    if limit is not None and not any(records.read_record(job.path) for job in planned):
        return 0
    paths = _reports.write(grid.name, grid.title, grid.reports, planned, save_path)
    print("\n" + "\n".join(str(path) for path in paths))
    queue.raise_if_any_diverged(planned, failed)
    return 0


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


def _work(planned: list[Job], deadline: estimate.Deadline | None) -> dict[int, DivergedError]:
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

    done, failed = queue.work(planned, tell, *(() if deadline is None else (deadline.allows,)))
    left = len(planned) - len(done) - len(failed)
    more = f"; {left} left for want of time, the same command goes on" if deadline is not None and left else ""
    print(f"{len(done)} of {len(planned)} runs recorded, {made} of them by this process{more}", file=sys.stderr)
    return failed
