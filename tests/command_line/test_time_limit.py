"""A grid with a time limit: starts what would probably end in time, leaves the rest, and goes on later."""

from pathlib import Path

import pytest

from lcmat.__main__ import main as command
from lcmat.command_line.estimate import seconds_of
from lcmat.errors import UserError
from lcmat.runs import queue
from tests.harness import places, records_in

GRID = """
title: Small
runs: {dataset: digits, model: MLP, selection: [Uniform], fraction: [0.05], epochs: 1, test_interval: 0}
vary: {seed: [[0], [1], [2], [3]]}
report: [accuracy]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(GRID)
    return path


def test_what_ends_in_time_is_run_and_the_rest_another_time(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """By a clock on which a run takes half an hour: of four runs one hour and a half hold three, exit code 0."""
    now, in_words = [0.0], queue.in_words
    monkeypatch.setattr("lcmat.command_line.estimate.time.monotonic", lambda: now[0])

    def slowly(job: queue.Job, original=queue.record_of) -> tuple[dict | None, bool]:
        record, known = original(job)
        if not known:
            now[0] += 1800
            record["seconds"]["train"] = 1800.0
        return record, known

    monkeypatch.setattr(queue, "record_of", slowly)
    monkeypatch.setattr(queue, "in_words", in_words)
    assert command(["grid", str(grid), *places(tmp_path), "--time_limit", "1.6h"]) == 0
    assert len(records_in(tmp_path / "result")) == 3
    assert "1 left for want of time" in capsys.readouterr().err
    assert command(["grid", str(grid), *places(tmp_path), "--time_limit", "1.6h"]) == 0
    assert len(records_in(tmp_path / "result")) == 4
    assert "left for want" not in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("9m", 540), ("1.5h", 5400), ("2 d", 172_800)])
def test_times_are_read_with_their_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "1w", "9" * 30])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="a time looks like"):
        seconds_of(text)
