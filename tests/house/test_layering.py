"""Nobody imports a wing that the table of `lcmat/README.md` does not let them, every wing has a door, and no more."""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT

ROOMS = ("lcmat", "methods", "nets")
SCRIPTS = ("main.py", "cross_network_generalization.py")
FILES = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))] + [ROOT / name for name in SCRIPTS]
MODULES = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
GROUND = "ground floor"
TOP = {
    "main.py", "cross_network_generalization.py", "lcmat", "methods", "nets", "bash", "configs", "result", "tests",
    "requirements.txt", "constraints.txt", "README.md", ".ci", ".gitignore", ".ruff.toml",
    ".pytest.ini",
}  # fmt: skip


def table() -> dict[str, set[str]]:
    """Return for each wing, in the README's order, the wings that it may import; it can name only those above it."""
    rows = [line for line in (ROOT / "lcmat" / "README.md").read_text().splitlines() if line.startswith("|")]
    allowed: dict[str, set[str]] = {}
    for row in rows[2:]:
        wings, (first, *others) = ([word.strip() for word in cell.split(",")] for cell in row.strip("|").split("|"))
        above = [wing for wing in allowed if wing != GROUND]
        last = above[-1] if first == "all above" else first.removeprefix("all up to ")
        several = above[: above.index(last) + 1] if first.startswith("all ") else [first] if first != "nothing" else []
        assert {*several, *others} <= set(above), f"{wings} may not import {first, *others}: not all are above"
        allowed |= {wing: {*several, *others} for wing in wings}
    return allowed


ALLOWED = table()


def wing_of(words: list[str]) -> str:
    """Return the wing of a module, given by the words of its dotted name; of `lcmat` itself that is "lcmat"."""
    if words[0] != "lcmat" or len(words) == 1:
        return words[0]
    here = ROOT / "lcmat" / words[1]
    if here.is_dir() or words[1] in ALLOWED:
        return words[1]
    return GROUND if here.with_suffix(".py").exists() else "lcmat"  # a name that the library's own door hands on


