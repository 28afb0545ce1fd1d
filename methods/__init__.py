"""Reduction methods by name: selection methods, and beside them condensation methods, which make images.

To add one, write a file here that makes a `Method`, a `Condenser` or a `Sampler`: every module is looked through.
"""

import importlib
import pkgutil
from collections.abc import Sequence

from lcmat.condensation import Condenser
from lcmat.errors import lookup
from lcmat.selection import Context, Method, Subset, select_with
from lcmat.selection.sampler import Sampler
from lcmat.signals import Signals

_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
_METHODS = {value.name: value for module in _MODULES for value in vars(module).values() if isinstance(value, Method)}
_CONDENSERS = {
    value.name: value for module in _MODULES for value in vars(module).values() if isinstance(value, Condenser)
}
_SAMPLERS = {value.name: value for module in _MODULES for value in vars(module).values() if isinstance(value, Sampler)}
_ALIASES = {"Random": "Uniform"}


def names() -> list[str]:
    """Return the canonical names of all selection methods."""
    return list(_METHODS)


def get(name: str) -> Method:
    """Return the method called `name`, whatever its case; raise UserError that names the nearest known one."""
    found = lookup("selection method", name, [*_METHODS, *_ALIASES])
    return _METHODS[_ALIASES.get(found, found)]


def condensers() -> list[str]:
    """Return the canonical names of all condensation methods."""
    return list(_CONDENSERS)


def condenser(name: str) -> Condenser:
    """Return the condensation method called `name`, whatever its case; raise UserError that names the nearest one."""
    return _CONDENSERS[lookup("condensation method", name, _CONDENSERS)]


def samplers() -> list[str]:
    """Return the canonical names of all methods that draw samples anew for each epoch of training."""
    return list(_SAMPLERS)


def sampler(name: str) -> Sampler:
    """Return the sampler called `name`, whatever its case; raise UserError that names the nearest known one."""
    return _SAMPLERS[lookup("sampler", name, _SAMPLERS)]


def find(name: str) -> Method | Condenser | Sampler:
    """Return the method of any kind called `name`; raise UserError that names the nearest known one."""
    found = lookup("method", name, [*_METHODS, *_ALIASES, *_CONDENSERS, *_SAMPLERS])
    return _CONDENSERS.get(found) or _SAMPLERS.get(found) or get(found)


def select(
    signals: Signals,
    method: str = "LCMat-S",
    *,
    fraction: float | None = None,
    budget: int | Sequence[int] | None = None,
    balanced: bool = True,
    seed: int = 0,
    context: Context | None = None,
    memory: int | str | None = None,
    quota: str = "even",
    **options: object,
) -> Subset:
    """Select a subset of the n samples that `signals` describe.

    Give either `fraction`, in (0, 1], or `budget`, the number of samples. `balanced` selects class by class:
    max(1, round(fraction · n_c)) of each class, or the budget shared in proportion to the class sizes, or a budget that
    is given as one number for each class. `seed` decides
    all that is random in the method. `options` are the method's own, such as rho, K and weights of LCMat-S; they are
    listed in methods/README.md. `context` holds the images and networks for the methods that need more than signals.
    `memory` bounds what is kept that could also be formed again, such as matrices of distances: bytes, or "4GB"; by
    default a quarter of what is free. The picks do not depend on it.
    `quota` "recall" takes more of classes that are recalled less on the validation signals (DRoP).
    Raises UserError (a ValueError) for bad values, unknown names, and signals that lack what the method needs.
    """
    return select_with(
        get(method),
        signals,
        fraction=fraction,
        budget=budget,
        balanced=balanced,
        seed=seed,
        context=context,
        memory=memory,
        quota=quota,
        **options,
    )
