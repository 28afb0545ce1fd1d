"""One run: what it is, by which kind it is done, with which data and settings; and what is checked of all."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lcmat import records
from lcmat.condensation import Condenser
from lcmat.errors import UserError
from lcmat.files import check_writable
from lcmat.runs.kind import Kind
from lcmat.runs.setup import Setup
from lcmat.selection import Method
from lcmat.selection.sampler import Sampler
from lcmat.signals import Taking


@dataclass(frozen=True)
class Run:
    """One cell of a table for one seed. Either a fraction or a budget.

    per_class: samples of each class, where the budget is that times the number of classes. options: of the method, as
    far as they were given; the others are the method's own defaults. taking: how its signals are taken.
    weights_by: what the weights that it gives have mean 1 over, the subset or each batch.
    """

    method: Method | Condenser | Sampler
    seed: int
    fraction: float | None = None
    budget: int | None = None
    test_model: str | None = None  # None: the model that selects
    per_class: int | None = None
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    taking: Taking = field(default_factory=Taking)
    weights_by: str = "subset"

    @property
    def needs(self) -> frozenset[str]:
        """What the method needs, "dynamics.margin" counting as dynamics."""
        return self.method.fields


@dataclass(frozen=True, eq=False)
class Job:
    """One run, its kind, and the data and settings that it is done with."""

    setup: Setup
    run: Run
    kind: Kind

    @functools.cached_property
    def config(self) -> dict[str, object]:
        """All that determines the result."""
        return self.kind.configuration(self.setup, self.run)

    @property
    def key(self) -> str:
        """The hash of the configuration."""
        return records.config_hash(self.config)

    @property
    def path(self) -> Path:
        """Where the record is, or will be."""
        return record_path(self.setup, self.config)


def record_path(setup: Setup, config: dict[str, object]) -> Path:
    """Return where the record of a configuration is, or will be."""
    path, *earlier = record_paths(setup, config)
    return next((one for one in earlier if one.exists() and not path.exists()), path)


def record_paths(setup: Setup, config: dict[str, object]) -> list[Path]:
    """Return where the record of a configuration may be: first where it would be written, of old ones elsewhere.

    Those of data of one's own that were made when these had no name stand below that of their kind.
    """
    names = dict.fromkeys((setup.dataset.own_name, None))
    return [records.record_path(setup.settings.save_path, config, setup.settings.model, name) for name in names]


def check(jobs: list[Job]) -> None:
    """Find before any work what would stop one of the runs later. Raises UserError; writes nothing."""
    names: set[str] = set()
    folders: set[Path] = set()
    for job in jobs:
        settings = job.setup.settings
        job.kind.check(job.setup, job.run)
        if settings.resume_from is not None:
            names |= job.kind.checkpoints(job.setup, job.run).every
        folders |= {job.path.parent, settings.save_path / "tables", settings.cache_path / "checkpoints"}
        if job.path.exists() and records.read_record(job.path) is None and not settings.overwrite:
            raise UserError(f"{job.path} is damaged; move it away, or give --overwrite to write it anew")
    for folder in sorted(folders):
        check_writable(folder)
    for given in {job.setup.settings.resume_from for job in jobs} - {None}:
        if not given.is_dir() and given.stem not in names:
            raise UserError(f"checkpoint {given} belongs to none of these runs; give the command that it was made by")
