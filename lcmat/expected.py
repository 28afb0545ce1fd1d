"""What a file that is read back must hold, said once for each format and checked by one function.

An `Expected` takes a value and returns what is wrong with it, in a few words, or None. They are put together from
small ones: fields({"epoch": whole(1), "history": fields({…})}).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real

import numpy as np

from lcmat.errors import shown

Expected = Callable[[object], str | None]


def problem(value: object, expected: Expected) -> str | None:
    """Return in words what is wrong with a value and where, or None."""
    wrong = expected(value)
    return None if wrong is None else wrong.removeprefix(".") if wrong[0] in ".[" else f"it {wrong}"


def whole(least: float = -math.inf, most: float = math.inf) -> Expected:
    """Expect a whole number within bounds; True is none."""
    return _number(Integral, "whole number", least, most)


def real(least: float = -math.inf, most: float = math.inf) -> Expected:
    """Expect a finite number within bounds; True is none."""
    return _number(Real, "finite number", least, most)


def _number(kind: type, name: str, least: float, most: float) -> Expected:
    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, kind) or not _is_finite(value):
            return f"is no {name} but {_kind(value)}"
        return None if least <= value <= most else f"is {shown(value)}, not {least:g} to {most:g}"

    return check


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floating numbers
        return False


def of(*kinds: type) -> Expected:
    """Expect a value of one of some types."""
    return lambda value: None if isinstance(value, kinds) else f"is {_kind(value)}"


def plain(value: object) -> str | None:
    """Expect a word, a finite number, a truth value or None; this is an `Expected` itself."""
    return (
        real()(value) if isinstance(value, Real) and not isinstance(value, bool) else of(str, bool, type(None))(value)
    )


def matching(pattern: str) -> Expected:
    """Expect text that a regular expression matches as a whole."""
    return lambda value: None if isinstance(value, str) and re.fullmatch(pattern, value) else f"is {shown(value)}"


def one_of(*values: object) -> Expected:
    """Expect one of some plain values."""
    return lambda value: None if type(value) in map(type, values) and value in values else f"is {shown(value)}"


def optional(expected: Expected) -> Expected:
    """Expect None, or what `expected` expects."""
    return lambda value: None if value is None else expected(value)


def each(expected: Expected, least: int = 0, most: float = math.inf) -> Expected:
    """Expect a list or tuple of so many items, each as expected."""

    def check(value: object) -> str | None:
        if not isinstance(value, list | tuple):
            return f"is no list but {_kind(value)}"
        if not least <= len(value) <= most:
            return f"has {len(value)} items, not {least} to {most:g}"
        return _first((f"[{number}]", expected(item)) for number, item in enumerate(value))

    return check


def row(*expected: Expected) -> Expected:
    """Expect a list or tuple of just as many items, each as expected."""

    def check(value: object) -> str | None:
        if not isinstance(value, list | tuple) or len(value) != len(expected):
            return f"is no list of {len(expected)}"
        return _first((f"[{k}]", one(item)) for k, (one, item) in enumerate(zip(expected, value, strict=True)))

    return check


def mapping(expected: Expected) -> Expected:
    """Expect a dictionary from words to values, each as expected."""

    def check(value: object) -> str | None:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return f"is no mapping from names but {_kind(value)}"
        return _first((f".{key if len(key) <= 60 else shown(key)}", expected(item)) for key, item in value.items())

    return check


def fields(required: Mapping[str, Expected], optional: Mapping[str, Expected] | None = None) -> Expected:
    """Expect a dictionary with all the required fields, and perhaps the optional ones; others are not looked at."""
    known = {**required, **(optional or {})}

    def check(value: object) -> str | None:
        if not isinstance(value, dict):
            return f"is no mapping but {_kind(value)}"
        if lacking := [name for name in required if name not in value]:
            return f"lacks '{lacking[0]}'"
        return _first((f".{name}", one(value[name])) for name, one in known.items() if name in value)

    return check


def array(*shape: int | None, kinds: str = "f") -> Expected:
    """Expect a tensor or NumPy array of a shape, in which None stands for any length.

    kinds: letters of what it may hold: f floating numbers (finite ones: F), i integers, b true and false.
    """

    def check(value: object) -> str | None:
        values = _as_numpy(value)
        if values is None:
            return f"is no array but {_kind(value)}"
        if values.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, values.shape, strict=True)):
            return f"has shape {values.shape}, not ({', '.join('…' if n is None else str(n) for n in shape)})"
        if {"f": "f", "i": "i", "u": "i", "b": "b"}.get(values.dtype.kind, "") not in kinds.lower():
            return f"holds {values.dtype}"
        if "F" in kinds and values.dtype.kind == "f" and not np.isfinite(values).all():
            return "holds a value that is not finite"
        return None

    return check


def like(template: object) -> Expected:
    """Expect what has the structure of `template`: its keys and lengths, shapes, kinds of numbers, types."""
    if isinstance(template, Mapping):

        def check(value: object) -> str | None:
            if not isinstance(value, Mapping):
                return f"is no mapping but {_kind(value)}"
            if other := [key for key in (*template, *value) if key not in value or key not in template]:
                return f"{'has' if other[0] in value else 'lacks'} {shown(other[0])}"
            return _first((f".{key}", like(item)(value[key])) for key, item in template.items())

        return check
    if isinstance(template, list | tuple):
        return row(*map(like, template))
    if (values := _as_numpy(template)) is not None:
        return array(*values.shape, kinds={"u": "i"}.get(values.dtype.kind, values.dtype.kind))
    if isinstance(template, bool) or template is None:
        return of(type(template))
    return real() if isinstance(template, Real) else of(type(template))


def both(*expected: Expected) -> Expected:
    """Expect all of several things; the first that is wrong is said."""
    return lambda value: next((wrong for one in expected if (wrong := one(value)) is not None), None)


def either(*expected: Expected) -> Expected:
    """Expect one of several things; what is said is what keeps a value from being the last."""
    return lambda value: None if any(one(value) is None for one in expected[:-1]) else expected[-1](value)


def _first(found: object) -> str | None:
    """Return the first that is wrong, after the name of its place."""
    for name, wrong in found:
        if wrong is not None:
            return f"{name}{wrong}" if wrong[0] in ".[" else f"{name} {wrong}"
    return None


def _as_numpy(value: object) -> np.ndarray | None:
    if isinstance(value, np.ndarray):
        return value
    if not (hasattr(value, "dtype") and hasattr(value, "detach")):
        return None
    value = value.detach().cpu()
    return (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
