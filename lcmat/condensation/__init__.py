"""Learning synthetic images: what a condensation method and its task are, the one loop, matching losses.

It selects nothing. How networks are trained on what was learned belongs to `runs`.
"""

from lcmat.condensation.condenser import Condenser, Task
from lcmat.condensation.loop import Learning, condense
from lcmat.condensation.networks import Schedule
from lcmat.condensation.synthetic import Synthetic

__all__ = ["Condenser", "Learning", "Schedule", "Synthetic", "Task", "condense"]
