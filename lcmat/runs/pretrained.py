"""The proxy network f_T and what it gives a method: signals, dynamics, orders of all samples, a context.

What several runs share is kept in a cache folder under a hash of everything that determines it. Of several processes
one makes it, under a lock of the operating system, and the others wait.
"""

from __future__ import annotations

import functools
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lcmat import records, seeds
from lcmat.errors import UserError
from lcmat.expected import Expected, array, fields, like, of, optional, real
from lcmat.files import save_tensors
from lcmat.records.keys import FORMATS
from lcmat.runs.cache import cached, held_lock, lock_of
from lcmat.runs.job import Run
from lcmat.runs.setup import Settings, Setup
from lcmat.selection import Context, Subset, select_with
from lcmat.selection.subset import STORED as SUBSET
from lcmat.signals import Signals, Taking, load_weights, take_signals
from lcmat.signals.released import batch_scale, take_in_training_mode
from lcmat.signals.signals import DYNAMICS
from lcmat.training import Checkpoint, Recipe, Watch, train
from lcmat.training.history import TESTS, History

# What a method may need that comes from the pretrained network.
OF_THE_NETWORK = frozenset({"features", "logits", "dynamics", "validation", "network"})
# What of that is signals, which may be taken in several ways.
TAKEN = frozenset({"features", "logits", "validation", "initialisations"})


_FACTS = fields({"given": optional(of(str))}, {"tests": TESTS, "train_accuracy": real(0, 100), "sha256": of(str)})


def _of_signals(samples: int, head: tuple[int, int]) -> Expected:
    """Expect what the cache keeps of a pass over so many samples; head: outputs and inputs of the last layer."""
    arrays = {"features": array(samples, head[1]), "logits": array(samples, head[0])}
    seconds = fields({"pretrain": real(0), "signals": real(0)})
    return fields(arrays | {"facts": _FACTS, "seconds": seconds}, {"bias": of(bool)})


def _of_network(network: nn.Module, samples: int) -> Expected:
    """Expect what the cache keeps of a network trained on so many samples; earlier code kept fewer dynamics."""
    dynamics = fields({}, {name: array(None, samples, kinds="fb") for name in DYNAMICS})
    state = like(network.state_dict())
    return fields({"state": state, "dynamics": dynamics, "facts": _FACTS, "seconds": real(0)})


@dataclass(frozen=True)
class NetworkId:
    """Which network signals come from, and how: f_T of a seed, or one of several other initialisations."""

    seed: int
    ratio: float | None  # of the training set held out for validation
    initialisation: int | None = None
    taking: Taking = field(default_factory=Taking)


def selection_configuration(setup: Setup, run: Run) -> dict[str, object] | None:
    """Return what determines the networks that the method reads, or None if it reads none."""
    settings = setup.settings
    config: dict[str, object] = {}
    if run.needs & OF_THE_NETWORK:
        config |= network_configuration(setup, _network_id(setup, run))
    if "initialisations" in run.needs:
        recipe = _initialisation_recipe(settings).described
        network = {"model": settings.model, **setup.revised(settings.model)}
        config["initialisations"] = {**network, "count": settings.initialisations, **recipe}
    if "training" in run.needs:  # for how long is the method's own option
        recipe = settings.selection_recipe.described
        model = settings.inner_model or settings.model
        how = {k: v for k, v in recipe.items() if k != "epochs"} if "training.recipe" in run.method.needs else {}
        config["training"] = {"model": model, **setup.revised(model), **how}
    if run.needs & TAKEN:
        config |= run.taking.described
    return config or None


