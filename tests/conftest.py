"""Shared by all tests: small digits, a quick setting, and the command line as a user calls it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from lcmat import data
from lcmat.block_sizes import sized
from lcmat.effort import limited_effort
from lcmat.training import Compute
from tests.harness import ROOT, Setting


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """What a test's command line says by `--threads` ends with the test: another number rounds differently."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    """Scikit-learn's digits: real images, no download."""
    return data.load("digits")


@pytest.fixture(scope="session")
def compute(digits: data.Dataset) -> Compute:
    """The CPU in float32."""
    return Compute(torch.device("cpu"), torch.float32, digits.mean, digits.std)


@pytest.fixture
def efforts() -> Iterator[Setting]:
    """Set thresholds of `lcmat.effort` for the rest of a test."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(limited_effort(**changes))


@pytest.fixture
def block_sizes() -> Iterator[Setting]:
    """Set sizes of `lcmat.block_sizes` for the rest of a test."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(sized(**changes))


@pytest.fixture(scope="session")
def script() -> Callable[..., subprocess.CompletedProcess]:
    """Run a script of the project in a process of its own and return what it printed."""

    def run(words: Sequence[object], cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, **options)

    return run
