"""python -m lcmat NAME: what can be done with records, and what is not the main job. See --help."""

import ast
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from lcmat import commands
from lcmat.command_line import repeated, run_command_line
from lcmat.command_line.program import importing
from lcmat.errors import UserError, lookup


def main(argv: list[str]) -> int:
    """Find the command by name and run it."""
    names = (module.name for module in pkgutil.iter_modules(commands.__path__))
    known = sorted(name for name in names if not name.startswith("_"))
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m lcmat COMMAND …\n")
        for name in known:
            print(f"  {name:12}{_documentation(name).splitlines()[0]}")
        print("\npython -m lcmat COMMAND --help says more.")
        return 0
    if argv[0].startswith("-"):
        raise UserError(f"a command comes first, not {argv[0]}: {', '.join(known)}")
    name = lookup("command", argv[0], known)
    if name == "grid" and "--plan" in argv:
        return repeated.said([name, *argv[1:]], lambda: _module(name).main(argv[1:]))
    return _module(name).main(argv[1:])


def _module(name: str) -> ModuleType:
    with importing():
        return importlib.import_module(f"lcmat.commands.{name}")


def _documentation(name: str) -> str:
    """Return what a command says of itself, without importing all that it needs, which takes seconds."""
    source = importlib.util.find_spec(f"lcmat.commands.{name}").origin
    return ast.get_docstring(ast.parse(Path(source).read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.argv[0] = "lcmat"
    sys.exit(run_command_line(main))