def imported(node: ast.AST) -> Iterator[list[str]]:
    """Yield the modules that a statement imports, as words; of `from a.b import c` that may be a.b or a.b.c."""
    if isinstance(node, ast.Import):
        yield from (alias.name.split(".") for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from ([*node.module.split("."), alias.name] for alias in node.names)


def violations(name: str, source: str) -> list[str]:
    """Return what a module, by its file's name below the root, imports that it may not."""
    own = list(Path(name).with_suffix("").parts)
    wing = wing_of([part for part in own if part != "__init__"])
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.append(f"{name}:{node.lineno}: relative import")
        for words in imported(node):
            other = wing_of(words)
            if words[0] not in (*ROOMS, *(Path(script).stem for script in SCRIPTS)):
                continue
            of_method = words[0] == own[0] == "methods" and (ROOT / "methods" / f"{words[1]}.py").exists()
            if of_method or not may_import(own, wing, other):
                found.append(f"{name}:{node.lineno}: {wing} imports {'.'.join(words)}")
    return found


def may_import(own: list[str], wing: str, other: str) -> bool:
    """Tell whether a module may import a wing: its own, the ground floor, or what its row names."""
    if wing == "nets":
        return other == "nets"
    if own == ["lcmat", "__main__"]:
        return other in ("commands", "command_line", GROUND)
    if own == ["lcmat", "__init__"]:
        return other in ("selection", "signals", GROUND)
    if other == "lcmat":  # its door opens wings, so no wing goes through it
        return own[0] != "lcmat" or wing == "commands"
    return other in {wing, GROUND} | ALLOWED[wing]


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_what_its_wing_may(name: str) -> None:
    """Wherever the import stands, in a function, too."""
    assert violations(name, MODULES[name]) == []


PLANTED = {
    "a wing imports one below": ("lcmat/selection/budgets.py", "from lcmat.runs.job import Run"),
    "a wing imports a wing below": ("lcmat/selection/budgets.py", "from lcmat import runs"),
    "below, by its dotted name": ("lcmat/condensation/loop.py", "import lcmat.selection.subset"),
    "below, in a function": ("lcmat/data/hub.py", "def f():\n    from lcmat.training import Recipe"),
    "beside, not in its row": ("lcmat/reports/tables.py", "from lcmat.runs.job import Run"),
    "the ground floor imports a wing": ("lcmat/files.py", "from lcmat.data import load"),
    "a wing goes through the library's door": ("lcmat/selection/select.py", "from lcmat import Signals"),
    "the library imports methods": ("lcmat/runs/selection.py", "import methods"),
    "the library imports networks": ("lcmat/training/loop.py", "from nets import build"),
    "the library imports a command": ("lcmat/runs/queue.py", "from lcmat.commands import tables"),
    "the library imports a script": ("lcmat/runs/queue.py", "import main"),
    "a method imports runs": ("methods/kip.py", "from lcmat.runs import queue"),
    "a method imports another": ("methods/kip.py", "from methods.lbcs import lbcs"),
    "a method imports another's module": ("methods/kip.py", "from methods import lbcs"),
    "a network imports the library": ("nets/plain.py", "from lcmat.errors import UserError"),
    "relative": ("lcmat/data/hub.py", "from .splits import Split"),
}


@pytest.mark.parametrize(("name", "source"), PLANTED.values(), ids=PLANTED)
def test_planted_violation_is_found(name: str, source: str) -> None:
    """So that the test above can fail."""
    assert len(violations(name, source)) == 1


def test_every_wing_has_its_row() -> None:
    """And no row is of a wing that is gone; the ground floor is all else at the top of the library."""
    there = {p.stem for p in (ROOT / "lcmat").iterdir() if p.is_dir() and p.name != "__pycache__"}
    rows = set(ALLOWED) - {GROUND, "last_layer", "methods", "nets", *(Path(name).stem for name in SCRIPTS)}
    assert there == rows
    assert (ROOT / "lcmat" / "last_layer.py").exists()
    drawing = (ROOT / "lcmat" / "README.md").read_text().split("```")[1].strip().splitlines()
    assert [line.split()[0] for line in drawing[1:]] == [w for w in ALLOWED if w in there | {"last_layer"}]
    ground = {p.stem for p in (ROOT / "lcmat").glob("[!_]*.py")} - {"last_layer"}
    assert set(drawing[0].partition("   ")[0].split()) == ground


@pytest.mark.parametrize("wing", [wing for wing in ALLOWED if (ROOT / "lcmat" / wing).is_dir()])
def test_wing_has_a_door(wing: str) -> None:
    """Its `__init__.py` says in its docstring what belongs there, and the names that it hands on exist."""
    door = importlib.import_module(f"lcmat.{wing}")
    assert len(door.__doc__) > 40
    names = getattr(door, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    assert 3 <= len(names) <= 10 or wing == "commands"  # which python -m lcmat finds by their files
    assert [name for name in names if not hasattr(door, name)] == []


def test_top_level_holds_nothing_else() -> None:
    """No file beside those that a reader expects at the top of the project."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    there = {Path(line).parts[0] for line in tracked.splitlines()}
    assert {name for name in there if not re.fullmatch(r"requirements-\w+\.txt", name)} <= TOP


@pytest.mark.parametrize("name", MODULES)
def test_module_is_not_bound_to_cuda_and_loads_no_pickled_code(name: str) -> None:
    """Any device will do, and a checkpoint from elsewhere can run nothing."""
    assert ".cuda()" not in MODULES[name]
    assert MODULES[name].count("torch.load(") == MODULES[name].count("weights_only=True")


# ---- the tests -------------------------------------------------------------------------------------------------------

TESTS = sorted((ROOT / "tests").rglob("*.py"))
# Of other projects, which have no public name for these.
OF_OTHERS = {"_actions", "_option_string_actions", "_check_integrity", "_forward_pre_hooks", "_type"}
# Modules that commands share, and what the two scripts do: no commands of `python -m lcmat`.
WITHIN_COMMANDS = {"_registry", "_reports", "_main", "_cross_networks"}


def private(name: str) -> bool:
    """Tell whether a name is private to its module or class."""
    return name.startswith("_") and not name.startswith("__") and name not in OF_OTHERS | WITHIN_COMMANDS


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_imports_another_or_a_private_name(path: Path) -> None:
    """What tests share lies beside them; what must be tested is public."""
    for node in ast.walk(ast.parse(path.read_text())):
        for words in imported(node):
            assert not any(word.startswith("test_") for word in words[:-1]), f"{path.name}:{node.lineno}: {words}"
            assert not any(map(private, words)), f"{path.name}:{node.lineno}: {words}"
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            assert not private(node.attr), f"{path.name}:{node.lineno}: {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            names = [
                word for part in node.args if isinstance(part, ast.Constant) for word in str(part.value).split(".")
            ]
            assert not any(map(private, names)), f"{path.name}:{node.lineno}: {names}"


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_no_private_name_of_another(name: str) -> None:
    """A name that another module needs is public."""
    for node in ast.walk(ast.parse(MODULES[name])):
        found = [words[-1] for words in imported(node) if words[0] in ROOMS and private(words[-1])]
        assert found == [], f"{name}:{getattr(node, 'lineno', '')}"


def through_the_door(name: str, source: str) -> list[str]:
    """Return the names that a module takes from inside another wing though its door hands them on."""
    own = wing_of(list(Path(name).with_suffix("").parts))
    found = []
    for node in ast.walk(ast.parse(source)):
        words = node.module.split(".") if isinstance(node, ast.ImportFrom) and node.module else []
        if len(words) < 3 or words[0] != "lcmat" or words[1] == own:
            continue
        handed_on = getattr(importlib.import_module(f"lcmat.{words[1]}"), "__all__", [])
        found += [f"{name}:{node.lineno}: {alias.name}" for alias in node.names if alias.name in handed_on]
    return found


@pytest.mark.parametrize("name", [name for name in MODULES if name != "lcmat/__init__.py"])
def test_what_a_door_hands_on_is_taken_from_the_door(name: str) -> None:
    """So that files inside a wing can move."""
    assert through_the_door(name, MODULES[name]) == []


def test_a_way_round_a_door_is_found() -> None:
    assert (
        len(through_the_door("methods/kip.py", "from lcmat.selection.method import Method, Picks, CONTEXT_NEEDS")) == 2
    )
