"""One run of the main job: pretrain, take signals, select, train a fresh network on the subset, record.

Methods and the network factory are passed in.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lcmat import records
from lcmat.errors import UserError, suggest
from lcmat.files import check_writable
from lcmat.runs import condensation as condensation_run
from lcmat.runs import continual
from lcmat.runs import pretrained as provision
from lcmat.runs.evaluation import evaluate, forget
from lcmat.runs.job import Run
from lcmat.runs.pretrained import (
    OF_THE_NETWORK,
    cache_key,
    context_of,
    order_of,
    selection_configuration,
    selectors,
    signals_of,
)
from lcmat.runs.setup import Bench, Settings
from lcmat.selection.budgets import class_budgets
from lcmat.selection.context import Context
from lcmat.selection.method import Method
from lcmat.selection.select import select_with
from lcmat.selection.subset import Subset
from lcmat.signals.networks import load_weights
from lcmat.signals.signals import Signals


def configuration(bench: Bench, run: Run) -> dict[str, object]:
    """Return all that determines the run's result, and nothing else: its hash is the run's name.

    A method that reads no signals does not depend on the selection network, so that is left out of its configuration.
    """
    settings, dataset = bench.settings, bench.dataset
    if condensation_run.is_condensation(run):
        config = condensation_run.configuration(bench, run, options_of(settings, run.method))
        return config | continual.extra(settings)
    training_size = len(bench.part(run)[0])
    fraction = 1.0 if run.method.everything else run.fraction
    head_size = bench.head_size if run.needs else (0, 0)
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": bench.fingerprint,
        **dataset.variant,
        "image_size": dataset.image_shape[1],
        "validation_ratio": bench.ratio(run),
        "selection": run.method.name,
        "fraction": run.budget / training_size if fraction is None else fraction,
        "budget": None if run.method.everything else run.budget,
        **_evenness(bench, run),
        "balance": settings.balance,
        "options": run.method.resolved(*head_size, options_of(settings, run.method)),
        "selection_network": selection_configuration(bench, run),
        "test_model": run.test_model or settings.model,
        "training": asdict(settings.recipe),
        "test_interval": settings.test_interval,
        "test_fraction": settings.test_fraction,
        "precision": str(bench.compute.precision).removeprefix("torch."),
        "seed": run.seed,
        **condensation_run.evaluations_of(settings),
        **continual.extra(settings),
    }


def size_of(bench: Bench, run: Run) -> dict[str, object]:
    """Return the fraction or budget of a selection as `select_with` takes it: class by class for --ipc."""
    if run.fraction is not None:
        return {"fraction": run.fraction}
    if run.per_class is None or not bench.settings.balance:
        return {"budget": run.budget}
    counts = torch.bincount(bench.part(run)[1].labels.cpu(), minlength=bench.dataset.num_classes)
    return {"budget": [run.per_class * int(count > 0) for count in counts]}  # an empty class has nothing to choose


def _evenness(bench: Bench, run: Run) -> dict[str, int]:
    """Return what a configuration says of --ipc: nothing where sharing in proportion comes to the same."""
    size = size_of(bench, run)
    if run.method.everything or not isinstance(size.get("budget"), list):
        return {}
    counts = torch.bincount(bench.part(run)[1].labels.cpu(), minlength=bench.dataset.num_classes).numpy()
    same = run.budget <= counts.sum() and class_budgets(counts, budget=run.budget).tolist() == size["budget"]
    return {} if same else {"per_class": run.per_class}


def check_options(settings: Settings, methods: list[Method], given: list[str]) -> None:
    """Raise UserError for a given option that none of the methods has."""
    known = [name for method in methods for name in method.options]
    for key in given:
        owner, _, name = key.rpartition(".")
        owners = [method for method in methods if not owner or method.name.casefold() == owner.casefold()]
        if not owners:
            raise UserError(f"--option {key}: {owner} is none of the methods asked for")
        if not any(name in method.options for method in owners):
            raise UserError(f"--option {key}: no such option{suggest(name, dict.fromkeys(known))}")


def options_of(settings: Settings, method: Method) -> dict[str, object]:
    """Return the options given that are the method's own, those by METHOD.NAME over those by NAME."""
    own = {name: value for name, value in settings.options.items() if name in method.options}
    for key, value in settings.options.items():
        owner, _, name = key.rpartition(".")
        if owner.casefold() == method.name.casefold():
            own[name] = value
    return own


