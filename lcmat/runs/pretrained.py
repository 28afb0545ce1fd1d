"""What a method reads, provided: pretrained networks, their signals and dynamics, orders of all samples, a context.

What several runs share is kept in a cache folder under a hash of everything that determines it. Of several processes
one makes it, under a lock of the operating system, and the others wait.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lcmat import records, seeds
from lcmat.files import save_tensors
from lcmat.runs.cache import cached, is_locked, lock_of
from lcmat.runs.job import Run
from lcmat.runs.setup import Bench, Settings
from lcmat.selection.context import Context
from lcmat.selection.select import select_with
from lcmat.selection.subset import Subset
from lcmat.signals.networks import load_weights, take_signals
from lcmat.signals.signals import Signals
from lcmat.training import History, Recipe, train

# Part of every cache key: raise it when the meaning of a cached file changes.
CACHE_FORMAT = 1
# What a method may need that comes from the pretrained network.
OF_THE_NETWORK = frozenset({"features", "logits", "dynamics", "validation", "network"})


@dataclass(frozen=True)
class Selector:
    """A network that signals come from: the selection network of a seed, or one of several other initialisations."""

    seed: int
    ratio: float | None  # of the training set held out for validation
    initialisation: int | None = None


def selection_configuration(bench: Bench, run: Run) -> dict[str, object] | None:
    """Return what determines the networks that the method reads, or None if it reads none."""
    settings = bench.settings
    config: dict[str, object] = {}
    if run.needs & OF_THE_NETWORK:
        config |= network_configuration(bench, _selector(bench, run))
    if "initialisations" in run.needs:
        recipe = asdict(_initialisation_recipe(settings))
        config["initialisations"] = {"model": settings.model, "count": settings.initialisations, **recipe}
    if "training" in run.needs:  # for how long is the method's own option
        recipe = asdict(settings.selection_recipe)
        model = settings.inner_model or settings.model
        how = {k: v for k, v in recipe.items() if k != "epochs"} if "training.recipe" in run.method.needs else {}
        config["training"] = {"model": model, **how}
    return config or None


def signals_of(bench: Bench, run: Run) -> tuple[Signals, dict[str, float], dict | None]:
    """Return just the signals that the method needs, the seconds they once took, and facts about their network."""
    _, split = bench.part(run)
    device = _float64_device(split.labels.device)
    labels, selector = split.labels.to(device), _selector(bench, run)
    fields: dict[str, object] = {}
    taken = []
    if run.needs & {"features", "logits"}:
        taken.append(_taken(bench, selector))
        fields |= {name: taken[-1][name].to(device) for name in ("features", "logits") if name in run.needs}
        fields["bias"] = taken[-1].get("bias", True)
    if "validation" in run.needs:
        taken.append(_taken(bench, selector, validation=True))
        fields["validation"] = _as_signals(taken[-1], bench.split(run.seed, bench.ratio(run))[2].labels.to(device))
    if "initialisations" in run.needs:
        several = [_taken(bench, selector) for selector in _initialisations(bench, run)]
        fields["initialisations"] = [_as_signals(one, labels) for one in several]
        taken += several
    seconds = {name: sum(one["seconds"][name] for one in taken) for name in ("pretrain", "signals")}
    if "validation" in run.needs:  # both passes are over one network
        seconds["pretrain"] = taken[0]["seconds"]["pretrain"]
    facts = taken[0]["facts"] if taken else None
    if run.needs & {"dynamics", "network"}:
        _, facts, seconds["pretrain"], dynamics = _selection_network(bench, selector)
        fields |= {"dynamics": dynamics} if "dynamics" in run.needs else {}
    return Signals(labels=labels, **fields), seconds, facts


def context_of(bench: Bench, run: Run, key: str, log: Path | None = None) -> Context:
    """Return the images and networks for a method that needs more than signals. Nothing in it leads to test images."""
    settings = bench.settings
    blind = replace(bench, dataset=replace(bench.dataset, test=bench.dataset.train))
    inner, seed = settings.inner_model or settings.model, run.seed
    network = _selection_network(bench, _selector(bench, run))[0] if "network" in run.needs else None
    return Context(
        split=bench.part(run)[1],
        compute=bench.compute,
        network=network,
        fresh_network=lambda number: blind.fresh_network(inner, seed, "inner", number),
        recipe=settings.selection_recipe,
        checkpoint=bench.checkpoint(key),
        log=log,
        resume=settings.resume,
    )


def network_of(bench: Bench, seed: int) -> nn.Module:
    """Return f_T of a seed, on the device."""
    return _selection_network(bench, Selector(seed, None))[0].to(bench.compute.device)


def signals_of_network(bench: Bench, seed: int) -> Signals:
    """Return the signals of f_T of a seed on the whole training set, whatever a method needs of them."""
    labels = bench.dataset.train.labels
    return _as_signals(_taken(bench, Selector(seed, None)), labels.to(_float64_device(labels.device)))


def facts_of_network(bench: Bench, seed: int) -> dict[str, object]:
    """Return what a record says of f_T of a seed."""
    return _taken(bench, Selector(seed, None))["facts"]


def _float64_device(device: torch.device) -> torch.device:
    """Return where to compute in float64, as selection does: MPS lacks it."""
    return torch.device("cpu") if device.type == "mps" else device


def order_of(
    bench: Bench, run: Run, signals: Signals, how: dict[str, object], means: dict[str, object]
) -> tuple[Subset, float]:
    """Return the method's order of all samples and the seconds it once took, from the cache.

    `how` are arguments of select_with that determine the order, `means` are further ones that do not.
    """
    key = {"network": cache_key(bench, _selector(bench, run)), "selection": run.method.name, **how}
    path = bench.settings.cache_path / "orders" / f"{records.config_hash(key)}.pt"
    with lock_of(path):
        kept = cached(path)
        if kept is not None:
            values = {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in kept["subset"].items()}
            return Subset(**values), kept["seconds"]
        started = time.monotonic()
        subset = select_with(run.method, signals, fraction=1.0, **how, **means)
        seconds = time.monotonic() - started
        values = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in vars(subset).items()}
        save_tensors(path, {"subset": values, "seconds": seconds})
        return subset, seconds


def selectors(bench: Bench, run: Run) -> list[Selector]:
    """Return all networks that the method reads signals of."""
    own = [_selector(bench, run)] if run.needs & OF_THE_NETWORK else []
    return own + (_initialisations(bench, run) if "initialisations" in run.needs else [])


def cache_key(bench: Bench, selector: Selector) -> str:
    """Return a hash of all that determines the network and its signals: their name in the cache."""
    settings, ratio = bench.settings, selector.ratio
    tested = settings.selection_test_interval and (settings.selection_test_interval, settings.selection_test_fraction)
    given = settings.pretrained is not None and selector.initialisation is None
    return records.config_hash(
        {
            "format": CACHE_FORMAT,
            "dataset": bench.fingerprint,
            "normalisation": (bench.dataset.mean, bench.dataset.std),
            "validation": None if ratio is None else (ratio, selector.seed),
            # A given network is not trained here, and signals are always taken in float32.
            "training": None if given else (str(bench.compute.precision), tested),
            "network": network_configuration(bench, selector),
        }
    )


def _as_signals(kept: dict, labels: torch.Tensor) -> Signals:
    return Signals(
        kept["features"].to(labels.device), kept["logits"].to(labels.device), labels, bias=kept.get("bias", True)
    )


def is_taken(bench: Bench, selector: Selector) -> bool:
    """Tell whether the network's signals are in the cache already."""
    return _signals_path(bench, selector).exists()


