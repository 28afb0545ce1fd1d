"""How PyTorch's threads wait: decided before it is loaded, unless the user has."""

import os
import subprocess
import sys

import pytest

from lcmat import waiting
from tests.harness import ROOT


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said how threads wait; what a test says is forgotten."""
    for name in waiting.SAID:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", waiting.SAID)
def test_what_the_user_says_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any of the variables that say it."""
    monkeypatch.setenv(name, "something")
    before = dict(os.environ)
    waiting.give_way()
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP, which can say what it goes by")
@pytest.mark.parametrize(
    "words", [["main.py", "--signals", "none.pt"], ["-m", "lcmat", "tables", "none"]], ids=["main.py", "lcmat"]
)
def test_programs_say_it_before_openmp_is_loaded(words: list[str]) -> None:
    """OpenMP itself tells what it goes by, when it is loaded."""
    environment = {**os.environ, "OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = '{waiting.SPINS}'" in done.stderr
    environment["OMP_WAIT_POLICY"] = "ACTIVE"
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT" in done.stderr
    assert f"GOMP_SPINCOUNT = '{waiting.SPINS}'" not in done.stderr
