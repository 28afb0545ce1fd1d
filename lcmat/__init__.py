"""Dataset reduction: the library. Methods live in `methods`, networks in `nets`; this package imports neither."""

from lcmat.errors import UserError
from lcmat.selection.context import Context
from lcmat.selection.method import Method, Picks
from lcmat.selection.subset import Subset
from lcmat.signals.networks import signals_of_batches
from lcmat.signals.signals import Signals

__all__ = ["Context", "Method", "Picks", "Signals", "Subset", "UserError", "signals_of_batches"]