def signals_of(setup: Setup, run: Run) -> tuple[Signals, dict[str, float], dict | None]:
    """Return just the signals that the method needs, the seconds they once took, and facts about their network."""
    _, split = setup.part(run)
    device = _float64_device(split.labels.device)
    labels, network_id = split.labels.to(device), _network_id(setup, run)
    fields: dict[str, object] = {}
    taken = []
    if run.needs & {"features", "logits"}:
        taken.append(_taken(setup, network_id))
        fields |= {name: taken[-1][name].to(device) for name in ("features", "logits") if name in run.needs}
        fields["bias"] = taken[-1].get("bias", True)
    if "validation" in run.needs:
        taken.append(_taken(setup, network_id, validation=True))
        held_out = setup.split(run.seed, setup.ratio(run))[2].labels.to(device)
        fields["validation"] = replace(_as_signals(taken[-1], held_out), scale=_scale(run, held_out))
    if "initialisations" in run.needs:
        several = [_taken(setup, network_id) for network_id in _initialisations(setup, run)]
        scale = _scale(run, labels, by_class=False)
        fields["initialisations"] = [replace(_as_signals(one, labels), scale=scale) for one in several]
        taken += several
    seconds = {name: sum(one["seconds"][name] for one in taken) for name in ("pretrain", "signals")}
    if "validation" in run.needs:  # both passes are over one network
        seconds["pretrain"] = taken[0]["seconds"]["pretrain"]
    facts = taken[0]["facts"] if taken else None
    if run.needs & {"dynamics", "network"}:
        entries = frozenset(need.partition(".")[2] for need in run.method.needs if need.startswith("dynamics."))
        _, facts, seconds["pretrain"], dynamics = _selection_network(setup, network_id, entries)
        fields |= {"dynamics": dynamics} if "dynamics" in run.needs else {}
    return Signals(labels=labels, scale=_scale(run, labels), **fields), seconds, facts


def _scale(run: Run, labels: torch.Tensor, by_class: bool = True) -> torch.Tensor | None:
    return None if run.taking.scale == "sample" else batch_scale(labels, run.taking.batch, by_class)


def context_of(setup: Setup, run: Run, key: str, log: Path | None = None) -> Context:
    """Return the images and networks for a method that needs more than signals. Nothing in it leads to test images."""
    settings = setup.settings
    blind = replace(setup, dataset=replace(setup.dataset, test=setup.dataset.train))
    inner, seed = settings.inner_model or settings.model, run.seed
    network = _selection_network(setup, _network_id(setup, run))[0] if "network" in run.needs else None
    return Context(
        split=setup.part(run)[1],
        compute=setup.compute,
        network=network,
        fresh_network=lambda number: blind.fresh_network(inner, seed, "inner", number),
        recipe=settings.selection_recipe,
        checkpoint=setup.checkpoint(key),
        log=log,
        resume=settings.resume,
    )


def network_of(setup: Setup, seed: int) -> nn.Module:
    """Return f_T of a seed, on the device."""
    return _selection_network(setup, NetworkId(seed, None))[0].to(setup.compute.device)


def signals_of_network(setup: Setup, seed: int) -> Signals:
    """Return the signals of f_T of a seed on the whole training set, whatever a method needs of them."""
    labels = setup.dataset.train.labels
    return _as_signals(_taken(setup, NetworkId(seed, None)), labels.to(_float64_device(labels.device)))


def facts_of_network(setup: Setup, seed: int) -> dict[str, object]:
    """Return what a record says of f_T of a seed."""
    return _taken(setup, NetworkId(seed, None))["facts"]


def _float64_device(device: torch.device) -> torch.device:
    """Return where to compute in float64, as selection does: MPS lacks it."""
    return torch.device("cpu") if device.type == "mps" else device


def order_of(
    setup: Setup, run: Run, signals: Signals, determining: dict[str, object], incidental: dict[str, object]
) -> tuple[Subset, float]:
    """Return the method's order of all samples and the seconds it once took, from the cache.

    determining: arguments of select_with that determine the order; incidental: further ones that do not.
    """
    taken = run.taking.described if run.needs & TAKEN else {}
    key = {"network": cache_key(setup, _network_id(setup, run)), "selection": run.method.name, **determining, **taken}
    path = setup.settings.cache_path / "orders" / f"{records.config_hash(key)}.pt"
    with lock_of(path):
        kept = cached(path, fields({"subset": SUBSET, "seconds": real(0)}))
        if kept is not None:
            values = {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in kept["subset"].items()}
            return Subset(**values), kept["seconds"]
        started = time.monotonic()
        subset = select_with(run.method, signals, fraction=1.0, **determining, **incidental)
        seconds = time.monotonic() - started
        values = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in vars(subset).items()}
        save_tensors(path, {"subset": values, "seconds": seconds})
        return subset, seconds


def network_ids(setup: Setup, run: Run) -> list[NetworkId]:
    """Return all networks that the method reads signals of."""
    own = [_network_id(setup, run)] if run.needs & OF_THE_NETWORK else []
    return own + (_initialisations(setup, run) if "initialisations" in run.needs else [])