def check_paths(settings: Settings) -> None:
    """Find before even the data are loaded whether results can be written."""
    for folder in (settings.save_path, settings.cache_path):
        check_writable(folder)


def check(bench: Bench, runs: list[Run]) -> None:
    """Find before any work what would stop one of the runs later. Raises UserError; writes nothing."""
    settings = bench.settings
    if settings.steps is not None:
        continual.check(bench)
        for run in runs:
            if run.needs:  # a step's network has fewer outputs
                fewest = bench.dataset.num_classes // settings.steps
                run.method.resolved(fewest, bench.head_size[1], options_of(settings, run.method))
    if settings.pretrained is not None:
        for run in runs:
            if "dynamics" in run.needs:
                raise UserError(
                    f"{run.method.name} needs the dynamics of pretraining, which --pretrained weights do not hold; "
                    f"leave --pretrained out, or the method"
                )
        if any(run.needs & OF_THE_NETWORK for run in runs):
            load_weights(bench.fresh_network(settings.model, "shape"), settings.pretrained)
    hashes, folders = set(), {settings.save_path / "tables", settings.cache_path / "checkpoints"}
    for run in runs:
        if condensation_run.is_condensation(run):
            hashes |= condensation_run.check(bench, run, options_of(settings, run.method))
        else:
            _check_size(bench, run)
        config = configuration(bench, run)
        key = records.config_hash(config)
        hashes |= {selection_key(config), *condensation_run.checkpoints(key, settings.evaluations)}
        hashes |= {*(cache_key(bench, selector) for selector in selectors(bench, run))}
        path = records.record_path(settings.save_path, config, settings.model)
        folders.add(path.parent)
        if path.exists() and records.read_record(path) is None and not settings.overwrite:
            raise UserError(f"{path} is damaged; move it away, or give --overwrite to write it anew")
    for folder in sorted(folders):
        check_writable(folder)
    given = settings.resume_from
    if given is not None and not given.is_dir() and settings.steps is not None:
        hashes |= {key for run in runs for key in _of_steps(bench, run)}
    if given is not None and not given.is_dir() and given.stem not in hashes:
        raise UserError(f"checkpoint {given} belongs to none of these runs; give the command that it was made by")


def _of_steps(bench: Bench, run: Run) -> set[str]:
    """Return the names of checkpoints that the steps of continual learning may leave."""
    settings, key = bench.settings, records.config_hash(configuration(bench, run))
    names = {f"{key}-steps"}
    for number, classes in enumerate(continual.class_order(bench.dataset.num_classes, settings.steps, run.seed)):
        own, its = continual.step_of(bench, run, classes)
        names |= condensation_run.checkpoints(f"{key}-{number}", settings.evaluations)
        names |= {cache_key(own, selector) for selector in selectors(own, its)}
        if condensation_run.is_condensation(its):
            names |= condensation_run.check(own, its, options_of(settings, its.method))
        else:
            names.add(selection_key(configuration(own, its)))
    return names


def _check_size(bench: Bench, run: Run) -> None:
    if run.method.everything:
        return
    _, split = bench.part(run)
    sizes = torch.bincount(split.labels.cpu(), minlength=bench.dataset.num_classes).numpy()
    sizes = sizes if bench.settings.balance else sizes.sum(keepdims=True)
    if class_budgets(sizes, **size_of(bench, run)).sum() < 2:
        raise UserError("one sample is too few to train on (BatchNorm); raise --fraction or --budget")


