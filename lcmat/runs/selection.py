"""A run of selection: take signals, select, train a fresh network on the subset, record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lcmat import records
from lcmat.data import Split
from lcmat.errors import UserError
from lcmat.runs import checkpoints, pretrained
from lcmat.runs.checkpoints import Names
from lcmat.runs.configuration import Reduction, configuration
from lcmat.runs.evaluation import Reduced, record_of, train_and_test
from lcmat.runs.job import Run, record_path, record_paths
from lcmat.runs.kind import Exemplars
from lcmat.runs.setup import Setup
from lcmat.selection import Context, Subset, class_budgets, select_with
from lcmat.selection.quota import budgets_by_recall
from lcmat.signals import Signals

# What of a configuration does not determine the subset.
OF_THE_TRAINING = (
    "test_model",
    "test_model_revision",
    "training",
    "test_interval",
    "test_fraction",
    "evaluations",
    "weights_by",
)


@dataclass(frozen=True)
class Selection:
    """Runs that choose a subset (see `runs.kind.Kind`)."""

    protocol: str = "whole"

    def configuration(self, setup: Setup, run: Run) -> dict[str, object]:
        """Return all that determines the run's result.

        A method that reads no signals does not depend on f_T, so that is left out of its configuration.
        """
        everything = run.method.ignores_budget
        fraction = 1.0 if everything else run.fraction
        reduction = Reduction(
            fraction=run.budget / len(setup.part(run)[0]) if fraction is None else fraction,
            budget=None if everything else run.budget,
            balance=setup.settings.balance,
            options=run.method.recorded(*_head_size(setup, run), run.options),
            network=pretrained.selection_configuration(setup, run),
            sharing=_evenness(setup, run),
        )
        return configuration(setup, run, reduction)

    def check(self, setup: Setup, run: Run) -> None:
        """Find before any work what would stop the run later."""
        pretrained.check(setup, run)
        if run.method.ignores_budget:
            return
        sizes = setup.class_counts(run).numpy()
        sizes = sizes if setup.settings.balance else sizes.sum(keepdims=True)
        if class_budgets(sizes, **size_of(setup, run)).sum() < 2:
            raise UserError("one sample is too few to train on (BatchNorm); raise --fraction or --budget")

    def checkpoints(self, setup: Setup, run: Run) -> Names:
        """Return those of the search for the subset, of the trainings on it, and of the networks that are read."""
        config = self.configuration(setup, run)
        trainings = checkpoints.of_trainings(records.config_hash(config), setup.settings.evaluations)
        return Names(trainings | {selection_key(config)}, pretrained.checkpoints(setup, run))

    def busy(self, setup: Setup, run: Run) -> Path | None:
        """Return the lock that another process holds which is making a network or signals that the run needs."""
        return pretrained.busy(setup, run)

    def make(self, setup: Setup, run: Run) -> dict:
        """Select, train on the subset, and write it and the record."""
        config = self.configuration(setup, run)
        path = record_path(setup, config)
        subset, seconds, network_facts = subset_of(setup, run, config)
        label = f"{run.method.name} {config['fraction']:g} seed {run.seed}"
        evaluation = train_and_test(setup, run, _reduced(setup, subset), records.config_hash(config), label)
        facts = {
            "subset_size": len(subset),
            "needs": sorted(run.needs),
            "cost": subset.cost,
            "cost_bound": subset.bound,
            "cost_error": subset.cost_error,
            "selection_network": network_facts,
            "indices": path.with_suffix(".npz").name,
        }
        record = record_of(setup, config, evaluation.facts, facts, seconds | {"train": evaluation.seconds})
        subset.save(path.with_suffix(".npz"))
        records.write_record(path, record)  # last: a record means that the run is complete
        return record

    def keep(self, setup: Setup, run: Run) -> Exemplars:
        """Return the chosen images."""
        config = self.configuration(setup, run)
        # A search's log beside the records would pass for one on the whole dataset.
        log = setup.settings.cache_path / "continual" / f"{selection_key(config)}.jsonl"
        subset, seconds, _ = subset_of(setup, run, config, log)
        checkpoints.remove(setup, [selection_key(config)])
        reduced = _reduced(setup, subset)
        return Exemplars(reduced.split, reduced.weights, torch.from_numpy(subset.indices), seconds)


def _head_size(setup: Setup, run: Run) -> tuple[int, int]:
    """Return outputs and inputs of the last layer that the method reads, (0, 0) if it reads none."""
    return setup.head_size if run.needs else (0, 0)


def _reduced(setup: Setup, subset: Subset) -> Reduced:
    split: Split = setup.dataset.train.take(torch.from_numpy(subset.indices))
    return Reduced(split, None if subset.weights is None else torch.from_numpy(subset.weights))


def size_of(setup: Setup, run: Run) -> dict[str, object]:
    """Return the fraction or budget of a selection as `select_with` takes it: class by class for --ipc."""
    if run.fraction is not None:
        return {"fraction": run.fraction}
    if run.per_class is None or not setup.settings.balance:
        return {"budget": run.budget}
    counts = setup.class_counts(run)
    return {"budget": [run.per_class * int(count > 0) for count in counts]}  # an empty class has nothing to choose


def _evenness(setup: Setup, run: Run) -> dict[str, object]:
    """Return what a configuration says of --quota and --ipc: nothing where sharing in proportion comes to the same."""
    if setup.settings.quota != "even" and not run.method.ignores_budget:
        return {"quota": setup.settings.quota}
    size = size_of(setup, run)
    if run.method.ignores_budget or not isinstance(size.get("budget"), list):
        return {}
    counts = setup.class_counts(run).numpy()
    same = run.budget <= counts.sum() and class_budgets(counts, budget=run.budget).tolist() == size["budget"]
    return {} if same else {"per_class": run.per_class}


def selection_key(config: dict) -> str:
    """Return a hash of all that determines the subset: what a long selection's checkpoint is called."""
    return records.config_hash({name: value for name, value in config.items() if name not in OF_THE_TRAINING})


