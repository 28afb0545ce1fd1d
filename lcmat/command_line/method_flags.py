"""A method's options from the command line: by flags of their own and by --option, over the method's own defaults."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from lcmat.command_line.options import true_or_false
from lcmat.command_line.released_flags import rho_of
from lcmat.condensation import Condenser
from lcmat.errors import UserError, lookup, shown, suggest
from lcmat.selection import Method

# Flags that are options of whatever method has them; unless given, the method's own default holds.
FLAGS = ("K", "weights", "greedy", "factor", "backpack", "tolerance", "trials", "init_selection")
# Flags for every method of selection: whose numerics hold, how its signals are taken, and its weights used.
OF_ANY = ("numerics", "signals_mode", "gradient_scale", "weights_by")
NUMERICS = ("paper", "released")


def options_of(args: argparse.Namespace, flags: bool = True) -> dict[str, object]:
    """Return the options given: by their flags (if `flags`), and by --option as NAME or METHOD.NAME.

    Values of --option are numbers or switches where they are such. Raises UserError for what is no NAME=VALUE.
    """
    options: dict[str, object] = {}
    if flags:
        own = {"rho": rho_of(args), **{name: getattr(args, name) for name in (*FLAGS, *OF_ANY)}}
        options = {name: value for name, value in own.items() if value is not None}
    for item in args.option:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise UserError(f"--option takes NAME=VALUE, not {shown(item)}")
        if [other.partition("=")[0] for other in args.option].count(name) > 1:
            raise UserError(f"--option {shown(name)} is given twice; leave one out")
        options[name] = _value(value)
    return options


def _value(text: str) -> object:
    for parse in (int, float, true_or_false):
        try:
            return parse(text)
        except (ValueError, argparse.ArgumentTypeError):
            continue
    return text


def options_for(method: Method | Condenser, given: Mapping[str, object]) -> dict[str, object]:
    """Return the options given that are the method's own or for any, those by METHOD.NAME over those by NAME."""
    own = {name: value for name, value in given.items() if name in names_of(method)}
    for key, value in given.items():
        owner, _, name = key.rpartition(".")
        if owner.casefold() == method.name.casefold():
            own[name] = value
    return own


def names_of(method: Method | Condenser) -> tuple[str, ...]:
    """Return the names of all options that a method may be given."""
    return (*method.options, *(OF_ANY if isinstance(method, Method) else ()))


def taken_apart(method: Method, given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return the options of a method as it takes them, and what else OF_ANY says, from those given for it.

    With the released numerics, what they say holds for whatever is not given.
    """
    numerics = lookup("numerics", str(given.get("numerics", "paper")), NUMERICS)
    every = {**(method.released if numerics == "released" else {}), **given}
    own = {name: value for name, value in every.items() if name not in OF_ANY}
    return own, {name: str(every[name]) for name in OF_ANY[1:] if name in every}


def check_options(methods: Sequence[Method | Condenser], given: Sequence[str]) -> None:
    """Raise UserError for an option given, by NAME or METHOD.NAME, that none of the methods has."""
    known = [name for method in methods for name in names_of(method)]
    for key in given:
        owner, _, name = key.rpartition(".")
        owners = [method for method in methods if not owner or method.name.casefold() == owner.casefold()]
        if not owners:
            raise UserError(f"--option {key}: {owner} is none of the methods asked for")
        if not any(name in names_of(method) for method in owners):
            raise UserError(f"--option {key}: no such option{suggest(name, dict.fromkeys(known))}")
