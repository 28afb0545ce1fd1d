"""Functions that a reader can take in: few bare parameters, one screen, types on all that are given and returned."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT

# A bare parameter may be given by position. Options of a method are keywords, each with a default and a meaning.
MOST_BARE = 6
MOST_LINES = 50
FOLDERS, SCRIPTS = ("lcmat", "methods", "nets"), ("main.py", "cross_network_generalization.py")
FOUND = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = [*FOUND, *map(Path, SCRIPTS)]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function of a module, methods and inner ones, too."""
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def bare(function: Function) -> list[ast.arg]:
    """Return what may be given by position, but for the object itself."""
    given = function.args.posonlyargs + function.args.args
    return [one for one in given if one.arg not in ("self", "cls")]


def lines(function: Function) -> int:
    """Return how many lines a function has, but for its docstring."""
    count = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        count -= function.body[0].end_lineno - function.body[0].lineno + 1
    return count


def untyped(function: Function) -> list[str]:
    """Return what has no type: parameters, and the result."""
    given = bare(function) + function.args.kwonlyargs
    return [one.arg for one in given if one.annotation is None] + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_functions_are_short_and_typed(path: Path) -> None:
    faults = []
    for function in functions(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        where = f"{path}:{function.lineno} {function.name}"
        if len(bare(function)) > MOST_BARE:
            faults.append(f"{where} has {len(bare(function))} bare parameters: make some a dataclass, or keywords")
        if lines(function) > MOST_LINES:
            faults.append(f"{where} has {lines(function)} lines: make it a few")
        faults += [f"{where}: no type on {name}" for name in untyped(function)]
    assert not faults, "\n".join(faults)
