"""Dataset reduction: the library. Methods live in `methods`, networks in `nets`; this package imports neither."""

from lcmat.errors import UserError
from lcmat.networks import signals_of_batches
from lcmat.selection import Method, Picks, Subset
from lcmat.signals import Signals

__all__ = ["Method", "Picks", "Signals", "Subset", "UserError", "signals_of_batches"]
