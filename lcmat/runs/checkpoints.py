"""The names of checkpoints: files that a run which is killed leaves behind, and goes on from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcmat.runs.setup import Setup


@dataclass(frozen=True)
class Names:
    """Every checkpoint that a run may leave.

    own: of the run alone; they mean nothing once it is recorded. shared: of what several runs need (a network, learned
    images); whoever has made that removes them.
    """

    own: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

    def __or__(self, other: Names) -> Names:
        return Names(self.own | other.own, self.shared | other.shared)

    @property
    def every(self) -> frozenset[str]:
        """Both."""
        return self.own | self.shared


def training(key: str, number: int) -> str:
    """Return the name of a training's checkpoint, the first of those of a run having the run's own key."""
    return key if number == 0 else f"{key}-{number}"


def evaluated(key: str) -> str:
    """Return the name of the file that the trainings which are done are kept in."""
    return f"{key}-evaluated"


def of_trainings(key: str, evaluations: int) -> frozenset[str]:
    """Return the names of all that the trainings of a run may leave."""
    return frozenset({*(training(key, number) for number in range(evaluations)), evaluated(key)})


def step(key: str, number: int) -> str:
    """Return the key of the trainings after a step of continual learning."""
    return f"{key}-{number}"


def steps(key: str) -> str:
    """Return the name of the file that the steps which are done are kept in."""
    return f"{key}-steps"


def are_left(setup: Setup) -> bool:
    """Tell whether there may be any checkpoint at all."""
    if setup.settings.resume_from is not None:  # one lies where the user says
        return True
    folder = setup.checkpoint("any").parent
    return folder.is_dir() and any(folder.iterdir())


def remove(setup: Setup, names: Iterable[str]) -> None:
    """Remove checkpoints, as far as they are there."""
    for name in names:
        setup.checkpoint(name).unlink(missing_ok=True)
