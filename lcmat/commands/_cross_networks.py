"""What cross_network_generalization.py does once it knows what its flags say."""

from __future__ import annotations

import argparse
from pathlib import Path

from lcmat import distributed
from lcmat.command_line import planning
from lcmat.commands import _reports
from lcmat.commands._main import say_plan
from lcmat.commands._registry import REGISTRY
from lcmat.errors import one_line
from lcmat.records import slug
from lcmat.reports.terminal import fitted
from lcmat.runs import Job, queue


def run(args: argparse.Namespace) -> int:
    """Train every network named on every subset, record, and print and write the table."""
    return distributed.as_one(lambda: _run_planned(args))


def _run_planned(args: argparse.Namespace) -> int:
    with planning.planned([args], REGISTRY) as jobs:
        return _run(args, jobs)


def _run(args: argparse.Namespace, jobs: list[Job]) -> int:
    """Do the runs, and write and print the table."""
    if args.plan:
        return say_plan("cross_network_generalization.py", jobs)
    print(planning.headline(jobs[0].setup), flush=True)

    def tell(number: int, _: Job, record: dict, known: bool) -> None:
        print(f"[{number + 1}/{len(jobs)}] {queue.in_words(record, known)}", flush=True)

    done, failed = queue.work(jobs, tell)
    if not done:
        queue.raise_if_any_diverged(jobs, failed)
    dataset, model = jobs[0].setup.dataset.title, jobs[0].setup.settings.model
    name = f"cross-{slug(dataset)}-{model}"
    title = f"Cross-architecture generalisation: {dataset}, selected with {args.subset or model}"
    if args.subset:
        name = f"{name}-{jobs[0].config['selection']}"
        title = one_line(f"Networks on the subset {Path(args.subset).name}: {dataset}")
    paths = _reports.write(name, title, {"cross": {}}, jobs, Path(args.save_path))
    print(f"\n{fitted(paths[0].read_text(), args.wide)}\nwritten to {', '.join(str(path) for path in paths)}")
    queue.raise_if_any_diverged(jobs, failed)
    return 0
