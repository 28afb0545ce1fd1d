"""From flags to runs: what main.py, cross_network_generalization.py and grids have in common.

Methods and networks are passed in as `Registry`; this library imports neither.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from lcmat import data
from lcmat.command_line.registry import Registry
from lcmat.command_line.settings import methods_of, notes, options_of, settings_of
from lcmat.condensation.condenser import Condenser
from lcmat.errors import UserError, lookup
from lcmat.hardware import choose_device, choose_precision
from lcmat.runs import selection as experiment
from lcmat.runs.evaluation import suited
from lcmat.runs.job import Run
from lcmat.runs.queue import Job
from lcmat.runs.setup import Bench, make_bench
from lcmat.runs.subset_file import given
from lcmat.selection.method import Method
from lcmat.training import Compute


def plan(several: Iterable[argparse.Namespace], registry: Registry) -> list[Job]:
    """Return the jobs of one or more parsed command lines, checked before any work; each dataset is loaded once.

    Raises UserError for whatever would stop one of them later. A job that two command lines ask for comes once.
    """
    several = list(several)
    if any(args.signals for args in several):
        raise UserError("--signals are for main.py alone, which selects by them; leave them out")
    chosen = [resolve(args, registry) for args in several]
    set_threads(several)
    benches: dict[tuple, Bench] = {}
    jobs: dict[str, Job] = {}
    for args, of_args in zip(several, chosen, strict=True):
        bench = _bench(args, registry, benches)
        if bench.settings.steps is not None:
            args.ipc = [bench.settings.memory_per_class]
        runs = runs_of(args, of_args, bench.dataset.num_classes)
        experiment.check(bench, runs)
        for job in (Job(bench, run) for run in runs):
            jobs.setdefault(repr(sorted(job.config.items(), key=lambda item: item[0])), job)
    return list(jobs.values())


def resolve(args: argparse.Namespace, registry: Registry) -> list[Method | Condenser]:
    """Spell names canonically in `args`, refuse what cannot be, and return the methods asked for."""
    args.dataset = data.resolve(args.dataset)
    args.model, *args.cross = (lookup("network", name, registry.networks) for name in (args.model, *args.cross))
    if args.inner_model is not None:
        args.inner_model = lookup("network", args.inner_model, registry.networks)
    if test_models := getattr(args, "test_models", None):
        args.test_models = [lookup("network", name, registry.networks) for name in test_models]
    if getattr(args, "subset", None):
        chosen = [_given(args)]
    else:
        names = [one for name in methods_of(args) for one in _expanded(name, registry)]
        chosen = [registry.method(name) for name in names]
    _suit_condensation(args, chosen)
    _suit_continual(args)
    settings = settings_of(args)
    experiment.check_options(settings, chosen, list(options_of(args)))
    experiment.check_paths(settings)
    return [method.under(experiment.options_of(settings, method)) for method in chosen]


def _suit_condensation(args: argparse.Namespace, chosen: list[Method | Condenser]) -> None:
    """Let all runs be evaluated alike where some are of condensation, and refuse what images and signals lack."""
    condensing = any(isinstance(method, Condenser) for method in chosen)
    if args.factor > 1 and not any("factor" in method.options for method in chosen):
        names = ", ".join(method.name for method in chosen)
        raise UserError(f"--factor is for methods that store several images in one, and {names} cannot; leave it out")
    if args.signals and (condensing or args.ipc):
        raise UserError("--signals hold no images: condensation and --ipc need a --dataset")
    if condensing and (args.select_only or args.export):
        raise UserError("--select_only and --export are for selections; condensation saves its images by itself")
    if condensing and args.evaluation is None:
        args.evaluation = "zhao"


def _suit_continual(args: argparse.Namespace) -> None:
    """Let continual learning be evaluated as its protocol is, and refuse flags that it has its own for."""
    args.protocol = lookup("protocol", args.protocol, ("whole", "continual"))
    if args.protocol != "continual":
        wrong = sorted(args.given & {"steps", "memory_per_class"})
        if wrong:
            raise UserError(f"--{wrong[0]} is for --protocol continual")
        return
    for name in ("ipc", "budget", "fraction"):
        if getattr(args, name):
            raise UserError(f"--{name}: continual learning keeps --memory_per_class images of each class")
    for name in ("signals", "select_only", "export", "val"):
        if getattr(args, name):
            raise UserError(f"--{name} has no meaning in --protocol continual")
    if getattr(args, "subset", None):
        raise UserError("--subset is of all classes at once; --protocol continual selects step by step")
    if args.evaluation is None:
        args.evaluation = "zhao"
    # The protocol's network and how many of it, where the command does not name others.
    if "model" not in args.given:
        args.model = "ConvNet3"
    if "evaluations" not in args.given:
        args.evaluations = 3


def _given(args: argparse.Namespace) -> Method:
    """Return the subset that --subset names, as a method; the flags that say how to select give way to it."""
    if args.val:
        raise UserError(
            "--val holds samples out of what is selected from, but --subset is selected already; leave it out"
        )
    method, size = given(Path(args.subset))
    args.budget, args.fraction, args.ipc, args.balance = [size], None, None, False
    return method


def _expanded(name: str, registry: Registry) -> Iterable[str]:
    return registry.methods if name.casefold() == "all" else (name,)


def set_threads(several: list[argparse.Namespace]) -> None:
    """Let PyTorch use as many threads as the flags say, if they say so. Raises UserError where they do not agree."""
    wanted = {args.threads for args in several} - {None}
    if len(wanted) > 1:
        raise UserError(
            f"one process computes with one number of threads, but the runs have --threads "
            f"{' and '.join(map(str, sorted(wanted)))}; give one, or start them apart"
        )
    if wanted:
        torch.set_num_threads(wanted.pop())


def runs_of(args: argparse.Namespace, chosen: list[Method | Condenser], classes: int = 0) -> list[Run]:
    """Return the runs that a command line asks for, in order; `classes` is read for --ipc alone."""
    networks = getattr(args, "test_models", None) or (args.model, *args.cross)
    if args.ipc:
        sizes = [{"budget": count * classes, "per_class": count} for count in args.ipc]
    elif args.budget:
        sizes = [{"budget": count} for count in args.budget]
    else:
        sizes = [{"fraction": fraction} for fraction in args.fraction or [0.1]]
    runs = [
        Run(method, seed, test_model=model, **size)
        for seed in args.seed  # outermost: one network and its signals serve all methods and fractions
        for method in chosen
        for size in (sizes[:1] if method.everything else sizes)
        for model in networks
    ]
    return list(dict.fromkeys(runs))


COLUMNS = ("image_column", "label_column", "train_split", "test_split")


def _bench(args: argparse.Namespace, registry: Registry, known: dict[tuple, Bench]) -> Bench:
    """Return the bench of a command line; the data of one that reads the same are used again."""
    device, settings = choose_device(_device_name(args)), settings_of(args)
    columns = {name: getattr(args, name) for name in COLUMNS}
    read = (args.dataset, args.data_path, args.image_size, args.augmentation, args.label_noise, args.long_tail)
    key = (*read, *columns.values(), str(device))
    if key not in known:
        dataset = data.load(
            args.dataset,
            args.data_path,
            image_size=args.image_size,
            augmentation=args.augmentation,
            columns=columns,
            workers=args.workers,
            label_noise=args.label_noise,
            long_tail=args.long_tail,
        )
        for line in notes(args, loader_used=isinstance(dataset.train, data.FileSplit)):
            print(f"note: {line}", file=sys.stderr)
        compute = Compute(device, torch.float32, dataset.mean, dataset.std)
        known[key] = make_bench(dataset, compute, registry.network, settings)
    bench = known[key]
    recipe = replace(settings.recipe, augmentation=bench.dataset.augmentation)
    if args.evaluation is not None and args.augmentation is None:
        recipe = suited(settings.recipe, bench.dataset.name)
    settings = replace(settings, recipe=recipe)
    compute = replace(bench.compute, precision=choose_precision(args.precision, device))
    return replace(bench, compute=compute, settings=settings)


def _device_name(args: argparse.Namespace) -> str:
    if args.gpu is None or args.device != "auto":
        return args.device
    if choose_device("auto").type == "cpu":
        print("note: --gpu: there is no GPU here, so the CPU is used", file=sys.stderr)
        return "cpu"
    return f"cuda:{args.gpu[0]}"


def headline(bench: Bench) -> str:
    """Return a line about the data, the device and the precision."""
    dataset, compute = bench.dataset, bench.compute
    shape = "×".join(str(n) for n in dataset.image_shape)
    precision = str(compute.precision).removeprefix("torch.")
    return (
        f"{dataset.name}: {len(dataset.train):,} training and {len(dataset.test):,} test images of {shape}, "
        f"{dataset.num_classes} classes; on {compute.device}, training in {precision}"
    )


def need_one_run(jobs: list[Job], flag: str) -> Job:
    """Return the only job; raise UserError if there are several."""
    if len(jobs) != 1:
        raise UserError(f"{flag} takes one run, not {len(jobs)}; name one method, fraction and seed")
    return jobs[0]
