"""What is analysed: subsets, as cases, in groups by the network f_T that chose them or that measures them."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from lcmat import records
from lcmat.alive import Progress
from lcmat.analysis.loss_difference import coefficients
from lcmat.errors import UserError
from lcmat.expected import Expected
from lcmat.files import PROJECT, save_tensors
from lcmat.last_layer import LastLayer
from lcmat.records.keys import FORMATS
from lcmat.reports.tables import row_names
from lcmat.runs import Job, Setup, pretrained, selection
from lcmat.runs.cache import cached
from lcmat.selection import Subset
from lcmat.signals import Signals

Row = dict[str, object]


@dataclass(frozen=True, eq=False)
class Case:
    """One subset: by which method (with options and network, if there are several), what share of T, by which seed."""

    method: str
    fraction: float
    seed: int
    subset: Subset

    @property
    def row(self) -> Row:
        """The columns that tell cases apart."""
        return {"method": self.method, "fraction": self.fraction, "seed": self.seed, "samples": len(self.subset)}

    @property
    def key(self) -> list:
        """What L(S) depends on: the samples and their weights."""
        weights = self.subset.weights
        return [self.subset.indices.tolist(), None if weights is None else weights.tolist()]


@dataclass(frozen=True, eq=False)
class Group:
    """The cases of one f_T. network_name: what tells it from others of the same seed, "" if there are none.

    differing: how it differs from the network that chose recorded subsets, if it does.
    """

    setup: Setup
    seed: int
    network_name: str
    cases: list[Case]
    differing: list[str] = field(default_factory=list)

    def named(self, what: str) -> str:
        """Return the name of a row: what it is of, and the network, if there are several."""
        return f"{what} [{self.network_name}]" if self.network_name else what

    @functools.cached_property
    def network(self) -> nn.Module:
        """f_T."""
        return pretrained.network_of(self.setup, self.seed)

    @functools.cached_property
    def signals(self) -> Signals:
        """Its signals on all samples of T."""
        return pretrained.signals_of_network(self.setup, self.seed)

    @functools.cached_property
    def layer(self) -> LastLayer:
        """The last layer on all samples of T."""
        return LastLayer.of(self.signals)

    def coefficients(self, case: Case | None) -> Tensor:
        """Return c with L(T) − L(S) = Σ c_i ℓ_i."""
        return coefficients(len(self.signals), None if case is None else case.subset, self.signals.labels.device)

    def kept(self, what: Row, case: Case | None, make: Callable[[], dict], expected: Expected) -> dict:
        """Return what `make` returns, from the cache if it was made before for the same network and subset.

        What the cache holds is made anew unless it is as `expected`.
        """
        subset = None if case is None else case.key
        network = pretrained.cache_key(self.setup, pretrained.NetworkId(self.seed, None))
        key = records.config_hash({"format": FORMATS["analyses"], "network": network, "subset": subset, **what})
        path = self.setup.settings.cache_path / "analyses" / f"{key}.pt"
        value = cached(path, expected)
        if value is None:
            value = make()
            save_tensors(path, value)
        return value


def groups_of(jobs: list[Job]) -> list[Group]:
    """Return the subsets of the jobs, recorded or chosen now and saved, by the network that chose them.

    Of jobs that train several networks on one subset there is one case. Raises UserError for synthetic images, which
    are no subset of T.
    """
    jobs = [job for job in jobs if not _whole(job)]
    names = _names(jobs)
    groups: dict[tuple, Group] = {}
    found: list[tuple[Group, Case, bool]] = []
    seen: set[str] = set()
    bar = Progress(jobs, desc="subsets", disable=True if len(jobs) < 10 else None)
    for job, network in zip(bar, _networks(jobs), strict=True):
        key = selection.selection_key(job.config)
        if key in seen:  # of several networks that are trained on one subset
            continue
        seen.add(key)
        setup, seed = job.setup, job.run.seed
        place = (id(setup.dataset), pretrained.cache_key(setup, pretrained.NetworkId(seed, None)), seed)
        group = groups.setdefault(place, Group(setup, seed, network, []))
        subset, facts = selection.saved_subset(setup, job.run)
        facts = facts or selection.recorded_network(setup, job.run, PROJECT / "result")
        reads_network = bool(job.run.needs & pretrained.OF_THE_NETWORK)
        if reads_network and setup.ratio(job.run) is None:  # a held-out split makes it another network by intent
            _check_network(group, facts)
        case = Case(names[key], job.config["fraction"], seed, subset)
        found.append((group, case, reads_network))
    for group, case, reads_network in found:
        # A subset that no network chose is measured by every one of its seed.
        of_all = [one for one in groups.values() if (one.setup.dataset, one.seed) == (group.setup.dataset, group.seed)]
        for one in [group] if reads_network else of_all:
            one.cases.append(replace(case, method=one.named(case.method)))
    if not groups:
        raise UserError("there is no subset to analyse; name methods other than Full")
    return list(groups.values())


def _whole(job: Job) -> bool:
    if "condensing" in job.config:
        raise UserError(f"{job.run.method.name} makes images; an analysis of the loss on T takes subsets of T")
    return job.run.method.ignores_budget


def _names(jobs: list[Job]) -> dict[str, str]:
    """Return what to call each job's subset: its method, with its options where that was run with several sets."""
    names = row_names([{**job.config, "config": job.config} for job in jobs])
    return {selection.selection_key(job.config): name for job, name in zip(jobs, names, strict=True)}


def _networks(jobs: list[Job]) -> list[str]:
    """Return what tells each job's network f_T from the others', "" if there is one (of each seed)."""
    known = [_of_the_network(job) for job in jobs]
    differ = [name for name in dict.fromkeys(itertools.chain(*known)) if len({str(one.get(name)) for one in known}) > 1]
    return [", ".join(f"{name} {one.get(name)}" for name in differ) for one in known]


def _of_the_network(job: Job) -> dict[str, object]:
    """Return what determines f_T, but for its seed."""
    dataset = {"dataset": job.setup.dataset.title, "image_size": job.setup.dataset.size_in_words}
    network = pretrained.network_configuration(job.setup, pretrained.NetworkId(job.run.seed, None))
    return {**dataset, "precision": str(job.setup.compute.precision), **network, "seed": None}


def _check_network(group: Group, recorded: dict | None) -> None:
    """Warn of a subset that was chosen by another network than f_T here: threads and processors round differently."""
    names = ("train_accuracy", "sha256")
    own = pretrained.facts_of_network(group.setup, group.seed) if recorded else {}
    if recorded and any(name in recorded and recorded[name] != own.get(name) for name in names):
        text = (
            f"the network of seed {group.seed} in {group.setup.settings.cache_path} is not the one that chose the "
            f"recorded subsets (training accuracy {own.get('train_accuracy')}%, not "
            f"{recorded.get('train_accuracy')}%): it was trained with other threads or on another processor. "
            f"Numbers will differ; for the recorded ones give an empty --cache_path and the --threads of the records"
        )
        group.differing.append(text)
        warnings.warn(text, stacklevel=2)
