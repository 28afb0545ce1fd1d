"""Dataset reduction: the library. Methods live in `methods`, networks in `nets`; this package imports neither.

What it hands on is imported when it is asked for: command lines and `--help` do not wait seconds for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

from lcmat.errors import UserError

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


def __getattr__(name: str) -> object:
    """Return what a wing hands on, by its name."""
    if name not in _WINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WINGS[name]}"), name)


def __dir__() -> list[str]:
    """Return all names, those not yet imported, too."""
    return sorted({*globals(), *__all__})