def subset_of(
    setup: Setup, run: Run, config: dict, log: Path | None = None
) -> tuple[Subset, dict[str, float], dict | None]:
    """Return the run's subset, the seconds that its stages took, and facts about the network that selected.

    If another network was trained on the same subset before, it is read from beside that record. log: where a search
    writes its trials (beside the run's record).
    """
    for record, subset in _recorded_subsets(setup, config):
        seconds = {name: value for name, value in record["seconds"].items() if name != "train"}
        return subset, seconds, record.get("selection_network")
    signals, seconds, facts = pretrained.signals_of(setup, run)
    log = log or record_path(setup, config).with_suffix(".jsonl")
    context = pretrained.context_of(setup, run, selection_key(config), log) if run.method.needs_context else None
    subset, seconds["select"] = select(setup, run, signals, context)
    return subset, seconds, facts


def select_to_files(setup: Setup, run: Run) -> tuple[Subset, Path]:
    """Select without training; write the subset (.npz) and its indices (.txt, one a line); return it and the latter.

    Both lie where the run's record would: …/<method>/subset<f>-seed<s>-<hash of all that determines the subset>.
    """
    config = Selection().configuration(setup, run)
    subset, _, _ = subset_of(setup, run, config)
    path = _subset_paths(setup, run, config)[0]
    subset.save(path)
    subset.save_text(path.with_suffix(".txt"))
    checkpoints.remove(setup, [selection_key(config)])
    return subset, path.with_suffix(".txt")


def saved_subset(setup: Setup, run: Run) -> tuple[Subset, dict | None]:
    """Return the run's subset as it was recorded or selected before, or select it now, and save it.

    Beside it what the record says of the network that chose it, or None where there is no record or no such network.
    """
    config = Selection().configuration(setup, run)
    for record, subset in _recorded_subsets(setup, config):
        return subset, record.get("selection_network")
    kept = () if setup.settings.overwrite else map(_read_subset, _subset_paths(setup, run, config))
    subset = next((one for one in kept if one is not None), None)
    return select_to_files(setup, run)[0] if subset is None else subset, None


def recorded_network(setup: Setup, run: Run, folder: Path) -> dict | None:
    """Return what records below another folder say of the network that chose the run's subset; None if nothing."""
    elsewhere = replace(setup, settings=replace(setup.settings, save_path=folder, overwrite=False))
    config = Selection().configuration(setup, run)
    found = (record.get("selection_network") for record, _ in _recorded_subsets(elsewhere, config))
    return next((facts for facts in found if facts), None)


def _read_subset(path: Path) -> Subset | None:
    """Return a subset from its file; None where that is absent or damaged, and it is selected anew."""
    try:
        return Subset.load(path) if path.exists() else None
    except UserError as error:
        warnings.warn(f"{error}; it is selected anew", stacklevel=2)
        return None


def _subset_paths(setup: Setup, run: Run, config: dict) -> list[Path]:
    """Return where the subset is written, and where it may have been before."""
    name = f"subset{config['fraction']:g}-seed{run.seed}-{selection_key(config)}.npz"
    return [path.with_name(name) for path in record_paths(setup, config)]


def _recorded_subsets(setup: Setup, config: dict) -> Iterator[tuple[dict, Subset]]:
    """Yield what was recorded of the selection that a configuration describes."""
    if setup.settings.overwrite:
        return
    pattern = f"fraction{config['fraction']:g}-seed{config['seed']}-*.json"
    for path in [one for place in record_paths(setup, config) for one in sorted(place.parent.glob(pattern))]:
        record = records.read_record(path)
        if record is not None and selection_key(record["config"]) == selection_key(config):
            subset = _read_subset(path.with_name(record["indices"]))
            if subset is not None:
                yield record, subset


def select(setup: Setup, run: Run, signals: Signals, context: Context | None) -> tuple[Subset, float]:
    """Return the subset, with indices into the whole training set, validation samples counted, and the seconds.

    These include what was spent before a selection that is resumed was interrupted.
    """
    # In full: a configuration leaves some options out.
    options = run.method.resolved(*_head_size(setup, run), run.options)
    determining = {"balanced": setup.settings.balance, "seed": run.seed, **options}
    earlier: list[float] = []
    if context is not None:
        context = replace(context, took=earlier.append)
    incidental, size = {"context": context}, size_of(setup, run)
    if setup.settings.quota == "recall" and not run.method.ignores_budget:
        size = {"budget": budgets_by_recall(signals.validation, setup.class_counts(run).numpy(), **size).tolist()}
    if context is not None and run.method.nested:
        # Networks run for these picks: one order of everything, which costs no more, serves all sizes.
        order, seconds = pretrained.order_of(setup, run, signals, determining, incidental)
        subset = order.prefix(**size)
    else:
        started = time.monotonic()
        subset = select_with(run.method, signals, **size, **determining, **incidental)
        seconds = sum(earlier) + time.monotonic() - started
    positions, _ = setup.part(run)
    return replace(subset, indices=positions.numpy()[subset.indices]), seconds
