"""One run of the main job: pretrain, take signals, select, train a fresh network on the subset, record.

Methods and the network factory are passed in. What several runs share (the pretrained network and its signals, one
for each seed) is kept in a cache folder under a hash of everything that determines it.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from lcmat import records, seeds
from lcmat.data.splits import Dataset, Split, held_out
from lcmat.errors import UserError
from lcmat.files import check_writable, load_tensors, save_tensors, sha256_of
from lcmat.hardware import make_repeatable
from lcmat.networks import linear_head, load_weights, take_signals
from lcmat.selection import Method, Subset, class_budgets, select_with
from lcmat.signals import Signals
from lcmat.training import Compute, Recipe, train

# Part of every cache key: raise it when the meaning of a cached file changes.
CACHE_FORMAT = 1

BuildNetwork = Callable[[str, Dataset], nn.Module]


@dataclass(frozen=True)
class Settings:
    """What all runs of one command share. Paths, device and resuming do not determine results; the rest does."""

    model: str = "ResNet18"
    selection_recipe: Recipe = field(default_factory=lambda: PRETRAINING)
    pretrained: Path | None = None
    selection_test_interval: int = 0
    balance: bool = True
    options: dict[str, object] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    test_interval: int = 10
    test_fraction: float = 1.0
    selection_test_fraction: float = 1.0
    val_ratio: float | None = None  # None: nothing is held out
    save_path: Path = Path("result")
    cache_path: Path = Path("cache")
    overwrite: bool = False
    resume: bool = False
    resume_from: Path | None = None
    checkpoint_seconds: float = 60.0


PRETRAINING = Recipe(epochs=10, scheduler="constant")


@dataclass(frozen=True)
class Run:
    """One cell of a table for one seed. Either a fraction or a budget."""

    method: Method
    seed: int
    fraction: float | None = None
    budget: int | None = None
    test_model: str | None = None  # None: the model that selects


@dataclass(frozen=True, eq=False)
class Bench:
    """The data and machine that runs of one command share."""

    dataset: Dataset
    fingerprint: str
    compute: Compute
    build: BuildNetwork
    settings: Settings
    environment: dict[str, object]

    def fresh_network(self, name: str, *purpose: object) -> nn.Module:
        """Return a network initialised by a seed derived from `purpose`, the same on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(0, "initialise", *purpose))
            return self.build(name, self.dataset)

    @functools.cached_property
    def head_size(self) -> tuple[int, int]:
        """Outputs and inputs of the selection network's last layer; raises UserError if it has none."""
        head = linear_head(self.fresh_network(self.settings.model, "shape"))
        return head.out_features, head.in_features

    @functools.cached_property
    def pretrained_hash(self) -> str:
        """The sha256 of the file that --pretrained names."""
        return sha256_of(self.settings.pretrained)


def make_bench(dataset: Dataset, compute: Compute, build: BuildNetwork, settings: Settings) -> Bench:
    """Put the dataset on the device; note its fingerprint, and what code and machine the results will come from."""
    make_repeatable()
    fingerprint, environment = dataset.fingerprint(), records.environment(compute.device)
    return Bench(dataset.to(compute.device), fingerprint, compute, build, settings, environment)


def configuration(bench: Bench, run: Run) -> dict[str, object]:
    """Return all that determines the run's result, and nothing else: its hash is the run's name.

    A method that reads no signals does not depend on the selection network, so that is left out of its configuration.
    """
    settings, dataset = bench.settings, bench.dataset
    own = {name: value for name, value in settings.options.items() if name in run.method.options}
    training_size = len(_part(bench, run.seed)[0])
    fraction = 1.0 if run.method.everything else run.fraction
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": bench.fingerprint,
        "image_size": dataset.image_shape[1],
        "validation_ratio": settings.val_ratio,
        "selection": run.method.name,
        "fraction": run.budget / training_size if fraction is None else fraction,
        "budget": None if run.method.everything else run.budget,
        "balance": settings.balance,
        "options": run.method.resolved(*(bench.head_size if run.method.needs else (0, 0)), own),
        "selection_network": _network_configuration(bench, run.seed) if run.method.needs else None,
        "test_model": run.test_model or settings.model,
        "training": asdict(settings.recipe),
        "test_interval": settings.test_interval,
        "test_fraction": settings.test_fraction,
        "precision": str(bench.compute.precision).removeprefix("torch."),
        "seed": run.seed,
    }


def check_paths(settings: Settings) -> None:
    """Find before even the data are loaded whether results can be written."""
    for folder in (settings.save_path, settings.cache_path):
        check_writable(folder)


