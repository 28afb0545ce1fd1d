"""The benchmark command: what it measures, keeps and writes. (What it finds is in result/benchmarks.)"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import methods
from lcmat import benchmarks
from lcmat.benchmarks import Report, measured, synthetic_signals, timed
from lcmat.commands import benchmark
from lcmat.commands.benchmark import selecting
from lcmat.options import run_command_line

SMALL = ["--samples", "300", "--features", "8", "--classes", "3", "--runs", "2"]


def allocate(megabytes: int) -> list[float]:
    """Hold so much memory for a moment; runs in a process of its own."""
    return timed(lambda: torch.ones(megabytes * 2**20, dtype=torch.uint8)[0], 2)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    held = torch.ones(600 * 2**20, dtype=torch.uint8)  # by this process, not by the measured ones
    little, much = measured(allocate, 1), measured(allocate, 500)
    assert len(held) > 0
    assert len(much["seconds"]) == 2
    assert 400 * 2**20 < much["peak_bytes"] - little["peak_bytes"] < 700 * 2**20
    assert much["median"] == pytest.approx(sum(much["seconds"]) / 2)


def test_synthetic_signals_hold_everything_and_are_repeatable() -> None:
    signals, again = synthetic_signals(2000, 512, 10), synthetic_signals(2000, 512, 10)
    assert torch.equal(signals.logits, again.logits)
    accuracy = float((signals.logits.argmax(1) == signals.labels).float().mean())
    assert 0.8 < accuracy < 1
    sure = float((torch.softmax(signals.logits, 1).amax(1) > 0.999).float().mean())
    assert 0.05 < sure < 0.95
    assert len(signals.initialisations) == 10
    assert set(signals.validation.labels.tolist()) == set(range(10))


def test_selection_is_measured_kept_and_tabulated(tmp_path: Path, script: Callable) -> None:
    words = ["-m", "lcmat", "benchmark", "selection", *SMALL, "--save_path", tmp_path, "--methods", "Craig", "GraNd"]
    done = script(words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmarks" / "selection.json").read_text())
    assert set(report["measurements"]) == {"Craig", "GraNd"}
    assert report["setting"]["samples"] == 300
    for row in report["measurements"].values():
        assert len(row["seconds"]) == 2
        assert row["peak_bytes"] > 10**8
    text = (tmp_path / "benchmarks" / "selection.md").read_text()
    assert "`python -m lcmat benchmark selection --samples 300 --features 8 --classes 3 --runs 2`" in text
    assert "| Craig" in text


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(function: Callable, name: str, setting: dict) -> dict:
        asked.append(name)
        return {"seconds": [1.0, 3.0], "median": 2.0, "peak_bytes": 2**30}

    monkeypatch.setattr(selecting, "measured", counted)
    call = [*SMALL, "--save_path", str(tmp_path), "selection"]
    assert run_command_line(benchmark.main, call) == 0
    on_signals = {name for name in methods.names() if methods.get(name).needs and not methods.get(name).needs_context}
    assert set(asked) == on_signals
    assert run_command_line(benchmark.main, call) == 0
    assert len(asked) == len(on_signals)
    assert run_command_line(benchmark.main, [*call, "--fraction", "0.2"]) == 0
    assert len(asked) == 2 * len(on_signals)
    assert run_command_line(benchmark.main, [*call, "--fraction", "0.2", "--overwrite", "--methods", "Craig"]) == 0
    assert asked[-1] == "Craig"


def test_damaged_reports_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"setting": ')
    report = Report(tmp_path / "x.json", {"n": 1})
    assert report.rows == {}
    report.add("one", {"seconds": [1.0]})
    assert Report(tmp_path / "x.json", {"n": 1}).rows["one"]["seconds"] == [1.0]
    assert Report(tmp_path / "x.json", {"n": 2}).rows == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["selections"], "did you mean selection"),
        (["--runs", "0"], "--runs must be at least 1"),
        (["--methods", "Crag"], "did you mean Craig"),
    ],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str) -> None:
    assert run_command_line(benchmark.main, [*words, "--save_path", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_machine_names_changed_code() -> None:
    environment = Report(Path("nowhere"), {}).environment | {"git_commit": "0123456789abcdef+changes"}
    assert "commit 0123456789ab with changes" in benchmarks.machine(environment)
