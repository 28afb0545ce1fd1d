"""One run, from its configuration to its record: of selection, condensation, continual learning, per-epoch draws.

Each kind of run is a module here that fulfils `Kind`; what runs share (networks, signals, checkpoints, the trainings at
the end, the queue) stands beside them. Nothing here sees a command line.
"""

from typing import TYPE_CHECKING

from lcmat.lazy import handed_on

if TYPE_CHECKING:
    from lcmat.runs.job import Job, Run
    from lcmat.runs.kind import Kind
    from lcmat.runs.setup import Settings, Setup, make_setup

__all__ = ["Job", "Kind", "Run", "Settings", "Setup", "make_setup"]

__getattr__, __dir__ = handed_on(
    __name__, {"Job": "job", "Run": "job", "Kind": "kind", "Settings": "setup", "Setup": "setup", "make_setup": "setup"}
)