def check(bench: Bench, runs: list[Run]) -> None:
    """Find before any work what would stop one of the runs later. Raises UserError; writes nothing."""
    settings = bench.settings
    if settings.pretrained is not None and any(run.method.needs for run in runs):
        load_weights(bench.fresh_network(settings.model, "shape"), settings.pretrained)
    hashes, folders = set(), {settings.save_path / "tables", settings.cache_path / "checkpoints"}
    for run in runs:
        _, split = _part(bench, run.seed)
        sizes = torch.bincount(split.labels.cpu(), minlength=bench.dataset.num_classes).numpy()
        if not run.method.everything:
            sizes = sizes if settings.balance else sizes.sum(keepdims=True)
            chosen = class_budgets(sizes, fraction=run.fraction, budget=run.budget).sum()
            if chosen < 2:
                raise UserError("one sample is too few to train on (BatchNorm); raise --fraction or --budget")
        config = configuration(bench, run)
        hashes.add(records.config_hash(config))
        if run.method.needs:
            hashes.add(_key(bench, config["selection_network"], run.seed))
        path = records.record_path(settings.save_path, config, settings.model)
        folders.add(path.parent)
        if path.exists() and records.read_record(path) is None and not settings.overwrite:
            raise UserError(f"{path} is damaged; move it away, or give --overwrite to write it anew")
    for folder in sorted(folders):
        check_writable(folder)
    given = settings.resume_from
    if given is not None and not given.is_dir() and given.stem not in hashes:
        raise UserError(f"checkpoint {given} belongs to none of these runs; give the command that it was made by")


def recorded(bench: Bench, run: Run) -> dict | None:
    """Return the run's record if there is one."""
    config = configuration(bench, run)
    return records.read_record(records.record_path(bench.settings.save_path, config, bench.settings.model))


def run_one(bench: Bench, run: Run) -> dict:
    """Do one run, write its record and subset, and return the record."""
    settings = bench.settings
    config = configuration(bench, run)
    key = records.config_hash(config)
    path = records.record_path(settings.save_path, config, settings.model)
    signals, seconds, network_facts = _signals(bench, run)
    started = time.monotonic()
    subset = _select(bench, run, signals, config["options"])
    seconds["select"] = time.monotonic() - started

    network = bench.fresh_network(config["test_model"], run.seed, "train")
    checkpoint = _checkpoint(settings, key)
    history = train(
        network,
        bench.dataset.train.take(torch.from_numpy(subset.indices)),
        settings.recipe,
        bench.compute,
        seed=seeds.derive(run.seed, "train"),
        weights=None if subset.weights is None else torch.from_numpy(subset.weights),
        test=_test_split(bench, settings.test_fraction),
        test_interval=settings.test_interval,
        checkpoint=checkpoint,
        checkpoint_seconds=settings.checkpoint_seconds,
        resume=settings.resume,
        label=f"{run.method.name} {config['fraction']:g} seed {run.seed}: training {config['test_model']}",
    )
    seconds["train"] = history.seconds
    record = {
        "dataset": config["dataset"],
        "selection_model": settings.model,
        "test_model": config["test_model"],
        "selection": run.method.name,
        "fraction": config["fraction"],
        "seed": run.seed,
        "test_accuracy": history.tests[-1][1],
        "best_test_accuracy": max(value for _, value in history.tests),
        "test_interval": settings.test_interval,
        "subset_size": len(subset),
        "cost": subset.cost,
        "train_accuracy": history.train_accuracy,
        "tests": history.tests,
        "selection_network": network_facts,
        "indices": path.with_suffix(".npz").name,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "config": config,
        "environment": bench.environment,
    }
    subset.save(path.with_suffix(".npz"))
    records.write_record(path, record)  # last: a record means that the run is complete
    checkpoint.unlink(missing_ok=True)
    return record


def _select(bench: Bench, run: Run, signals: Signals, options: dict[str, object]) -> Subset:
    """Return the subset with indices into the whole training set, validation samples counted."""
    subset = select_with(
        run.method,
        signals,
        fraction=run.fraction,
        budget=run.budget,
        balanced=bench.settings.balance,
        seed=run.seed,
        **options,
    )
    positions, _ = _part(bench, run.seed)
    return replace(subset, indices=positions.numpy()[subset.indices])


