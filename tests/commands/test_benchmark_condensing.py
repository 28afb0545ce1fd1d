"""The benchmark of a condensation step against the plain loop over classes."""

from functools import partial
from pathlib import Path

import pytest
import torch

from lcmat.command_line import run_command_line
from lcmat.commands import benchmark
from lcmat.commands.benchmark import condensing
from lcmat.condensation.matching_step import Stored, matching_gradient
from tests import oracles

one_thread = pytest.fixture(oracles.one_thread, scope="module", autouse=True)


@pytest.mark.parametrize("name", ["DM", "LCMat-C"])
def test_the_benchmarks_plain_loop_takes_the_same_step(name: str) -> None:
    network, matching, images, pairs = condensing.problem(name, classes=2, batch=5)
    _, gradient = matching_gradient(network, matching, Stored(images, lambda x: x), pairs)
    plain = condensing.plain_step(name, network, images, pairs)
    torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_benchmark_is_tabulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two classes; measured once, then kept."""
    small = partial(condensing.problem, classes=2, batch=2)
    monkeypatch.setattr(condensing, "problem", small)
    words = ["condense", "--runs", "1", "--save_path", str(tmp_path)]
    assert run_command_line(benchmark.main, words) == 0
    text = (tmp_path / "benchmarks" / "condense.md").read_text()
    assert "| DM " in text
    assert "| LCMat-C " in text
    monkeypatch.setattr(condensing, "problem", None)
    assert run_command_line(benchmark.main, words) == 0
