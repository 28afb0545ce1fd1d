"""What the runs of one command share: settings, data and machine; and what part of the data a run may use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from lcmat import records, seeds
from lcmat.data import Dataset, Split, held_out
from lcmat.files import sha256_of
from lcmat.hardware import make_repeatable
from lcmat.signals import linear_head
from lcmat.training import Checkpoint, Compute, Recipe

if TYPE_CHECKING:
    from lcmat.runs.job import Run

BuildNetwork = Callable[[str, Dataset], nn.Module]
PRETRAINING = Recipe(epochs=10, scheduler="constant")


@dataclass(frozen=True)
class Settings:
    """What all runs of one command share. Paths, device and resuming do not determine results; the rest does."""

    model: str = "ResNet18"
    inner_model: str | None = None  # what a method trains that trains networks; None: the model
    selection_recipe: Recipe = PRETRAINING
    pretrained: Path | None = None
    selection_test_interval: int = 0
    initialisations: int = 10
    initialisation_epochs: int | None = None  # None: as many as for pretraining
    balance: bool = True
    quota: str = "even"  # how much is taken of each class: lcmat.selection.quota
    recipe: Recipe = field(default_factory=Recipe)
    test_interval: int = 10
    test_fraction: float = 1.0
    selection_test_fraction: float = 1.0
    hold_out: bool = False  # in every run; else only for methods that need validation signals
    val_ratio: float = 0.2
    evaluations: int = 1  # networks that are trained on what a run chose or made
    snapshots: int = 10  # of synthetic images while they are learned
    save_path: Path = Path("result")
    cache_path: Path = Path("cache")
    overwrite: bool = False
    resume: bool = False
    resume_from: Path | None = None
    checkpoint_seconds: float = 60.0
    log: str | None = None  # where numbers are shown while they come, beside the lines in the cache


@dataclass(frozen=True, eq=False)
class Setup:
    """The data and machine that runs of one command share."""

    dataset: Dataset
    fingerprint: str
    compute: Compute
    build: BuildNetwork
    settings: Settings
    environment: dict[str, object]
    revision: Callable[[str, Dataset], int] = lambda *_: 1  # which network of a name `build` returns, counted from 1

    def revised(self, name: str, key: str = "revision") -> dict[str, int]:
        """Return what a configuration says of a network beside its name: nothing of the first one so called."""
        number = self.revision(name, self.dataset)
        return {} if number == 1 else {key: number}

    def fresh_network(self, name: str, *purpose: object) -> nn.Module:
        """Return a network initialised by a seed derived from `purpose`, the same on every device."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(0, "initialise", *purpose))
            return self.build(name, self.dataset)

    @functools.cached_property
    def head_size(self) -> tuple[int, int]:
        """Outputs and inputs of the selection network's last layer, as `Method.resolve` counts them.

        Raises UserError if it has none.
        """
        head = linear_head(self.fresh_network(self.settings.model, "shape"))
        return head.out_features, head.in_features - (head.bias is None)

    @functools.cached_property
    def pretrained_hash(self) -> str:
        """The sha256 of the file that --pretrained names."""
        return sha256_of(self.settings.pretrained)

    def ratio(self, run: Run) -> float | None:
        """Return the share of the training set that is held out in this run, or None."""
        return self.settings.val_ratio if self.settings.hold_out or "validation" in run.needs else None

    def split(self, seed: int, ratio: float | None) -> tuple[torch.Tensor, Split, Split | None]:
        """Return positions and split of what is left of the training set when the third, for validation, is out."""
        return _split(self, seed, ratio)

    def part(self, run: Run) -> tuple[torch.Tensor, Split]:
        """Return the positions and the split of the training samples to select from."""
        return _split(self, run.seed, self.ratio(run))[:2]

    def class_counts(self, run: Run) -> torch.Tensor:
        """Return how many of these samples each class has, (C,) on the CPU."""
        return torch.bincount(self.part(run)[1].labels.cpu(), minlength=self.dataset.num_classes)

    def test_split(self, fraction: float) -> Split:
        """Return the test split, or a fixed random share of it."""
        test = self.dataset.test
        if fraction >= 1:
            return test
        order = torch.randperm(len(test), generator=seeds.generator(0, "test fraction"))
        return test.take(order[: max(1, round(fraction * len(test)))].sort().values)

    def checkpoint(self, key: str) -> Path:
        """Return the file that a training keeps its state in."""
        given = self.settings.resume_from
        if given is not None and given.is_dir():
            return given / f"{key}.pt"
        if given is not None and given.stem == key:
            return given
        return self.settings.cache_path / "checkpoints" / f"{key}.pt"

    def training_checkpoint(self, key: str) -> Checkpoint:
        """Return that file, and when it is written and whether it is read."""
        return Checkpoint(self.checkpoint(key), self.settings.checkpoint_seconds, self.settings.resume)


def make_setup(
    dataset: Dataset,
    compute: Compute,
    build: BuildNetwork,
    settings: Settings,
    revision: Callable[[str, Dataset], int] = lambda *_: 1,
) -> Setup:
    """Put the dataset on the device; note its fingerprint, and what code and machine the results will come from."""
    make_repeatable()
    fingerprint, environment = dataset.fingerprint(), records.environment(compute.device)
    return Setup(dataset.to(compute.device), fingerprint, compute, build, settings, environment, revision)


@functools.lru_cache(maxsize=2)
def _split(setup: Setup, seed: int, ratio: float | None) -> tuple[torch.Tensor, Split, Split | None]:
    """Return the positions and the split that is left of the training set when the third, for validation, is out."""
    split = setup.dataset.train
    if ratio is None:
        return torch.arange(len(split)), split, None
    keep, out = held_out(split.labels, ratio, seed)
    return keep, split.take(keep), split.take(out)
