"""What a kind of run is. A further kind is one more module that fulfils `Kind`, and its line in `runs.kinds`.

A run goes down: plan → kind → network and signals → select or condense → train and test → record.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from lcmat.condensation import Synthetic
from lcmat.data import Split
from lcmat.runs.checkpoints import Names

if TYPE_CHECKING:
    from lcmat.runs.job import Run
    from lcmat.runs.setup import Setup


@dataclass(frozen=True, eq=False)
class Exemplars:
    """What a method keeps of one step's classes: images and labels (of the step), weights or None, and positions.

    indices: of the chosen in the step's training images, or None where images were made; synthetic: these, of which
    each may hold several of `split`. seconds: of the stages that led to them.
    """

    split: Split
    weights: Tensor | None
    indices: Tensor | None
    seconds: dict[str, float]
    synthetic: Synthetic | None = None

    def __len__(self) -> int:
        return len(self.split if self.synthetic is None else self.synthetic)


class Kind(Protocol):
    """How a run of one kind is described, checked, done and cleared up after."""

    protocol: str  # which tables its records stand in

    def configuration(self, setup: Setup, run: Run) -> dict[str, object]:
        """Return all that determines the run's result, and nothing else: its hash is the run's name."""

    def check(self, setup: Setup, run: Run) -> None:
        """Find before any work what would stop the run later. Raises UserError; writes nothing."""

    def checkpoints(self, setup: Setup, run: Run) -> Names:
        """Return every name of a checkpoint that the run may leave."""

    def busy(self, setup: Setup, run: Run) -> Path | None:
        """Return the lock that another process holds which is making what the run needs, or None."""

    def make(self, setup: Setup, run: Run) -> dict:
        """Do the run, write what it chose or made and then its record, and return the record."""

    def keep(self, setup: Setup, run: Run) -> Exemplars:
        """Return what the method keeps of the setup's training images: a step of continual learning."""