def in_the_making(bench: Bench, run: Run) -> bool:
    """Tell whether another process is making a network or signals that the run needs."""
    return any(is_locked(path) for selector in selectors(bench, run) for path in _paths(bench, selector))


def _paths(bench: Bench, selector: Selector) -> list[Path]:
    network = bench.settings.cache_path / "networks" / f"{cache_key(bench, selector)}.pt"
    return [_signals_path(bench, selector), _signals_path(bench, selector, validation=True), network]


def _signals_path(bench: Bench, selector: Selector, validation: bool = False) -> Path:
    name = f"{cache_key(bench, selector)}{'-validation' * validation}.pt"
    return bench.settings.cache_path / "signals" / name


def _taken(bench: Bench, selector: Selector, validation: bool = False) -> dict:
    """Return features and logits of the training or the validation split, with facts and seconds, from the cache."""
    path = _signals_path(bench, selector, validation)
    with lock_of(path):
        kept = cached(path)
        if kept is None:
            kept = _take(bench, selector, validation)
            save_tensors(path, kept)
            bench.checkpoint(cache_key(bench, selector)).unlink(missing_ok=True)
        return kept


def _take(bench: Bench, selector: Selector, validation: bool) -> dict:
    """Take the signals of a split, with a network that is trained if it is not in the cache."""
    network, facts, seconds, _ = _selection_network(bench, selector)
    started = time.monotonic()
    split = bench.split(selector.seed, selector.ratio)[2 if validation else 1]
    # float32: bfloat16 would change picks.
    taken = take_signals(network, split, replace(bench.compute, precision=torch.float32))
    train_accuracy = 100 * float((taken.logits.argmax(1) == taken.labels).float().mean())
    return {
        "features": taken.features.cpu(),
        "logits": taken.logits.cpu(),
        "bias": taken.bias,
        "facts": {**facts, "train_accuracy": round(train_accuracy, 2)},
        "seconds": {"pretrain": seconds, "signals": time.monotonic() - started},
    }