def _signals(bench: Bench, run: Run) -> tuple[Signals, dict[str, float], dict | None]:
    """Return the signals that the method needs, the seconds they once took, and facts about their network."""
    _, split = _part(bench, run.seed)
    if not run.method.needs:
        return Signals(labels=split.labels), {"pretrain": 0.0, "signals": 0.0}, None
    config = _network_configuration(bench, run.seed)
    path = bench.settings.cache_path / "signals" / f"{_key(bench, config, run.seed)}.pt"
    kept = _cached(path)
    if kept is None:
        network, facts, seconds = _selection_network(bench, run.seed, config)
        started = time.monotonic()
        # float32: bfloat16 would change picks.
        taken = take_signals(network, split, replace(bench.compute, precision=torch.float32))
        train_accuracy = 100 * float((taken.logits.argmax(1) == taken.labels).float().mean())
        kept = {
            "features": taken.features.cpu(),
            "logits": taken.logits.cpu(),
            "facts": {**facts, "train_accuracy": round(train_accuracy, 2)},
            "seconds": {"pretrain": seconds, "signals": time.monotonic() - started},
        }
        save_tensors(path, kept)
    # Selection computes in float64, which MPS lacks.
    device = torch.device("cpu") if split.labels.device.type == "mps" else split.labels.device
    signals = Signals(kept["features"].to(device), kept["logits"].to(device), split.labels.to(device))
    return signals, dict(kept["seconds"]), kept["facts"]


def _selection_network(bench: Bench, seed: int, config: dict) -> tuple[nn.Module, dict, float]:
    """Return the network that selects, facts for the record, and the seconds its pretraining took."""
    settings = bench.settings
    network = bench.fresh_network(settings.model, seed, "pretrain")
    if settings.pretrained is not None:
        load_weights(network, settings.pretrained)
        return network, {"given": settings.pretrained.name, "sha256": bench.pretrained_hash}, 0.0
    key = _key(bench, config, seed)
    path = settings.cache_path / "networks" / f"{key}.pt"
    kept = _cached(path)
    if kept is not None:
        network.load_state_dict(kept["state"])
        return network, kept["facts"], kept["seconds"]
    checkpoint = _checkpoint(settings, key)
    history = train(
        network,
        _part(bench, seed)[1],
        settings.selection_recipe,
        bench.compute,
        seed=seeds.derive(seed, "pretrain"),
        test=_test_split(bench, settings.selection_test_fraction) if settings.selection_test_interval else None,
        test_interval=settings.selection_test_interval,
        record_dynamics=True,
        checkpoint=checkpoint,
        checkpoint_seconds=settings.checkpoint_seconds,
        resume=settings.resume,
        label=f"pretraining {settings.model}, seed {seed}",
    )
    facts = {"given": None, "tests": history.tests}
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    dynamics = {name: value.cpu() for name, value in history.dynamics.items()}
    save_tensors(path, {"state": state, "dynamics": dynamics, "facts": facts, "seconds": history.seconds})
    checkpoint.unlink(missing_ok=True)
    return network, facts, history.seconds


def _cached(path: Path) -> dict | None:
    """Return what a cache file holds, or None if there is none or it is damaged; then it is made anew."""
    try:
        return load_tensors(path) if path.exists() else None
    except UserError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=2)
        return None


def _network_configuration(bench: Bench, seed: int) -> dict[str, object]:
    """Return what determines the network that selects: a given file, or a recipe and the seed."""
    settings = bench.settings
    if settings.pretrained is not None:
        return {"model": settings.model, "pretrained_sha256": bench.pretrained_hash}
    return {"model": settings.model, "seed": seed, **asdict(settings.selection_recipe)}


def _key(bench: Bench, config: dict, seed: int) -> str:
    settings, ratio = bench.settings, bench.settings.val_ratio
    tested = settings.selection_test_interval and (settings.selection_test_interval, settings.selection_test_fraction)
    return records.config_hash(
        {
            "format": CACHE_FORMAT,
            "dataset": bench.fingerprint,
            "normalisation": (bench.dataset.mean, bench.dataset.std),
            "validation": None if ratio is None else (ratio, seed),
            # A given network is not trained here, and signals are always taken in float32.
            "training": None if settings.pretrained else (str(bench.compute.precision), tested),
            "network": config,
        }
    )


@functools.lru_cache(maxsize=2)
def _part(bench: Bench, seed: int) -> tuple[torch.Tensor, Split]:
    """Return the positions and the split that is left of the training set when validation samples are held out."""
    split, ratio = bench.dataset.train, bench.settings.val_ratio
    if ratio is None:
        return torch.arange(len(split)), split
    keep, _ = held_out(split.labels, ratio, seed)
    return keep, split.take(keep)


def _test_split(bench: Bench, fraction: float) -> Split:
    test = bench.dataset.test
    if fraction >= 1:
        return test
    order = torch.randperm(len(test), generator=seeds.generator(0, "test fraction"))
    return test.take(order[: max(1, round(fraction * len(test)))].sort().values)


def _checkpoint(settings: Settings, key: str) -> Path:
    given = settings.resume_from
    if given is not None and given.is_dir():
        return given / f"{key}.pt"
    if given is not None and given.stem == key:
        return given
    return settings.cache_path / "checkpoints" / f"{key}.pt"
