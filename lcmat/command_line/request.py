"""What one command line asks for, once and for all: whatever comes after sees no flags."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lcmat import data
from lcmat.command_line.method_flags import check_options, options_for, options_of, taken_apart
from lcmat.command_line.registry import Registry
from lcmat.command_line.released_flags import idle_flags, methods_of, notes
from lcmat.command_line.settings import settings_of
from lcmat.condensation import Condenser
from lcmat.data.sources import AbsentError, without_downloads
from lcmat.errors import UserError, lookup
from lcmat.files import check_writable
from lcmat.runs import Kind, Run, Settings
from lcmat.runs.continual import Steps
from lcmat.runs.kinds import kind_of
from lcmat.runs.subset_file import subset_as_method
from lcmat.selection import Method
from lcmat.selection.quota import with_quota
from lcmat.selection.sampler import Sampler
from lcmat.signals import Taking
from lcmat.training.losses import WEIGHTS_BY

PROTOCOLS = ("whole", "continual", "dynamic")
COLUMNS = ("image_column", "label_column", "train_split", "test_split", "config_name")


@dataclass(frozen=True)
class Source:
    """Which data, from where, and how they are read and varied."""

    name: str
    path: str
    image_size: int | None
    augmentation: str | None
    columns: tuple[tuple[str, str | None], ...]
    label_noise: float | None
    long_tail: float | None
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    file_order: str | None = None
    dataset_name: str | None = None

    def load(self, workers: int | None) -> data.Dataset:
        """Read the data; workers: processes that read images too many for memory."""
        dataset = data.load(
            self.name,
            self.path,
            image_size=self.image_size,
            augmentation=self.augmentation,
            columns=dict(self.columns),
            workers=workers,
            label_noise=self.label_noise,
            long_tail=self.long_tail,
            file_order=self.file_order,
            dataset_name=self.dataset_name,
        )
        return data.scaled_by(dataset, self.pixel_mean, self.pixel_std)

    def load_for_a_plan(self, workers: int | None) -> data.Dataset:
        """Read the data if they are here; of published ones that are not return what is known. Download nothing."""
        try:
            with without_downloads():
                return self.load(workers)
        except AbsentError as error:
            variants = {"label_noise": self.label_noise, "long_tail": self.long_tail}
            known = data.without_images(self.name, self.image_size, self.augmentation, **variants)
            if known is None:
                raise UserError(f"{error}; a plan needs the number of its images: get the data first") from None
            return data.scaled_by(known, self.pixel_mean, self.pixel_std)


@dataclass(frozen=True)
class Sizes:
    """How much to choose or make: images of each class, or numbers of samples, or shares of the training set."""

    ipc: tuple[int, ...] = ()
    budget: tuple[int, ...] = ()
    fraction: tuple[float, ...] = ()

    def of(self, classes: int) -> list[dict[str, int | float]]:
        """Return the sizes as a Run takes them, for so many classes."""
        if self.ipc:
            return [{"budget": count * classes, "per_class": count} for count in self.ipc]
        if self.budget:
            return [{"budget": count} for count in self.budget]
        return [{"fraction": fraction} for fraction in self.fraction or (0.1,)]


@dataclass(frozen=True)
class Wanted:
    """A method, those of its options that were given, how its signals are taken, and its weights used."""

    method: Method | Condenser | Sampler
    options: Mapping[str, object]
    taking: Taking = field(default_factory=Taking)
    weights_by: str = "subset"

    def run(self, seed: int, **cell: object) -> Run:
        """Return the run of a seed; cell: its size and the network that is trained."""
        return Run(self.method, seed, options=self.options, taking=self.taking, weights_by=self.weights_by, **cell)


@dataclass(frozen=True)
class Request:
    """All that a command line asks for.

    published: whether networks are trained by a recipe of the literature whose augmentation depends on the dataset.
    steps: of continual learning, else None. idle: flags without effect; notes: further lines. plan: whether all is only
    to be said.
    """

    source: Source
    wanted: tuple[Wanted, ...]
    sizes: Sizes
    seeds: tuple[int, ...]
    networks: tuple[str, ...]
    settings: Settings
    steps: Steps | None
    published: bool
    device: str
    gpu: int | None
    precision: str
    workers: int | None
    threads: int | None
    memory: int | None
    idle: tuple[str, ...]
    notes: tuple[str, ...]
    plan: bool = False

    def notes_with(self, loader_used: bool) -> list[str]:
        """Return a line about the flags without effect, --workers among them where no loader is used, and the notes."""
        idle = [*self.idle, *(["--workers"] if self.workers is not None and not loader_used else [])]
        return [*([f"no effect here: {', '.join(idle)}"] if idle else []), *self.notes]

    def kind(self, method: Method | Condenser | Sampler) -> Kind:
        """Return the kind of run that a method is for."""
        return kind_of(method, self.steps)

    def runs(self, classes: int = 0) -> list[Run]:
        """Return the runs asked for, in order; `classes` is read for images of each class alone."""
        sizes = self.sizes.of(classes)
        runs = [
            one.run(seed, test_model=model, **size)
            for seed in self.seeds  # outermost: one network and its signals serve all methods and fractions
            for one in self.wanted
            for size in (sizes[:1] if one.method.ignores_budget else sizes)
            for model in self.networks
        ]
        return list(dict.fromkeys(runs))


def request_of(args: argparse.Namespace, registry: Registry) -> Request:
    """Return what a parsed command line asks for, names spelled canonically. Raises UserError for what cannot be."""
    args = copy.copy(args)
    _spell(args, registry)
    chosen = _chosen(args, registry)
    _suit_condensation(args, chosen)
    _check_samplers(args, chosen)
    _suit_continual(args)
    settings = settings_of(args)
    given = options_of(args)
    check_options(chosen, list(options_of(args, flags=False)))
    for folder in (settings.save_path, settings.cache_path):
        check_writable(folder)
    batch = settings.selection_recipe.batch
    wanted = [_wanted(args, method, options_for(method, given), batch, settings.quota) for method in chosen]
    steps = Steps(args.steps, args.memory_per_class) if args.protocol == "continual" else None
    ipc = args.ipc if steps is None else [steps.memory_per_class]
    return Request(
        source=_source(args),
        wanted=tuple(wanted),
        sizes=Sizes(*(tuple(values or ()) for values in (ipc, args.budget, args.fraction))),
        seeds=tuple(args.seed),
        networks=tuple(getattr(args, "test_models", None) or (args.model, *args.cross)),
        settings=settings,
        steps=steps,
        published=args.evaluation is not None and args.augmentation is None,
        device=args.device,
        gpu=args.gpu[0] if args.gpu else None,
        precision=args.precision,
        workers=args.workers,
        threads=args.threads,
        memory=args.memory,
        idle=tuple(idle_flags(args)),
        notes=tuple(notes(args)),
        plan=args.plan,
    )


def _spell(args: argparse.Namespace, registry: Registry) -> None:
    args.dataset = data.resolve(args.dataset)
    args.model, *args.cross = (lookup("network", name, registry.networks) for name in (args.model, *args.cross))
    if args.inner_model is not None:
        args.inner_model = lookup("network", args.inner_model, registry.networks)
    if test_models := getattr(args, "test_models", None):
        args.test_models = [lookup("network", name, registry.networks) for name in test_models]
    args.protocol = lookup("protocol", args.protocol, PROTOCOLS)


def _chosen(args: argparse.Namespace, registry: Registry) -> list[Method | Condenser | Sampler]:
    """Return the methods asked for, or the subset that --subset names in their place."""
    if getattr(args, "subset", None):
        return [_subset(args)]
    every = registry.samplers if args.protocol == "dynamic" else registry.methods
    names = [one for name in methods_of(args) for one in (every if name.casefold() == "all" else (name,))]
    return [registry.method(name) for name in names]


def _wanted(
    args: argparse.Namespace, method: Method | Condenser | Sampler, given: Mapping[str, object], batch: int, quota: str
) -> Wanted:
    if not isinstance(method, Method):
        return Wanted(method.under(given), given)
    options, how = taken_apart(method, given)
    method = with_quota(method.under(options), quota)
    if args.signals:
        for name in {"signals_mode", "gradient_scale"} & given.keys():
            raise UserError(f"--{name} says how signals are taken, but those of --signals are taken already")
        return Wanted(method, options)
    scale = how.get("gradient_scale", "sample") if method.forms_gradients else "sample"
    weights_by = lookup("weights_by", how.get("weights_by", "subset"), WEIGHTS_BY)
    taking = Taking(how.get("signals_mode", "eval"), scale, batch)
    return Wanted(method, options, taking, weights_by if method.weighs(options) else "subset")


def _subset(args: argparse.Namespace) -> Method:
    """Return the subset that --subset names, as a method; the flags that say how to select give way to it."""
    if args.val:
        raise UserError(
            "--val holds samples out of what is selected from, but --subset is selected already; leave it out"
        )
    method, size = subset_as_method(Path(args.subset))
    args.budget, args.fraction, args.ipc, args.balance = [size], None, None, False
    return method


def _suit_condensation(args: argparse.Namespace, chosen: list[Method | Condenser | Sampler]) -> None:
    """Let all runs be evaluated alike where some are of condensation, and refuse what images and signals lack."""
    condensing = any(isinstance(method, Condenser) for method in chosen)
    if (args.factor or 1) > 1 and not any("factor" in method.options for method in chosen):
        names = ", ".join(method.name for method in chosen)
        raise UserError(f"--factor is for methods that store several images in one, and {names} cannot; leave it out")
    if args.signals and (condensing or args.ipc):
        raise UserError("--signals hold no images: condensation and --ipc need a --dataset")
    if condensing and (args.select_only or args.export):
        raise UserError("--select_only and --export are for selections; condensation saves its images by itself")
    if args.quota and (condensing or args.ipc or getattr(args, "subset", None)):
        raise UserError("--quota shares a --fraction or --budget of a selection among the classes; leave it out here")
    if condensing and args.evaluation is None:
        args.evaluation = "zhao"


def _check_samplers(args: argparse.Namespace, chosen: list[Method | Condenser | Sampler]) -> None:
    """Raise UserError unless methods that draw for each epoch are asked for by their protocol, and no others."""
    dynamic = args.protocol == "dynamic"
    for method in chosen:
        if dynamic and not isinstance(method, Sampler):
            raise UserError(f"--protocol dynamic draws anew for each epoch, which {method.name} does not; leave it out")
        if not dynamic and isinstance(method, Sampler):
            raise UserError(f"{method.name} draws anew for each epoch of training: give --protocol dynamic")
    for name in ("signals", "select_only", "export", "quota", "ipc"):
        if dynamic and getattr(args, name):
            raise UserError(f"--{name} has no meaning in --protocol dynamic")


def _suit_continual(args: argparse.Namespace) -> None:
    """Let continual learning be evaluated as its protocol is, and refuse flags that it has its own for."""
    if args.protocol != "continual":
        wrong = sorted(args.explicit & {"steps", "memory_per_class"})
        if wrong:
            raise UserError(f"--{wrong[0]} is for --protocol continual")
        return
    for name in ("ipc", "budget", "fraction"):
        if getattr(args, name):
            raise UserError(f"--{name}: continual learning keeps --memory_per_class images of each class")
    for name in ("signals", "select_only", "export", "val", "quota"):
        if getattr(args, name):
            raise UserError(f"--{name} has no meaning in --protocol continual")
    if getattr(args, "subset", None):
        raise UserError("--subset is of all classes at once; --protocol continual selects step by step")
    if args.evaluation is None:
        args.evaluation = "zhao"
    # The protocol's network and how many of it, where the command does not name others.
    if "model" not in args.explicit:
        args.model = "ConvNet3"
    if "evaluations" not in args.explicit:
        args.evaluations = 3


def _source(args: argparse.Namespace) -> Source:
    return Source(
        name=args.dataset,
        path=args.data_path,
        image_size=args.image_size,
        augmentation=args.augmentation,
        columns=tuple((name, getattr(args, name)) for name in COLUMNS),
        label_noise=args.label_noise,
        long_tail=args.long_tail,
        pixel_mean=tuple(args.pixel_mean or ()),
        pixel_std=tuple(args.pixel_std or ()),
        file_order=args.file_order,
        dataset_name=args.dataset_name,
    )