def cache_key(setup: Setup, network_id: NetworkId) -> str:
    """Return a hash of all that determines the network and its signals: their name in the cache."""
    settings, ratio = setup.settings, network_id.ratio
    tested = settings.selection_test_interval and (settings.selection_test_interval, settings.selection_test_fraction)
    given = settings.pretrained is not None and network_id.initialisation is None
    return records.config_hash(
        {
            "format": FORMATS["signals"],
            "dataset": setup.fingerprint,
            "normalisation": (setup.dataset.mean, setup.dataset.std),
            "validation": None if ratio is None else (ratio, network_id.seed),
            # A given network is not trained here, and signals are always taken in float32.
            "training": None if given else (str(setup.compute.precision), tested),
            "network": network_configuration(setup, network_id),
        }
    )


def _as_signals(kept: dict, labels: torch.Tensor) -> Signals:
    return Signals(
        kept["features"].to(labels.device), kept["logits"].to(labels.device), labels, bias=kept.get("bias", True)
    )


def check(setup: Setup, run: Run) -> None:
    """Raise UserError if the network that is given cannot serve the run."""
    settings = setup.settings
    if settings.pretrained is None:
        return
    if "dynamics" in run.needs:
        raise UserError(
            f"{run.method.name} needs the dynamics of pretraining, which --pretrained weights do not hold; leave "
            f"--pretrained out, or the method"
        )
    if run.needs & OF_THE_NETWORK:
        _check_given(setup)


@functools.lru_cache(maxsize=1)
def _check_given(setup: Setup) -> None:
    """Raise UserError if the given weights do not fit the network; once for all runs of a command."""
    load_weights(setup.fresh_network(setup.settings.model, "shape"), setup.settings.pretrained)


def checkpoints(setup: Setup, run: Run) -> frozenset[str]:
    """Return the names of the checkpoints of all networks that the method reads."""
    return frozenset(cache_key(setup, network_id) for network_id in network_ids(setup, run))


def is_taken(setup: Setup, network_id: NetworkId) -> bool:
    """Tell whether the network's signals are in the cache already, or it is itself."""
    return any(path.exists() for path in _paths(setup, network_id))


def busy(setup: Setup, run: Run) -> Path | None:
    """Return the lock that another process holds which is making a network or signals that the run needs, or None."""
    return held_lock(path for network_id in network_ids(setup, run) for path in _paths(setup, network_id))


def _paths(setup: Setup, network_id: NetworkId) -> list[Path]:
    network = setup.settings.cache_path / "networks" / f"{cache_key(setup, network_id)}.pt"
    return [_signals_path(setup, network_id), _signals_path(setup, network_id, validation=True), network]


def _signals_path(setup: Setup, network_id: NetworkId, validation: bool = False) -> Path:
    name = f"{cache_key(setup, network_id)}{network_id.taking.suffix}{'-validation' * validation}.pt"
    return setup.settings.cache_path / "signals" / name


def _taken(setup: Setup, network_id: NetworkId, validation: bool = False) -> dict:
    """Return features and logits of the training or the validation split, with facts and seconds, from the cache."""
    path = _signals_path(setup, network_id, validation)
    samples = len(setup.split(network_id.seed, network_id.ratio)[2 if validation else 1])
    with lock_of(path):
        kept = cached(path, _of_signals(samples, setup.head_size))
        if kept is None:
            kept = _take(setup, network_id, validation)
            save_tensors(path, kept)
            setup.checkpoint(cache_key(setup, network_id)).unlink(missing_ok=True)
        return kept


def _take(setup: Setup, network_id: NetworkId, validation: bool) -> dict:
    """Take the signals of a split, with a network that is trained if it is not in the cache."""
    network, facts, seconds, _ = _selection_network(setup, network_id)
    started = time.monotonic()
    split = setup.split(network_id.seed, network_id.ratio)[2 if validation else 1]
    compute = replace(setup.compute, precision=torch.float32)  # bfloat16 would change picks
    taken = (
        take_signals(network, split, compute)
        if network_id.taking.mode == "eval"
        else take_in_training_mode(network, split, compute, network_id.taking.batch)
    )
    train_accuracy = 100 * float((taken.logits.argmax(1) == taken.labels).float().mean())
    return {
        "features": taken.features.cpu(),
        "logits": taken.logits.cpu(),
        "bias": taken.bias,
        "facts": {**facts, "train_accuracy": round(train_accuracy, 2)},
        "seconds": {"pretrain": seconds, "signals": time.monotonic() - started},
    }


