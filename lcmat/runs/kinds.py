"""Which kind of run a method asks for: the one place that knows them all."""

from __future__ import annotations

from lcmat.condensation import Condenser
from lcmat.runs.condensation import Condensation
from lcmat.runs.continual import Continual, Steps
from lcmat.runs.dynamic import Dynamic
from lcmat.runs.kind import Kind
from lcmat.runs.selection import Selection
from lcmat.selection import Method
from lcmat.selection.sampler import Sampler


def kind_of(method: Method | Condenser | Sampler, steps: Steps | None = None) -> Kind:
    """Return the kind of run that a method is for; steps: of continual learning, else None."""
    known = {Condenser: Condensation, Sampler: Dynamic}
    inner = known.get(type(method), Selection)()
    return inner if steps is None else Continual(inner, steps)
