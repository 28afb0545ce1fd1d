"""From requests to jobs: what main.py, cross_network_generalization.py, grids and analyses have in common.

Methods and networks are passed in as a `Registry`; this library imports neither.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from lcmat import data, distributed, records
from lcmat.command_line.registry import Registry
from lcmat.command_line.repeated import looked_at
from lcmat.command_line.request import Request, Source, request_of
from lcmat.data.stand_in import UNKNOWN, StandIn
from lcmat.errors import UserError
from lcmat.files import PROJECT
from lcmat.hardware import choose_device, choose_precision, default_threads
from lcmat.journal import check_board
from lcmat.memory_limit import limited
from lcmat.runs import Job, Setup, make_setup
from lcmat.runs.evaluation import suited
from lcmat.runs.job import check
from lcmat.training import Compute


@contextmanager
def planned(several: Iterable[argparse.Namespace], registry: Registry) -> Iterator[list[Job]]:
    """Yield the jobs of one or more parsed command lines; meanwhile, threads and memory are as they say.

    Raises UserError, before any work, for whatever would stop one of them later.
    """
    requests = [request_of(args, registry) for args in several]
    with machine(requests):
        yield jobs_of(requests, registry)


@contextmanager
def machine(requests: list[Request]) -> Iterator[None]:
    """Let PyTorch use as many threads, and selection as much memory, as the requests say, if they say so.

    Unless they do, PyTorch uses no more threads than this process may use cores.

    Raises UserError where they do not agree.
    """
    threads = _agreed("threads", "computes with one number of threads", requests)
    memory = _agreed("memory", "has one limit", requests)
    shared = 1 if threads is None else distributed.on_this_machine()
    torch.set_num_threads(default_threads() if threads is None else max(1, threads // shared))
    with limited(memory):
        yield


def _agreed(name: str, words: str, requests: list[Request]) -> int | None:
    wanted = {getattr(request, name) for request in requests} - {None}
    if len(wanted) > 1:
        raise UserError(
            f"one process {words}, but the runs have --{name} {' and '.join(map(str, sorted(wanted)))}; give one, or "
            f"start them apart"
        )
    return wanted.pop() if wanted else None


def jobs_of(requests: list[Request], registry: Registry) -> list[Job]:
    """Return the jobs of requests, checked before any work; data that several read are loaded once.

    A job that two requests ask for comes once.
    """
    setups: dict[tuple[Source, str], Setup] = {}
    jobs: dict[str, Job] = {}
    for request in requests:
        setup = _setup(request, registry, setups)
        runs = request.runs(setup.dataset.num_classes)
        own = [Job(setup, run, request.kind(run.method)) for run in runs]
        check(own)
        for job in own:
            jobs.setdefault(repr(sorted(job.config.items(), key=lambda item: item[0])), job)
    return list(jobs.values())


def _setup(request: Request, registry: Registry, known: dict[tuple[Source, str], Setup]) -> Setup:
    """Return the setup of a request; the data of one that reads the same are used again."""
    device, settings = choose_device(_device_name(request)), request.settings
    if distributed.count() > 1 and device.index is not None:
        raise UserError("torchrun's processes take a GPU each; leave --device and --gpu out")
    if settings.recipe.sync_batchnorm and (device.type != "cuda" or distributed.count() == 1):
        raise UserError("--sync_batchnorm is for several processes with a GPU each, by torchrun; leave it out")
    check_board(settings.log)
    key = (request.source, str(device))
    if key not in known:
        dataset = _planned_with(request) if request.plan else request.source.load(request.workers)
        for line in request.notes_with(loader_used=isinstance(dataset.train, data.FileSplit)):
            print(f"note: {line}", file=sys.stderr)
        compute = Compute(device, torch.float32, dataset.mean, dataset.std)
        known[key] = make_setup(dataset, compute, registry.network, settings, registry.network_revision)
    setup = known[key]
    recipe = replace(settings.recipe, augmentation=setup.dataset.augmentation)
    if request.published:
        recipe = suited(settings.recipe, setup.dataset.name)
    settings = replace(settings, recipe=recipe)
    compute = replace(setup.compute, precision=choose_precision(request.precision, device))
    return replace(setup, compute=compute, settings=settings)


def _planned_with(request: Request) -> data.Dataset:
    """Return the data of a plan: as they are, or what is known of published ones that are not here."""
    settings, of_hub = request.settings, Path(request.source.name.removeprefix("hf:"))
    looked_at(
        settings.save_path, settings.cache_path, Path(request.source.path), *([of_hub] if of_hub.exists() else [])
    )
    dataset = request.source.load_for_a_plan(request.workers)
    if not isinstance(dataset, StandIn):
        return dataset
    print(f"note: {dataset.name} is not in {request.source.path}: planned with its published sizes", file=sys.stderr)
    found = (_fingerprint(dataset, folder) for folder in (request.settings.save_path, PROJECT / "result"))
    return replace(dataset, known_as=next(filter(None, found), UNKNOWN))


def _fingerprint(dataset: data.Dataset, folder: Path) -> str | None:
    """Return the fingerprint that records below a folder have of a dataset of this name and size."""
    for path in folder.glob(f"{records.slug(dataset.name)}-*/*/*.json"):
        config = (records.read_record(path) or {}).get("config", {})
        if (config.get("dataset"), config.get("image_size")) == (dataset.name, dataset.size_in_words):
            return config.get("dataset_fingerprint")
    return None


def _device_name(request: Request) -> str:
    if request.gpu is None or request.device != "auto":
        return request.device
    if choose_device("auto").type == "cpu":
        print("note: --gpu: there is no GPU here, so the CPU is used", file=sys.stderr)
        return "cpu"
    return f"cuda:{request.gpu}"


def headline(setup: Setup) -> str:
    """Return a line about the data, the device and the precision."""
    dataset, compute = setup.dataset, setup.compute
    shape = "×".join(str(n) for n in dataset.image_shape)
    precision = str(compute.precision).removeprefix("torch.")
    return (
        f"{dataset.title}: {len(dataset.train):,} training and {len(dataset.test):,} test images of {shape}, "
        f"{dataset.num_classes} classes; on {compute.device}, training in {precision}"
    )


def need_one_run(jobs: list[Job], flag: str) -> Job:
    """Return the only job; raise UserError if there are several."""
    if len(jobs) != 1:
        raise UserError(f"{flag} takes one run, not {len(jobs)}; name one method, fraction and seed")
    return jobs[0]