def in_the_making(bench: Bench, run: Run) -> bool:
    """Tell whether another process is making what the run needs."""
    if bench.settings.steps is not None:
        return False  # what its steps need lies in locks of their own
    if condensation_run.is_condensation(run):
        return condensation_run.in_the_making(bench, run, options_of(bench.settings, run.method))
    return provision.in_the_making(bench, run)


def recorded(bench: Bench, run: Run) -> dict | None:
    """Return the run's record if there is one."""
    config = configuration(bench, run)
    return records.read_record(records.record_path(bench.settings.save_path, config, bench.settings.model))


def run_one(bench: Bench, run: Run) -> dict:
    """Do one run, write its record and what it chose or made, and return the record."""
    config = configuration(bench, run)
    if bench.settings.steps is not None:
        record = continual.run_one(bench, run, config, _memory)
    elif condensation_run.is_condensation(run):
        record = condensation_run.run_one(bench, run, config, options_of(bench.settings, run.method))
    else:
        record = _selected_and_trained(bench, run, config)
    tidy(bench, config)
    return record


def tidy(bench: Bench, config: dict) -> None:
    """Remove the checkpoints of a run that is recorded."""
    key = records.config_hash(config)
    if bench.settings.steps is not None:
        continual.tidy(bench, key)
        return
    forget(bench, key)
    bench.checkpoint(selection_key(config)).unlink(missing_ok=True)


def _selected_and_trained(bench: Bench, run: Run, config: dict) -> dict:
    settings = bench.settings
    key = records.config_hash(config)
    path = records.record_path(settings.save_path, config, settings.model)
    subset, seconds, network_facts = subset_of(bench, run, config)

    evaluation = evaluate(
        bench,
        run,
        bench.dataset.train.take(torch.from_numpy(subset.indices)),
        key,
        f"{run.method.name} {config['fraction']:g} seed {run.seed}",
        None if subset.weights is None else torch.from_numpy(subset.weights),
    )
    seconds["train"] = evaluation.seconds
    record = {
        **records.heading(config, settings.model),
        **evaluation.facts,
        "test_interval": settings.test_interval,
        "subset_size": len(subset),
        "needs": sorted(run.needs),
        "cost": subset.cost,
        "cost_bound": subset.bound,
        "cost_error": subset.cost_error,
        "selection_network": network_facts,
        "indices": path.with_suffix(".npz").name,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "config": config,
        "environment": bench.environment,
    }
    subset.save(path.with_suffix(".npz"))
    records.write_record(path, record)  # last: a record means that the run is complete
    return record


def _memory(bench: Bench, run: Run) -> continual.Memory:
    """Return what the method keeps of the bench's training images: chosen ones, or such as it makes."""
    if condensation_run.is_condensation(run):
        synthetic = condensation_run.synthetic_of(bench, run, options_of(bench.settings, run.method))
        split = synthetic.split().to(bench.compute.device)
        return continual.Memory(split, None, None, {"select": synthetic.seconds}, synthetic)
    config = configuration(bench, run)
    # A search's log beside the records would pass for one on the whole dataset.
    log = bench.settings.cache_path / "continual" / f"{selection_key(config)}.jsonl"
    subset, seconds, _ = subset_of(bench, run, config, log)
    bench.checkpoint(selection_key(config)).unlink(missing_ok=True)
    indices = torch.from_numpy(subset.indices)
    weights = None if subset.weights is None else torch.from_numpy(subset.weights)
    return continual.Memory(bench.dataset.train.take(indices), weights, indices, seconds)


# What of a configuration does not determine the subset.
OF_THE_TRAINING = ("test_model", "training", "test_interval", "test_fraction", "evaluations")


def selection_key(config: dict) -> str:
    """Return a hash of all that determines the subset: what a long selection's checkpoint is called."""
    return records.config_hash({name: value for name, value in config.items() if name not in OF_THE_TRAINING})