def _selection_network(
    setup: Setup, network_id: NetworkId, entries: frozenset[str] = frozenset()
) -> tuple[nn.Module, dict, float, dict | None]:
    """Return a network to take signals from, facts for the record, the seconds its training took, and its dynamics.

    entries: of the dynamics that are wanted; a network kept by earlier code, which lacks one, is trained anew.
    """
    settings, number = setup.settings, network_id.initialisation
    network = setup.fresh_network(settings.model, network_id.seed, _purpose(network_id))
    if settings.pretrained is not None and number is None:
        load_weights(network, settings.pretrained)
        return network, {"given": settings.pretrained.name, "sha256": setup.pretrained_hash}, 0.0, None
    key = cache_key(setup, network_id)
    path = settings.cache_path / "networks" / f"{key}.pt"
    samples = len(setup.split(network_id.seed, network_id.ratio)[1])
    with lock_of(path):
        kept = cached(path, _of_network(network, samples))
        lacking = [] if kept is None else sorted(entries - kept["dynamics"].keys())
        if lacking:
            warnings.warn(f"the cached network was kept without its {lacking[0]}; it is trained anew", stacklevel=2)
        elif kept is not None:
            network.load_state_dict(kept["state"])
            setup.checkpoint(key).unlink(missing_ok=True)  # of a process that died between the two
            return network, kept["facts"], kept["seconds"], kept["dynamics"]
        history = _pretrain(setup, network_id, network, setup.training_checkpoint(key))
        facts = {"given": None, "tests": history.tests}
        if number is not None:  # only its signals are kept: ten networks for each seed would fill disks
            return network, facts, history.seconds, None
        state = {name: value.cpu() for name, value in network.state_dict().items()}
        dynamics = {name: value.cpu() for name, value in history.dynamics.items()}
        save_tensors(path, {"state": state, "dynamics": dynamics, "facts": facts, "seconds": history.seconds})
        setup.checkpoint(key).unlink(missing_ok=True)
        return network, facts, history.seconds, dynamics


def _purpose(network_id: NetworkId) -> str:
    return "pretrain" if network_id.initialisation is None else f"initialisation {network_id.initialisation}"


def _pretrain(setup: Setup, network_id: NetworkId, network: nn.Module, checkpoint: Checkpoint) -> History:
    """Train a network to take signals from, in place."""
    settings, first = setup.settings, network_id.initialisation is None
    watch = Watch(
        test=setup.test_split(settings.selection_test_fraction) if settings.selection_test_interval else None,
        interval=settings.selection_test_interval,
        dynamics=first,
        label=f"{_purpose(network_id)}{'ing' * first} {settings.model}, seed {network_id.seed}",
    )
    return train(
        network,
        setup.split(network_id.seed, network_id.ratio)[1],
        settings.selection_recipe if first else _initialisation_recipe(settings),
        setup.compute,
        seed=seeds.derive(network_id.seed, _purpose(network_id)),
        watch=watch,
        checkpoint=checkpoint,
    )


def _network_id(setup: Setup, run: Run) -> NetworkId:
    return NetworkId(run.seed, setup.ratio(run), taking=run.taking)


def _initialisations(setup: Setup, run: Run) -> list[NetworkId]:
    """Return the networks of several initialisations; the pretrained network is the first of them if it is one."""
    settings, first = setup.settings, _network_id(setup, run)
    same = settings.pretrained is None and _initialisation_recipe(settings) == settings.selection_recipe
    numbers = [None if same and number == 0 else number for number in range(settings.initialisations)]
    return [replace(first, initialisation=number) for number in numbers]


def _initialisation_recipe(settings: Settings) -> Recipe:
    epochs = settings.initialisation_epochs
    return replace(settings.selection_recipe, epochs=epochs or settings.selection_recipe.epochs)


def network_configuration(setup: Setup, network_id: NetworkId) -> dict[str, object]:
    """Return what determines a network that signals come from: a given file, or a recipe and the seed."""
    settings, number = setup.settings, network_id.initialisation
    network = {"model": settings.model, **setup.revised(settings.model)}
    if number is not None:
        recipe = _initialisation_recipe(settings).described
        return {**network, "seed": network_id.seed, "initialisation": number, **recipe}
    if settings.pretrained is not None:
        return {**network, "pretrained_sha256": setup.pretrained_hash}
    return {**network, "seed": network_id.seed, **settings.selection_recipe.described}
