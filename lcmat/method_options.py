"""What all methods' options have in common: names, kinds and ranges, checked before any work."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from numbers import Integral, Real

from lcmat.errors import UserError, shown, suggest

# Beyond any number that an option can sensibly have: counts of this size would be worked through before any message.
MOST = 10**12


def taking(options: type) -> Callable[[Callable], Callable]:
    """Let a function be given the fields of its parameter `options`, a dataclass, as keywords.

    f(signals, a=1) calls f(signals, options=Options(a=1)). So a method of many options is called like one of few, and
    their names, defaults and meanings stand in one place; its signature names them.
    """
    own = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type)
        for one in fields(options)
    ]
    names = {one.name for one in own}

    def decorated(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*arguments: object, **given: object) -> object:
            told = {name: value for name, value in given.items() if name in names}
            rest = {name: value for name, value in given.items() if name not in names}
            return function(*arguments, **rest, options=options(**told))

        signature = inspect.signature(function)
        others = [one for one in signature.parameters.values() if one.name != "options"]
        call.__signature__ = signature.replace(parameters=[*others, *own])
        return call

    return decorated


def check_radius(rho: float) -> float:
    """Return ρ; raise UserError unless it is finite and not negative."""
    if not 0 <= rho < math.inf:
        raise UserError(f"rho must be 0 or more and finite, not {rho}")
    return float(rho)


def plain(value: object) -> object:
    """Return NumPy's and PyTorch's numbers as Python's, and their arrays as lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def checked_seed(seed: object) -> int:
    """Return a seed as an int: draws depend on how it is written. Raises UserError for anything but whole numbers."""
    seed = plain(seed)
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise UserError(f"the seed must be a whole number, not {shown(seed)}")
    return int(seed)


def checked_flag(name: str, value: object) -> bool:
    """Return a truth value; raise UserError that names it for anything else, such as "no"."""
    value = plain(value)
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, not {shown(value)}")
    return value


def checked_options(owner: str, defaults: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the defaults with what is given in their place; raise UserError for unknown names and wrong kinds."""
    given = {name: plain(value) for name, value in given.items()}
    for name in given:
        if name not in defaults:
            known = suggest(name, defaults) if defaults else "; it has no options"
            raise UserError(f"{owner} has no option '{name}'{known}")
        _check_type(f"{owner}: {name}", given[name], defaults[name])
        if isinstance(given[name], Real) and MOST < abs(given[name]) < math.inf:
            raise UserError(f"{owner}: {name} must be at most {MOST:,} in size, not {shown(given[name])}")
    return {**defaults, **given}


def like_defaults(options: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Return options with floats where the defaults are: 1 and 1.0 are one setting."""
    return {
        name: float(options[name]) if isinstance(usual, float) else options[name] for name, usual in defaults.items()
    }


def _check_type(name: str, value: object, default: object) -> None:
    """Raise UserError unless an option's value is of the kind of its default (None: the method itself checks it)."""
    kinds = {bool: (bool, "true or false"), int: (Integral, "a whole number"), float: (Real, "a number")}
    kind, words = kinds.get(type(default), (object, ""))
    if not isinstance(value, kind) or (kind is not bool and kind is not object and isinstance(value, bool)):
        raise UserError(f"{name} must be {words}, not {shown(value)}")


def check_numbers(
    options: Mapping[str, object],
    at_least_one: tuple[str, ...] = (),
    at_least_two: tuple[str, ...] = (),
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
) -> None:
    """Raise UserError for an option that is out of its range; names that are not there are passed over."""
    for least, names in ((1, at_least_one), (2, at_least_two)):
        for name in names:
            value = options.get(name, least)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} must be a whole number of at least {least}, not {value!r}")
    for words, names, least in (("above 0", positive, math.ulp(0.0)), ("0 or more", not_negative, 0.0)):
        for name in names:
            value = options.get(name, 1.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise UserError(f"{name} must be {words} and finite, not {value!r}")