def subset_of(
    bench: Bench, run: Run, config: dict, log: Path | None = None
) -> tuple[Subset, dict[str, float], dict | None]:
    """Return the run's subset, the seconds that its stages took, and facts about the network that selected.

    If another network was trained on the same subset before, it is read from beside that record. log: where a search
    writes its trials (beside the run's record).
    """
    for record, subset in _recorded_subsets(bench, config):
        seconds = {name: value for name, value in record["seconds"].items() if name != "train"}
        return subset, seconds, record.get("selection_network")
    signals, seconds, facts = signals_of(bench, run)
    log = log or records.record_path(bench.settings.save_path, config, bench.settings.model).with_suffix(".jsonl")
    context = context_of(bench, run, selection_key(config), log) if run.method.needs_context else None
    subset, seconds["select"] = _select(bench, run, signals, context, config)
    return subset, seconds, facts


def select_to_files(bench: Bench, run: Run) -> tuple[Subset, Path]:
    """Select without training; write the subset (.npz) and its indices (.txt, one a line); return it and the latter.

    Both lie where the run's record would: …/<method>/subset<f>-seed<s>-<hash of all that determines the subset>.
    """
    config = configuration(bench, run)
    subset, _, _ = subset_of(bench, run, config)
    path = _subset_path(bench, run, config)
    subset.save(path)
    subset.save_text(path.with_suffix(".txt"))
    bench.checkpoint(selection_key(config)).unlink(missing_ok=True)
    return subset, path.with_suffix(".txt")


def saved_subset(bench: Bench, run: Run) -> tuple[Subset, dict | None]:
    """Return the run's subset as it was recorded or selected before, or select it now, and save it.

    Beside it what the record says of the network that chose it, or None where there is no record or no such network.
    """
    config = configuration(bench, run)
    for record, subset in _recorded_subsets(bench, config):
        return subset, record.get("selection_network")
    path = _subset_path(bench, run, config)
    try:
        if not bench.settings.overwrite:
            return Subset.load(path), None
        return select_to_files(bench, run)[0], None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return select_to_files(bench, run)[0], None


def _subset_path(bench: Bench, run: Run, config: dict) -> Path:
    folder = records.record_path(bench.settings.save_path, config, bench.settings.model).parent
    return folder / f"subset{config['fraction']:g}-seed{run.seed}-{selection_key(config)}.npz"


def _recorded_subsets(bench: Bench, config: dict) -> Iterator[tuple[dict, Subset]]:
    """Yield what was recorded of the selection that a configuration describes."""
    if bench.settings.overwrite:
        return
    folder = records.record_path(bench.settings.save_path, config, bench.settings.model).parent
    for path in sorted(folder.glob(f"fraction{config['fraction']:g}-seed{config['seed']}-*.json")):
        record = records.read_record(path)
        if record is not None and selection_key(record["config"]) == selection_key(config):
            try:
                yield record, Subset.load(path.with_name(record["indices"]))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue  # absent or damaged: selected anew


def _select(bench: Bench, run: Run, signals: Signals, context: Context | None, config: dict) -> tuple[Subset, float]:
    """Return the subset, with indices into the whole training set, validation samples counted, and the seconds.

    These include what was spent before a selection that is resumed was interrupted.
    """
    settings = bench.settings
    how = {"balanced": settings.balance, "seed": run.seed, **config["options"]}
    earlier = []
    if context is not None:
        context = replace(context, took=earlier.append)
    means = {"context": context, "memory": settings.memory}
    if context is not None and run.method.nested:
        # Networks run for these picks: one order of everything, which costs no more, serves all sizes.
        order, seconds = order_of(bench, run, signals, how, means)
        subset = order.prefix(**size_of(bench, run))
    else:
        started = time.monotonic()
        subset = select_with(run.method, signals, **size_of(bench, run), **how, **means)
        seconds = sum(earlier) + time.monotonic() - started
    positions, _ = bench.part(run)
    return replace(subset, indices=positions.numpy()[subset.indices]), seconds
