"""Every command line of the project, its parser, and its flags in words.

python -m tests.command_lines    # renew tests/house/flags.txt, which a test compares with the flags there are
"""

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cross_network_generalization
import main
from lcmat import commands
from lcmat.command_line.options import Parser

FLAGS = Path(__file__).parent / "house" / "flags.txt"
MODULES = [module.name for module in pkgutil.iter_modules(commands.__path__) if not module.name.startswith("_")]
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "main.py": main.main,
    "cross_network_generalization.py": cross_network_generalization.main,
    **{f"-m lcmat {name}": importlib.import_module(f"lcmat.commands.{name}").main for name in MODULES},
}


def parser_of(command: str) -> Parser:
    """Return the parser that a command's --help shows."""
    found: list[Parser] = []
    with mock.patch.object(Parser, "print_help", lambda self, *_: found.append(self)):
        try:
            COMMANDS[command](["--help"])
        except SystemExit:
            return found[0]
    raise AssertionError(f"{command} --help does not end")


def flags_of(parser: Parser) -> dict[str, str]:
    """Return in words what a parser takes, by name: its flags but --help, and what comes without a flag."""
    return {name_of(action): in_words(action) for action in parser._actions if action.dest != "help"}


def name_of(action: argparse.Action) -> str:
    """Return a flag's first spelling, or what stands for a word without a flag."""
    return action.option_strings[0] if action.option_strings else str(action.metavar)


def in_words(action: argparse.Action) -> str:
    """Return what a user must know of a flag: spellings, how many values of which kind, and the default."""
    kind = getattr(action.type, "__name__", "text").strip("_").replace("_", " ") if action.nargs != 0 else "no value"
    many = {None: "", 0: "", "?": ", or none", "+": ", one or more", "*": ", any number"}[action.nargs]
    return f"{' '.join(action.option_strings) or action.metavar}: {kind}{many}; default {action.default!r}"


def described() -> str:
    """Return all flags of all commands, a line each; those that a command shares with main.py are not repeated."""
    shared = flags_of(parser_of("main.py"))
    text = []
    for command in COMMANDS:
        own = flags_of(parser_of(command))
        whole = command != "main.py" and shared.items() <= own.items()
        lines = [words for name, words in own.items() if not (whole and name in shared)]
        text += [f"[{command}]", *(["all flags of main.py"] if whole else []), *lines, ""]
    return "\n".join(text)


if __name__ == "__main__":
    FLAGS.write_text(described())
