"""What main.py does once it knows what its flags say. Apart from it, so that `--help` need not import it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lcmat import distributed
from lcmat.command_line import planning, plans, request_of
from lcmat.commands._folders import report
from lcmat.commands._registry import REGISTRY
from lcmat.errors import UserError
from lcmat.reports import table_text, tables
from lcmat.reports.terminal import fitted
from lcmat.runs import Job, queue
from lcmat.runs.export import check_export, export
from lcmat.runs.selection import select_to_files
from lcmat.runs.sharded import select_from_shards
from lcmat.runs.signal_files import Selected, load_signals, select_from
from lcmat.selection import Subset
from lcmat.selection.plan import lacking
from lcmat.signals import Shards, Signals, open_shards


def run(args: argparse.Namespace) -> int:
    """Run the main job once for every method, fraction, seed and network that the command line names."""
    return distributed.as_one(lambda: _run_alone(args))


def _run_alone(args: argparse.Namespace) -> int:
    """The same, in the process that leads if there are several."""
    if args.signals:
        return _select_from_signals(args)
    with planning.planned([args], REGISTRY) as jobs:
        if args.export and not args.plan:
            planning.need_one_run(jobs, "--export")
            check_export(Path(args.export), jobs[0].setup.dataset, args.link)
        if args.plan:
            return say_plan("main.py", jobs)
        print(planning.headline(jobs[0].setup), flush=True)
        return _select_only(args, jobs) if args.select_only else _run(args, jobs)


def say_plan(title: str, jobs: list[Job]) -> int:
    """Print how much there is to do, and how long that may take."""
    known, damaged = plans.known_below(jobs[0].setup.settings.save_path)
    report(damaged)
    plans.announce(title, jobs, known)
    return 0


def _run(args: argparse.Namespace, jobs: list[Job]) -> int:
    """Do the runs, and write and print their tables."""
    done, failed = queue.work(jobs, lambda number, _, record, known: _tell(number, len(jobs), record, known))
    if not done:
        queue.raise_if_any_diverged(jobs, failed)
    save_path = jobs[0].setup.settings.save_path
    if jobs[0].kind.protocol == "continual":
        from lcmat.reports.continual import continual_markdown, write_continual  # it draws, which takes a second

        report(write_continual(save_path)[1])
        print(f"\n{fitted(continual_markdown(done), args.wide)}", end="")
    else:
        _, damaged = table_text.write_tables(save_path)
        report(damaged)
        print(f"\n{fitted(table_text.accuracy_markdown(tables.accuracy_tables(done)), args.wide)}", end="")
    if args.export:
        _export(args, jobs[0], _recorded_subset(jobs[0].path.with_suffix(".npz")))
    queue.raise_if_any_diverged(jobs, failed)
    return 0


def _recorded_subset(path: Path) -> Subset:
    try:
        return Subset.load(path)
    except UserError as error:
        raise UserError(f"{error}; give --overwrite to choose anew") from None


def _select_only(args: argparse.Namespace, jobs: list[Job]) -> int:
    """Select, and write the indices, without training on them."""
    for job in jobs:
        subset, text = select_to_files(job.setup, job.run)
        print(f"{job.run.method.name}, seed {job.run.seed}: {len(subset):,} images: {text}", flush=True)
        if args.export:
            _export(args, job, subset)
    return 0


def _export(args: argparse.Namespace, job: Job, subset: Subset) -> None:
    count = export(job.setup.dataset, subset, Path(args.export), args.link)
    how = "linked to" if args.link else "written"
    print(f"{count:,} images {how} in {args.export}/train, listed in chosen.txt beside it")


def _select_from_signals(args: argparse.Namespace) -> int:
    """Select from a file or folder of signals, without images, networks or training; write the indices."""
    if args.plan:
        raise UserError("--plan is for runs that train; --signals needs none: leave it out")
    path, request = Path(args.signals), request_of(args, REGISTRY)  # before the file is read, which may be large
    signals, settings = open_shards(path) if path.is_dir() else load_signals(path), request.settings
    if any(name.casefold() == "all" for name in args.selection):
        args.selection = _named(args.selection, signals)
        request = request_of(args, REGISTRY)
    with planning.machine([request]):
        for run in request.runs():
            asked = Selected.of(run, settings.balance, settings.quota)
            if isinstance(signals, Shards):
                subset, text = select_from_shards(signals, asked, settings.save_path, settings.overwrite)
            else:
                subset, text = select_from(path, signals, asked, settings.save_path)
            cost = "" if subset.cost is None else f", L = {subset.cost:.6g}"
            print(
                f"{run.method.name}, seed {run.seed}: {len(subset):,} of {len(signals):,} samples{cost}: {text}",
                flush=True,
            )
    return 0


def _named(selection: list[str], signals: Signals | Shards) -> list[str]:
    """Return the names of methods with "all" as those that the signals suffice for; say which are left out, and why."""
    missing = {name: lacking(REGISTRY.method(name), signals) for name in REGISTRY.methods}
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        if reason:
            print(f"note: all leaves out {', '.join(names)}: {reason}", file=sys.stderr)
    fit = [name for name, reason in missing.items() if not reason]
    named = [one for name in selection for one in (fit if name.casefold() == "all" else [name])]
    return list(dict.fromkeys(named))


def _tell(number: int, total: int, record: dict, known: bool) -> None:
    """Print what a run came to."""
    print(f"[{number + 1}/{total}] {queue.in_words(record, known)}", flush=True)
