"""Runs done one after the other, by any number of processes at once: each run by exactly one of them.

Whoever works on a run holds a lock of the operating system on a file in SAVE_PATH/.locks. It goes with its process,
however that ends, so that a dead process's runs are taken over by the others, from its checkpoints. On a file system
that machines share this needs one with locks (NFS 4 has them).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lcmat.command_line.planning import Job
from lcmat.errors import UserError
from lcmat.records import record as records
from lcmat.runs import pretrained as provision
from lcmat.runs import selection as experiment
from lcmat.training import DivergedError

# Seconds between looks at what other processes work on.
PATIENCE = 2.0


def work(jobs: list[Job], tell: Callable[[int, Job, dict, bool], None]) -> tuple[list[dict], dict[int, DivergedError]]:
    """Do all jobs that are not recorded yet; return the records, in order, and by number what diverged.

    Runs that other processes work on are waited for. tell(number, job, record, known) is called when the record of job
    `number` (from 0) is there; `known`: it was not made here. A run that diverges is left out, with a line on stderr.
    """
    found: dict[int, dict] = {}
    failed: dict[int, DivergedError] = {}
    pending = dict(enumerate(jobs))
    waiting = False
    while pending:
        before = len(pending)
        for number, job in list(pending.items()):
            try:
                record, known = _record_of(job)
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


def complain(jobs: list[Job], failed: dict[int, DivergedError]) -> None:
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


def _record_of(job: Job) -> tuple[dict | None, bool]:
    """Return the job's record, and whether it was there already; do the job, unless another process works on it."""
    record = _recorded(job)
    if record is not None:
        experiment.tidy(job.bench, job.config)  # its process may have died before it could
        return record, True
    if experiment.in_the_making(job.bench, job.run):
        return None, False
    with claimed(job) as mine:
        if not mine:
            return None, False
        record = _recorded(job)  # another may just have finished it
        return (experiment.run_one(job.bench, job.run), False) if record is None else (record, True)


def _recorded(job: Job) -> dict | None:
    return None if job.bench.settings.overwrite else experiment.recorded(job.bench, job.run)


@contextmanager
def claimed(job: Job) -> Iterator[bool]:
    """Hold the claim on a run for a while; yield whether that could be had."""
    path = job.bench.settings.save_path / ".locks" / f"{records.config_hash(job.config)}.lock"
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


def estimate(jobs: list[Job], known: list[dict]) -> tuple[float, int]:
    """Return the seconds that jobs are likely to take, from recorded runs, and how many jobs nothing is known about.

    Training is taken to grow with images times epochs, plus the images tested at a third of that; the network that
    selects, with its epochs; once for each network. Known runs count if dataset, networks and precision agree.
    Selection and condensation take what they took with the same method, options and size; selection otherwise what it
    took with the method at all.
    """
    speeds: dict[tuple, list[float]] = {}
    pretraining: dict[tuple, list[float]] = {}
    choosing: dict[tuple, list[float]] = {}
    for record in known:
        config = record["config"]
        if config.get("training") and record["seconds"].get("train"):
            load = _load(record["subset_size"], config, _test_images(jobs, record["dataset"]))
            speeds.setdefault(_kind(config), []).append(record["seconds"]["train"] / load)
        network = config.get("selection_network") or {}
        if "epochs" in network and record["seconds"].get("pretrain"):
            pretraining.setdefault(_origin(config), []).append(record["seconds"]["pretrain"] / network["epochs"])
        for key in (_choice(config), _method(config)):
            choosing.setdefault(key, []).append(record["seconds"].get("select", 0.0))
    total, unknown, networks = 0.0, 0, set()
    made = {record["config"]["condensing"] for record in known if "condensing" in record["config"]}
    for job in jobs:
        config, bench = job.config, job.bench
        size = max(1, round(config["fraction"] * len(bench.part(job.run)[0])))
        speed = speeds.get(_kind(config))
        choice, images = choosing.get(_choice(config)), config.get("condensing")
        if choice is None and images is None:  # the options of condensation change its time a hundredfold
            choice = choosing.get(_method(config))
        unknown += speed is None or (choice is None and images not in made)
        total += 0.0 if images in made else statistics.median(choice or [0.0])
        made |= {images} - {None}
        total += statistics.median(speed) * _load(size, config, len(bench.dataset.test)) if speed else 0.0
        for selector in provision.selectors(bench, job.run):
            key = provision.cache_key(bench, selector)
            epochs = (config["selection_network"] or {}).get("epochs")
            if key in networks or epochs is None or provision.is_taken(bench, selector):
                continue
            networks.add(key)
            total += epochs * statistics.median(pretraining.get(_origin(config), [0.0]))
    return total, unknown


def _test_images(jobs: list[Job], dataset: str) -> int:
    """Return how many test images the dataset has, or 0 if none of the jobs is on it."""
    return next((len(job.bench.dataset.test) for job in jobs if job.config["dataset"] == dataset), 0)


def _kind(config: dict) -> tuple:
    return (*_place(config), config["test_model"])


def _choice(config: dict) -> tuple:
    options = repr(sorted(config.get("options", {}).items()))
    return (*_method(config), config["fraction"], options)


def _method(config: dict) -> tuple:
    return (*_place(config), config["selection"])


def _origin(config: dict) -> tuple:
    network = config["selection_network"]
    return (*_place(config), network.get("model"))


def _place(config: dict) -> tuple:
    return tuple(config.get(name) for name in ("dataset", "image_size", "precision", "protocol"))


def _load(size: int, config: dict, test_images: int) -> float:
    epochs, interval = config["training"]["epochs"], config.get("test_interval", 0)
    tests = 1 + (epochs - 1) // interval if interval else 1
    size *= config.get("options", {}).get("factor", 1) ** 2  # each image holds so many
    one = size * epochs + tests * test_images * config.get("test_fraction", 1.0) / 3
    return config.get("evaluations", 1) * one


def in_words(record: dict, known: bool) -> str:
    """Return a line about a record: what was run, its accuracies, and the seconds of its stages unless known before."""
    seconds = ", ".join(f"{name} {value:.1f} s" for name, value in record["seconds"].items() if value)
    return (
        f"{record['selection']} fraction {record['fraction']:g} seed {record['seed']} "
        f"({record['subset_size']:,} images) {record['test_model']}: {record['test_accuracy']:.2f}% final, "
        f"{record['best_test_accuracy']:.2f}% best; " + ("already recorded" if known else seconds)
    )


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def record_paths(jobs: list[Job]) -> list[Path]:
    """Return where the record of each job is, or will be."""
    return [records.record_path(job.bench.settings.save_path, job.config, job.bench.settings.model) for job in jobs]
