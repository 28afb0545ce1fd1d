"""What --plan says: how many runs there are, how many are recorded, and how long the others are likely to take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lcmat import records
from lcmat.alive import duration
from lcmat.command_line import estimate, planning
from lcmat.files import PROJECT
from lcmat.hardware import PRECISIONS
from lcmat.runs import Job
from lcmat.runs.job import record_path


@dataclass(frozen=True)
class Beside:
    """What a grid says beside its runs. takes: how long it took; workers: how many are to share the runs."""

    takes: str = ""
    workers: int = 1


def announce(title: str, planned: list[Job], known: list[dict], beside: Beside | None = None) -> int:
    """Print how much there is to do, and how long that may take; return how many runs are left.

    known: records, from which times come; those of the project's own result/ serve where they tell nothing.
    """
    beside = beside or Beside()
    left = [job for job in planned if records.read_record(job.path) is None]
    print(f"{title}: {len(planned)} runs, {len(planned) - len(left)} recorded, {len(left)} to do")
    for setup in {id(job.setup.dataset): job.setup for job in planned}.values():
        print(planning.headline(setup))
    for precision, count in _recorded_otherwise(left).items():
        print(f"{count} of these {'is' if count == 1 else 'are'} recorded with --precision {precision}")
    if left:
        print(_how_long(left, known, min(beside.workers, len(left))), flush=True)
    if left and beside.takes:
        print(f"Its file says: {beside.takes}", flush=True)
    return len(left)


def _how_long(left: list[Job], known: list[dict], workers: int) -> str:
    """Say it by what such runs took on this machine's processor; where that is not all, on each that is recorded."""
    own = left[0].setup.environment["processor"]
    times = {own: estimate.estimate(left, estimate.by_processor(known).get(own, []))}
    if times[own][1]:
        elsewhere = estimate.by_processor([*known, *_of_the_project(left)])
        times |= {name: estimate.estimate(left, some) for name, some in sorted(elsewhere.items())}
    unknown = min(count for _, count in times.values())
    said = []
    for name, (seconds, count) in times.items():
        if seconds and (count == unknown or name == own):
            share = f", {duration(seconds / workers)} by {workers} side by side" if workers > 1 else ""
            machine = f" on {name}" if name else ""
            said.append(f"about {duration(seconds)} in one process{share}, by the runs recorded{machine}")
    if unknown:
        kind = f"{unknown} runs are of a kind that none is recorded of, so their time is unknown"
        said.append(f"{kind}; in all {_amount(left)}")
    return "; ".join(said)


def _amount(left: list[Job]) -> str:
    """Say how much work there is, whatever the machine."""
    configs = [job.config for job in left]
    trainings = sum(int(config.get("evaluations", 1)) for config in configs)
    epochs = sorted({int(config["training"]["epochs"]) for config in configs})
    long = " to ".join(str(count) for count in dict.fromkeys((epochs[0], epochs[-1])))
    steps = {config["condensing"]: _steps(config["options"]) for config in configs if "condensing" in config}
    learned = f", and {sum(steps.values()):,} steps of learning images" if sum(steps.values()) else ""
    return f"{trainings:,} trainings of {long} epochs{learned}"


def _steps(options: dict[str, object]) -> int:
    counts = [options.get(name, least) for name, least in (("iterations", 0), ("steps", 1))]
    return math.prod(count if isinstance(count, int) else 1 for count in counts)


def _of_the_project(left: list[Job]) -> list[dict]:
    """Return the project's own records that may tell of these jobs: those with one of their networks."""
    networks = {str(job.config["test_model"]) for job in left} | {job.setup.settings.model for job in left}
    paths = [path for name in networks for path in (PROJECT / "result").rglob(f"*-{name}/*/fraction*-seed*-*.json")]
    return [record for path in dict.fromkeys(paths) if (record := records.read_record(path)) is not None]


def known_below(save_path: Path) -> tuple[list[dict], list[Path]]:
    """Return the records of every protocol below a folder, and what is damaged."""
    several = [records.read_records(save_path, protocol) for protocol in ("whole", "continual")]
    return [record for found, _ in several for record in found], [path for _, damaged in several for path in damaged]


def _recorded_otherwise(left: list[Job]) -> dict[str, int]:
    """Return how many of the jobs have a record that differs in the precision alone, by that."""
    counts: dict[str, int] = {}
    for job in left:
        for name in PRECISIONS:
            other = record_path(job.setup, job.config | {"precision": name})
            if name != job.config["precision"] and records.read_record(other) is not None:
                counts[name] = counts.get(name, 0) + 1
    return counts
