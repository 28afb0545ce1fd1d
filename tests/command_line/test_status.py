"""python -m lcmat grid FILE --status: where the runs of a grid stand, without touching them."""

import os
from pathlib import Path

import pytest

from lcmat import locks
from lcmat.command_line import planning
from lcmat.commands import grid
from lcmat.commands._registry import REGISTRY
from lcmat.runs.status import claim_of, noted, status_of
from tests.harness import call, places

GRID = """
title: Four runs
runs:
  - &all {dataset: digits, model: MLP, selection: Uniform, fraction: 0.05, seed: [0, 1, 2], selection_epochs: 1,
          epochs: 1, batch: 50, test_interval: 0, precision: float32, threads: 1}
  - {<<: *all, seed: 9, lr: 1.0e+30, epochs: 3}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A grid of four runs, of which one diverges."""
    (tmp_path / "four.yaml").write_text(GRID)
    return [str(tmp_path / "four.yaml"), *places(tmp_path)]


def status(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what --status prints."""
    capsys.readouterr()
    assert call(*words, "--status", command=grid.main) == 0
    return capsys.readouterr().out.splitlines()


def test_states_of_runs(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Waiting before, running while a process holds one, recorded and failed afterwards."""
    assert status(words, capsys) == ["Four runs: 4 runs, 0 recorded, 0 running, 0 failed, 4 waiting"]
    assert not (tmp_path / "result").exists(), "--status wrote something"
    with planning.planned(grid.grid_of(words).lines, REGISTRY) as jobs:
        with locks.claimed(claim_of(jobs[1])), noted(jobs[1]):
            found = status(words, capsys)
        assert found[0] == "Four runs: 4 runs, 0 recorded, 1 running, 0 failed, 3 waiting"
        assert (
            f"running: Uniform fraction 0.05 seed 1: on {os.uname().nodename}, process {os.getpid()}, since" in found[1]
        )
    assert call(*words, command=grid.main) == 2  # one diverged
    found = status(words, capsys)
    assert found[0] == "Four runs: 4 runs, 3 recorded, 0 running, 1 failed, 0 waiting"
    assert found[1].startswith("failed: Uniform fraction 0.05 seed 9: the loss is")


def test_the_note_of_a_process_that_died_counts_for_nothing(words: list[str]) -> None:
    with planning.planned(grid.grid_of(words).lines, REGISTRY) as jobs:
        note = claim_of(jobs[0]).with_suffix(".running")
        note.parent.mkdir(parents=True)
        note.write_text('{"host": "gone", "process": 1, "since": 0}')
        assert status_of(jobs).states == ["waiting"] * 4
    call(*words, command=grid.main)
    assert not note.exists()