def _selection_network(bench: Bench, selector: Selector) -> tuple[nn.Module, dict, float, dict | None]:
    """Return a network to take signals from, facts for the record, the seconds its training took, and its dynamics."""
    settings, number = bench.settings, selector.initialisation
    network = bench.fresh_network(settings.model, selector.seed, _purpose(selector))
    if settings.pretrained is not None and number is None:
        load_weights(network, settings.pretrained)
        return network, {"given": settings.pretrained.name, "sha256": bench.pretrained_hash}, 0.0, None
    key = cache_key(bench, selector)
    path = settings.cache_path / "networks" / f"{key}.pt"
    with lock_of(path):
        kept = cached(path)
        if kept is not None:
            network.load_state_dict(kept["state"])
            bench.checkpoint(key).unlink(missing_ok=True)  # of a process that died between the two
            return network, kept["facts"], kept["seconds"], kept["dynamics"]
        history = _pretrain(bench, selector, network, bench.checkpoint(key))
        facts = {"given": None, "tests": history.tests}
        if number is not None:  # only its signals are kept: ten networks for each seed would fill disks
            return network, facts, history.seconds, None
        state = {name: value.cpu() for name, value in network.state_dict().items()}
        dynamics = {name: value.cpu() for name, value in history.dynamics.items()}
        save_tensors(path, {"state": state, "dynamics": dynamics, "facts": facts, "seconds": history.seconds})
        bench.checkpoint(key).unlink(missing_ok=True)
        return network, facts, history.seconds, dynamics


def _purpose(selector: Selector) -> str:
    return "pretrain" if selector.initialisation is None else f"initialisation {selector.initialisation}"


def _pretrain(bench: Bench, selector: Selector, network: nn.Module, checkpoint: Path) -> History:
    """Train a network to take signals from, in place."""
    settings, first = bench.settings, selector.initialisation is None
    return train(
        network,
        bench.split(selector.seed, selector.ratio)[1],
        settings.selection_recipe if first else _initialisation_recipe(settings),
        bench.compute,
        seed=seeds.derive(selector.seed, _purpose(selector)),
        test=bench.test_split(settings.selection_test_fraction) if settings.selection_test_interval else None,
        test_interval=settings.selection_test_interval,
        record_dynamics=first,
        checkpoint=checkpoint,
        checkpoint_seconds=settings.checkpoint_seconds,
        resume=settings.resume,
        label=f"{_purpose(selector)}{'ing' * first} {settings.model}, seed {selector.seed}",
    )


def _selector(bench: Bench, run: Run) -> Selector:
    return Selector(run.seed, bench.ratio(run))


def _initialisations(bench: Bench, run: Run) -> list[Selector]:
    """Return the networks of several initialisations; the pretrained network is the first of them if it is one."""
    settings, first = bench.settings, _selector(bench, run)
    same = settings.pretrained is None and _initialisation_recipe(settings) == settings.selection_recipe
    numbers = [None if same and number == 0 else number for number in range(settings.initialisations)]
    return [replace(first, initialisation=number) for number in numbers]


def _initialisation_recipe(settings: Settings) -> Recipe:
    epochs = settings.initialisation_epochs
    return replace(settings.selection_recipe, epochs=epochs or settings.selection_recipe.epochs)


def network_configuration(bench: Bench, selector: Selector) -> dict[str, object]:
    """Return what determines a network that signals come from: a given file, or a recipe and the seed."""
    settings, number = bench.settings, selector.initialisation
    if number is not None:
        recipe = asdict(_initialisation_recipe(settings))
        return {"model": settings.model, "seed": selector.seed, "initialisation": number, **recipe}
    if settings.pretrained is not None:
        return {"model": settings.model, "pretrained_sha256": bench.pretrained_hash}
    return {"model": settings.model, "seed": selector.seed, **asdict(settings.selection_recipe)}
