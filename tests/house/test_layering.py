"""The rooms of the project import downward only, and nothing else lies at the top."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT

ALLOWED = {
    "nets": {"nets"},
    "lcmat": {"lcmat"},
    "methods": {"methods", "lcmat"},
    "lcmat/commands": {"lcmat", "methods", "nets"},
}
ROOMS = {"lcmat", "methods", "nets"}
TOP = {
    "main.py", "cross_network_generalization.py", "lcmat", "methods", "nets", "bash", "configs", "result", "tests",
    "requirements.txt", "requirements-dev.txt", "constraints.txt", "README.md", ".ci", ".gitignore", ".ruff.toml",
    ".pytest.ini",
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


def room(path: Path) -> str:
    """Return the room that a module lies in."""
    relative = path.relative_to(ROOT)
    return "lcmat/commands" if relative.parts[:2] == ("lcmat", "commands") else relative.parts[0]


@pytest.mark.parametrize(
    "path",
    [p for name in sorted(ROOMS) for p in sorted((ROOT / name).rglob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_imports_point_downward(path: Path) -> None:
    upward = (set(imported(path)) & ROOMS) - ALLOWED[room(path)]
    assert not upward, f"{path.relative_to(ROOT)} imports {upward}"


def test_library_reaches_no_command_but_by_its_entry_point() -> None:
    for path in (ROOT / "lcmat").rglob("*.py"):
        if room(path) == "lcmat" and path.name != "__main__.py":
            assert "lcmat.commands" not in path.read_text(), path


def test_top_level_holds_nothing_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {Path(line).parts[0] for line in tracked.splitlines()} <= TOP


def test_no_code_is_bound_to_cuda_or_loads_pickled_code() -> None:
    for name in (*ROOMS, "main.py"):
        for path in [ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"):
            text = path.read_text()
            assert ".cuda()" not in text, path
            assert text.count("torch.load(") == text.count("weights_only=True"), path
