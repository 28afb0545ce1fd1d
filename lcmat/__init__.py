"""Dataset reduction: the library. Methods live in `methods`, networks in `nets`; this package imports neither.

What it hands on is imported when it is asked for: command lines and `--help` do not wait seconds for PyTorch.
"""

from typing import TYPE_CHECKING

from lcmat.errors import UserError
from lcmat.lazy import handed_on

if TYPE_CHECKING:
    from lcmat.selection.context import Context
    from lcmat.selection.method import Method, Picks
    from lcmat.selection.subset import Subset
    from lcmat.signals.networks import signals_of_batches
    from lcmat.signals.signals import Signals

__all__ = ["Context", "Method", "Picks", "Signals", "Subset", "UserError", "signals_of_batches"]

_WINGS = {
    **dict.fromkeys(("Context", "Method", "Picks", "Subset"), "selection"),
    **dict.fromkeys(("Signals", "signals_of_batches"), "signals"),
}


__getattr__, __dir__ = handed_on(__name__, _WINGS)
